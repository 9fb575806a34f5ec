-- Every compressor: unbiased, variance as its closed form says; and samplers that are wrong on purpose must fail.
-- False-alarm rate: 1e-6 a check (atomo.verify); seeds are fixed, so a run either always passes or always fails.
-- test: slow
local atomo = require "atomo"
local verify = require "atomo.tools.verify"
local codec = require "support.codec"

local function decaying(...) return codec.decaying(6, ...) end

local specs = {
  {"entry:ratio=16", {24, 3, 3, 8}}, {"entry:atoms=20,step=0", {24, 3, 3, 8}}, {"entry:ratio=3", {13, 7}},
  {"entry:ratio=6,step=1", {1001}}, {"entry:atoms=0.5", {17}}, {"entry:bytes=60", {5, 3, 3, 7}},
  {"svd:ratio=4,bits=32", {24, 3, 3, 8}}, {"svd:ratio=8,bits=16", {24, 3, 3, 8}}, {"svd:ratio=16", {24, 3, 3, 8}},
  {"svd:ratio=8,bits=6", {40, 11}}, {"svd:ratio=8,bits=4", {24, 3, 3, 8}}, {"svd:ratio=8,bits=3", {11, 40}},
  {"svd:ratio=6,bits=2", {24, 3, 3, 8}}, {"svd:ratio=8,bits=0", {24, 3, 3, 8}},
  {"svd:ratio=20,bits=0", {11, 300}}, {"svd:atoms=3,fold=paper,bits=32", {8, 3, 3, 6}},
  {"svd:atoms=3,fold=paper,bits=8", {5, 3, 3, 3}}, {"svd:atoms=0.5", {12}}, {"svd:atoms=1", {6, 1}}, {"none", {5, 3}},
  {"entry:ratio=8,sampling=systematic", {24, 3, 3, 8}}, {"svd:ratio=8,bits=8,sampling=systematic", {24, 3, 3, 8}},
}

describe("unbiasedness", function()
  for k, item in ipairs(specs) do
    it(item[1] .. " on [" .. table.concat(item[2], ",") .. "]", function()
      atomo.manual_seed(k)
      codec.unbiased(atomo.compressor(item[1], {seed = 100 + k}), decaying(unpack(item[2])), 1500)
    end)
  end

  it("holds at probabilities of 1e-7, for which uniform numbers of 24 bits are too coarse", function()
    -- 10^6 equal entries, an expected 0.2 of them a draw: 4000 draws give 800 +- 28 atoms
    local g = atomo.full({1000000}, 1)
    local c, sent = atomo.compressor("entry:atoms=0.2"), 0
    for step = 1, 4000 / 20 do
      c:encode(g, {step = step})
      sent = sent + c:stats().atoms_sent
    end
    assert.is_true(math.abs(sent - 40) < 5 * math.sqrt(40), sent .. " atoms, 40 expected")
  end)
end)

describe("systematic sampling", function()
  for _, text in ipairs {"entry:atoms=%g,sampling=systematic", "svd:atoms=%g,sampling=systematic"} do
    for _, s in ipairs {0.3, 5, 7.25} do
      it(text:format(s) .. " sends floor(s) or ceil(s) atoms", function()
        atomo.manual_seed(8)
        local g, c = decaying(20, 30), atomo.compressor(text:format(s), {seed = 5})
        local total, draws = 0, 400
        for step = 1, draws do
          c:encode(g, {step = step})
          local sent, expected = c:stats().atoms_sent, c:stats().atoms_expected
          assert.is_true(sent >= math.floor(expected - 1e-3) and sent <= math.ceil(expected + 1e-3))
          assert.near(s, expected, 0.01 * s)
          total = total + sent
        end
        -- a Bernoulli variable of variance f (1 - f) a draw: 5 standard errors are passed once in 10^6
        assert.near(s, total / draws, 5 * math.sqrt(0.25 / draws) + 0.01 * s)
      end)
    end
  end

  it("has the marginals p of Algorithm 1, entry by entry, as Bernoulli sampling has", function()
    atomo.manual_seed(4)
    local n, s, draws = 40, 9, 4000
    local g = decaying(n)
    local p = atomo.probabilities(g, s)
    for _, sampling in ipairs {"bernoulli", "systematic"} do
      local c, seen = atomo.compressor(("entry:atoms=%d,step=0,sampling=%s"):format(s, sampling), {seed = 2}), {}
      for step = 1, draws do
        local ghat = c:decode(c:encode(g, {step = step}))
        for i = 1, n do seen[i] = (seen[i] or 0) + (ghat:get(i) ~= 0 and 1 or 0) end
        ghat:free()
      end
      for i = 1, n do -- 80 comparisons, 1e-6 in all: 5.6 standard errors
        local q = p:get(i)
        assert.near(q, seen[i] / draws, 5.6 * math.sqrt(q * (1 - q) / draws) + 2e-3, ("%s %d"):format(sampling, i))
      end
    end
  end)
end)

