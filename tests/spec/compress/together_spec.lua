-- Option together: the draws of several ranks cancel in the mean of their messages (runtime/sampling/strata.c), which
-- never varies more than with independent draws; each message is as it would be alone. False-alarm rates are stated;
-- seeds are fixed, so a run either always passes or always fails.
-- test: slow
local atomo = require "atomo"
local codec = require "support.codec"

local N = 3000
local families = {"qsgd:bits=4", "qsgd:bits=8,norm=max,coding=elias", "qsgd:bits=2", "terngrad", "natural",
  "entry:ratio=3", "entry:ratio=16", "entry:ratio=64,step=1", "taps:ratio=8", "fourier:ratio=8", "dct:ratio=8",
  "haar:ratio=8", "hadamard:ratio=8"}

local function square(t) return t:norm_value(2) ^ 2 end

local function heavy() return atomo.randn(N):exp() * atomo.randn(N) end

--- Gradients of n ranks: all equal, of cosine 0.4, uncorrelated, with opposite signs, or different entries.
local cases = {
  equal = function(n)
    local g, list = heavy(), {}
    for r = 1, n do list[r] = g end
    return list
  end,
  alike = function(n)
    local g, list = heavy(), {}
    for r = 1, n do list[r] = g * 0.63 + heavy() * 0.77 end
    return list
  end,
  apart = function(n)
    local list = {}
    for r = 1, n do list[r] = heavy() end
    return list
  end,
  opposite = function(n)
    local g, list = heavy(), {}
    for r = 1, n do list[r] = g * (r % 2 == 0 and 1 or -1) end
    return list
  end,
  disjoint = function(n)
    local list = {}
    for r = 1, n do list[r] = heavy() * atomo.rand(N):lt(0.1) end
    return list
  end,
}

local function made(text, together, ranks)
  local c = atomo.compressor(text .. (text:find ":" and "," or ":") .. "together=" .. tostring(together), {seed = 3})
  c:set_ranks(ranks)
  return c
end

--- Returns the mean squared error of the mean of all ranks' messages over the draws, and its standard error.
local function error_of_mean(c, list, draws)
  local n, sum, squares = #list, 0, 0
  local mean = atomo.zeros(N)
  for r = 1, n do mean:axpy_(1 / n, list[r]) end
  for step = 1, draws do
    atomo.scope(function()
      local acc = atomo.zeros(N)
      for r = 1, n do c:decode_add(c:encode(list[r], {step = step, rank = r - 1}), 1 / n, acc) end
      local e = square(acc - mean)
      sum, squares = sum + e, squares + e * e
    end)
  end
  local average = sum / draws
  return average, math.sqrt(math.max(0, squares / draws - average ^ 2) / (draws - 1))
end