describe("svd:every", function()
  it("stays unbiased with the basis and the coefficients of another gradient", function()
    for _, bits in ipairs {0, 4, 8} do
      atomo.manual_seed(6)
      local c = atomo.compressor(("svd:ratio=4,bits=%d,every=100000"):format(bits), {seed = 9})
      c:encode(decaying(24, 3, 3, 8), {step = 0}) -- its basis is kept
      local g = decaying(24, 3, 3, 8)
      local u = verify.unbiased(verify.draw(verify.sampler(c, g), g, 1000))
      assert.is_true(u.pass, ("worst %.2f standard errors, bound %.2f"):format(u.figure, u.bound))
    end
  end)
end)

describe("negative controls", function()
  local g, p
  setup(function()
    atomo.manual_seed(3)
    g = decaying(200)
    p = atomo.probabilities(g, 30)
  end)

  --- Keeps entry i with p_i; value(g_i, p_i) is what is sent.
  local function sampler(value, redraw)
    local state = 12345
    local function uniform()
      state = (state * 16807) % 2147483647
      return state / 2147483647
    end
    return function()
      local out = atomo.zeros(200)
      local a, b, q = g:data(), out:data(), p:data()
      repeat
        local any = not redraw
        for i = 0, 199 do
          b[i] = 0
          if uniform() < q[i] then b[i], any = value(a[i], q[i]), true end
        end
      until any
      return out
    end
  end

  it("passes the right one", function()
    assert.is_true(verify.unbiased(verify.draw(sampler(function(x, q) return x / q end), g, 1500)).pass)
  end)

  it("fails 1/p left out", function()
    assert.is_false(verify.unbiased(verify.draw(sampler(function(x) return x end), g, 1500)).pass)
  end)

  it("fails p clipped from below without dividing by it", function()
    assert.is_false(verify.unbiased(verify.draw(sampler(function(x, q) return x / math.max(q, 0.5) end), g, 1500)).pass)
  end)

  it("fails an empty draw that is redrawn", function()
    p = atomo.probabilities(g, 0.7)
    assert.is_false(verify.unbiased(verify.draw(sampler(function(x, q) return x / q end, true), g, 1500)).pass)
    p = atomo.probabilities(g, 30)
  end)

  it("fails rounding the wrong way", function()
    local function wrong(k)
      local out = atomo.empty(200)
      local a, b, state = g:data(), out:data(), 7 * k + 1
      for i = 0, 199 do
        state = (state * 16807) % 2147483647
        local x = a[i] * 20
        local down = math.floor(x)
        b[i] = (down + (state / 2147483647 < 1 - (x - down) and 1 or 0)) / 20
      end
      return out
    end
    assert.is_false(verify.unbiased(verify.draw(wrong, g, 500)).pass)
  end)

  it("fails a closed form that is 20 % off", function()
    local c = atomo.compressor("entry:ratio=8")
    local drawn = verify.draw(verify.sampler(c, g), g, 3000)
    assert.is_true(verify.variance(drawn, c:stats().variance).pass)
    assert.is_false(verify.variance(drawn, 1.2 * c:stats().variance).pass)
  end)
end)