describe("together", function()
  for k, text in ipairs(families) do
    it("never has a larger error of the mean than independent draws: " .. text, function()
      for name, gradients in pairs(cases) do
        for _, n in ipairs {2, 3, 8} do
          atomo.manual_seed(10 * k + n)
          local list = gradients(n)
          local with, e1 = error_of_mean(made(text, true, n), list, 30)
          local without, e2 = error_of_mean(made(text, false, n), list, 30)
          -- 195 comparisons; 5 standard errors are passed once in 10^4 runs
          assert.is_true(with <= without + 5 * math.sqrt(e1 ^ 2 + e2 ^ 2) + 1e-12,
            ("%s, %s, %d ranks: %g, without %g"):format(text, name, n, with, without))
        end
      end
    end)

    it("leaves each rank's message unbiased, with the variance and length that it has alone: " .. text, function()
      atomo.manual_seed(k)
      local g = codec.decaying(6, 24, 3, 3, 8)
      for _, n in ipairs {2, 5} do
        for rank = 0, n - 1, n - 1 do
          local alone, together = made(text, false, n), made(text, true, n)
          local acc, bytes, error, draws = atomo.zeros(24, 3, 3, 8), {0, 0}, 0, 400
          for step = 1, draws do
            atomo.scope(function()
              local m = together:encode(g, {step = step, rank = rank})
              local ghat = together:decode(m)
              acc:add_(ghat)
              error = error + square(ghat - g) / draws
              bytes[1], bytes[2] = bytes[1] + m.nbytes,
                bytes[2] + alone:encode(g, {step = step, rank = rank}).nbytes
            end)
          end
          local variance = together:stats().variance
          assert.near(alone:stats().variance, variance, 1e-6 * variance)
          assert.near(1, bytes[1] / bytes[2], 0.01)
          assert.near(1, error / variance, 0.1)
          -- the mean of the draws is off by variance / draws in the mean; a bias of a twentieth would add 1
          assert.near(1, square(acc / draws - g) / (variance / draws), 0.35)
        end
      end
    end)
  end

  it("halves the error of two ranks' mean, and more with more ranks, where gradients are equal", function()
    atomo.manual_seed(1)
    for _, item in ipairs {{"qsgd:bits=8", 1}, {"entry:ratio=3", 1}, {"hadamard:ratio=4", 1}, {"natural", 0.85},
      {"taps:ratio=4", 1}} do
      for _, n in ipairs {2, 4, 8, 64} do
        local list = cases.equal(n)
        local draws = n == 64 and 4 or 20
        local gain = error_of_mean(made(item[1], false, n), list, draws) /
          error_of_mean(made(item[1], true, n), list, draws)
        assert.is_true(gain > 0.9 * item[2] * n, ("%s, %d ranks: %.2f times"):format(item[1], n, gain))
      end
    end
  end)

  it("works in more than 256 ranks, which share strata only within groups", function()
    atomo.manual_seed(2)
    local list = cases.alike(300)
    local with, e1 = error_of_mean(made("qsgd:bits=4", true, 300), list, 4)
    local without, e2 = error_of_mean(made("qsgd:bits=4", false, 300), list, 4)
    assert.is_true(with < without - 5 * math.sqrt(e1 ^ 2 + e2 ^ 2), with .. " " .. without)
  end)

  it("of auto: ranks with different families draw independently, those with the same one together", function()
    atomo.manual_seed(4)
    local g = atomo.randn(N) * atomo.rand(N):lt(0.02) -- auto takes single entries
    local list = {g, g}
    local with, without = made("auto:ratio=64", true, 2), made("auto:ratio=64", false, 2)
    assert.matches("^entry", (with:encode(g, {step = 1}) and with:stats(1).family))
    assert.is_true(error_of_mean(without, list, 30) / error_of_mean(with, list, 30) > 1.1)
  end)

  it("changes nothing for one rank, with error feedback and with systematic sampling", function()
    atomo.manual_seed(5)
    local g = atomo.randn(N)
    for _, item in ipairs {{"qsgd", 1}, {"entry:ratio=8", 1}, {"qsgd:ef=true", 4}, {"entry:ratio=8,ef=true", 4},
      {"entry:ratio=8,sampling=systematic,step=0", 4}} do
      local a, b = made(item[1], true, item[2]), made(item[1], false, item[2])
      for rank = 0, item[2] - 1 do
        assert.equal(b:encode(g, {step = 1, rank = rank}):bytes(), a:encode(g, {step = 1, rank = rank}):bytes())
      end
    end
    local a, b = made("qsgd", true, 2), made("qsgd", false, 2)
    local m = a:encode(g, {step = 1, rank = 1})
    assert.is_true(m:bytes() ~= b:encode(g, {step = 1, rank = 1}):bytes())
    assert.equal(0, (a:decode(m) - b:decode(m)):norm_value(2)) -- decoding needs neither option nor ranks
  end)

  it("is the same draw in every call, and another one in every step", function()
    local g = atomo.randn(N)
    local a, b = made("entry:ratio=8", true, 3), made("entry:ratio=8", true, 3)
    for rank = 0, 2 do
      local text = a:encode(g, {step = 4, rank = rank}):bytes()
      assert.equal(text, b:encode(g, {step = 4, rank = rank}):bytes())
      assert.is_true(text ~= b:encode(g, {step = 5, rank = rank}):bytes())
    end
  end)

  it("is refused where there is nothing to cancel, and for numbers that are none of ranks", function()
    for _, text in ipairs {"svd:together=true", "rotated:together=true", "topk:ratio=4,together=false",
      "none:together=1"} do
      assert.error_matches(function() atomo.compressor(text) end, "unknown option 'together'")
    end
    local c = atomo.compressor "qsgd"
    for _, ranks in ipairs {0, -1, 1.5, 0 / 0, 2 ^ 25} do
      assert.error_matches(function() c:set_ranks(ranks) end, "qsgd: ranks is ")
    end
  end)
end)
