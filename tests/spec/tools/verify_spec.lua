-- atomo.verify passes correct compressors and fails wrong ones: every error planted here must be found, by the row that
-- is meant for it. False-alarm rate: 1e-6 per statistical row; seeds are fixed.
-- test: slow
local atomo = require "atomo"

describe("atomo.verify", function()
  for _, text in ipairs {"none", "entry:ratio=16", "entry:atoms=30,step=1", "svd:ratio=8", "svd:ratio=4,bits=2",
    "svd:atoms=3,bits=32,fold=paper"} do
    it("passes " .. text, function()
      local report = atomo.verify(text, {shape = {12, 3, 3, 5}, draws = 500})
      assert.is_true(report.pass, tostring(report))
      assert.is_true(#report.rows >= 9)
    end)
  end

  for _, entry in ipairs(atomo.compressors()) do
    if not entry.make then -- those with `make` were declared by other specs
      it("passes " .. entry.name .. " as it is", function()
        local report = atomo.verify(entry.name, {shape = {8, 3, 3, 4}, draws = 150})
        assert.is_true(report.pass, tostring(report))
        assert.is_true(#report.rows >= 5)
      end)
    end
  end

  it("prints a table with its subject", function()
    local report = atomo.verify("entry:ratio=4", {shape = {40}, draws = 200, seed = 7})
    local text = tostring(report)
    assert.truthy(text:find("verify entry:ratio=4 on [40], 200 draws, seed 7", 1, true), text)
    assert.truthy(text:find("pass unbiased", 1, true), text)
    assert.truthy(text:find("all passed", 1, true), text)
    assert.same({}, report:failures())
  end)

  it("refuses options that it does not have", function()
    local function fails(text, ...)
      local ok, message = pcall(atomo.verify, ...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    fails("unknown option 'draw'", "entry", {draw = 3})
    fails("draws is 3", "entry", {draws = 3})
    fails("shape is a number", "entry", {shape = 3})
    fails("did you mean 'entry'", "entri")
  end)
end)

-- ---- planted errors ----------------------------------------------------------------------------------------------

--- Makes a compressor in plain Lua for verify: sample(g, uniform, variant) returns the estimate and its closed-form
--- variance; `none` encodes the estimate. after(ghat): changes the decoded gradient.
local function planted(sample, after)
  return function(variant, seed)
    if variant == "feedback" then return nil end
    local inner = atomo.compressor("none", {seed = seed})
    local c = setmetatable({unbiased = true}, {__tostring = function() return "planted" end})
    local square, variance = 0, 0
    function c.encode(_, g, key)
      inner:encode(g, key) -- refuses NaN and Inf
      atomo.manual_seed(seed * 1e9 + (key.tensor or 1) * 1e6 + key.step)
      local ghat
      ghat, variance = sample(g, math.random, variant)
      square = g:norm_value(2) ^ 2
      return inner:encode(ghat, key)
    end
    function c.decode(_, m) return after and after(inner:decode(m)) or inner:decode(m) end
    function c.decode_add(_, m, scale, acc)
      local ghat = atomo.zeros(acc:shape())
      inner:decode_add(m, 1, ghat)
      acc:axpy_(scale, after and after(ghat) or ghat)
    end
    function c.stats() return {variance = variance, square = square} end
    function c.wire_max() return inner:wire_max() end
    return c
  end
end

--- Samples entries, a twentieth of them on average; `wrong` selects the error.
local function entries(wrong)
  return function(g, uniform, variant)
    local n, x = g:numel(), g:data()
    local budget = variant == "as is" and (wrong == "redraw" and 0.7 or n / 20) or n
    local p, ghat = atomo.probabilities(g:view(-1), budget), atomo.zeros(g:shape())
    local y, q, variance, sent = ghat:data(), p:data(), 0, 0
    for i = 0, n - 1 do if x[i] ~= 0 then variance = variance + x[i] ^ 2 * (1 / q[i] - 1) end end
    if variance ~= variance then variance = 0 end
    repeat
      for i = 0, n - 1 do
        local kept = x[i] ~= 0 and uniform() < q[i]
        local weight = wrong == "1/p" and 1 or wrong == "clip" and 1 / math.max(q[i], 0.2) or 1 / q[i]
        y[i] = kept and x[i] * weight or 0
        sent = sent + (kept and 1 or 0)
      end
    until wrong ~= "redraw" or sent > 0 or g:norm_value(2) == 0
    return ghat, variance
  end
end

--- Rounds all entries to multiples of a twentieth of the largest entry.
local function rounding(wrong)
  return function(g, uniform, variant)
    local n, x = g:numel(), g:data()
    local ghat, variance = atomo.zeros(g:shape()), 0
    local step, y = g:norm_value(math.huge) / 20, ghat:data()
    for i = 0, n - 1 do
      local t = step > 0 and x[i] / step or 0
      local fraction = t - math.floor(t)
      local up = uniform() < (wrong and 1 - fraction or fraction)
      y[i] = variant == "exact" and x[i] or step * (math.floor(t) + (up and 1 or 0))
      variance = variance + step ^ 2 * fraction * (1 - fraction)
    end
    return ghat, variance
  end
end

--- Sends all singular directions with both factors rounded to quarters of their largest entry; `same`: with the same
--- random numbers for u and v, else with independent ones.
local function factors(same)
  return function(g, uniform, variant)
    if variant == "exact" or g:norm_value(math.huge) < 1e-30 then return g:clone(), 0 end
    local size = g:norm_value(math.huge)
    local u, s, vt = atomo.svd((g * (1 / size)):view(g:size(1), -1))
    local k, numbers, growth = s:numel(), {}, {}
    local function rounded(t, first) -- rows of t
      local out, d = atomo.zeros(t:shape()), t:size(2)
      local x, y = t:data(), out:data()
      for i = 0, k - 1 do
        local step, noise = 0, 0
        for j = 0, d - 1 do step = math.max(step, math.abs(x[i * d + j]) / 4) end
        for j = 0, d - 1 do
          local index = same and i * 1000 + j or first + i * 1000 + j
          numbers[index] = numbers[index] or uniform()
          local v = step > 0 and x[i * d + j] / step or 0
          local fraction = v - math.floor(v)
          y[i * d + j] = step * (math.floor(v) + (numbers[index] < fraction and 1 or 0))
          noise = noise + step ^ 2 * fraction * (1 - fraction)
        end
        growth[i + 1] = (growth[i + 1] or 1) * (1 + noise)
      end
      return out
    end
    local a, b, variance = rounded(u:t():contiguous(), 0), rounded(vt:contiguous(), 1e6), 0
    for i = 1, k do variance = variance + (size * s:get(i)) ^ 2 * (growth[i] - 1) end
    return (a:t() * s):matmul(b):view(g:shape()):contiguous() * size, variance
  end
end

local function drop_last(ghat)
  local p, i = ghat:data(), ghat:numel() - 1
  while i > 0 and p[i] == 0 do i = i - 1 end
  p[i] = 0
  return ghat
end

describe("planted errors", function()
  local function report(sample, after)
    return atomo.verify(planted(sample, after), {shape = {10, 3, 3, 4}, draws = 1000})
  end
  local function caught(r, by)
    assert.is_false(r.pass)
    assert.truthy(table.concat(r:failures(), "; "):find(by, 1, true), tostring(r))
  end

  it("are absent from the right ones, which pass", function()
    for _, sample in ipairs {entries(), rounding(), factors()} do
      local r = report(sample)
      assert.is_true(r.pass, tostring(r))
    end
  end)
  it("averages encoded again with the same draws", function()
    caught(atomo.verify(function(variant, seed) -- whatever the way
      return variant == "as is" and atomo.compressor("randk:ratio=4", {seed = seed}) or nil
    end, {draws = 400}), "unbiased when the average is encoded again")
  end)
  it("1/p left out", function() caught(report(entries "1/p"), "unbiased") end)
  it("p clipped without dividing by it", function() caught(report(entries "clip"), "unbiased") end)
  it("rounding the wrong way", function() caught(report(rounding "wrong"), "unbiased") end)
  it("an empty draw redrawn", function() caught(report(entries "redraw"), "unbiased") end)
  it("u and v quantised with the same random numbers", function()
    caught(report(factors "same"), "rounding unbiased")
  end)
  it("a decoder that drops the last atom", function() caught(report(entries(), drop_last), "full budget") end)

  it("a basis that is off by 0.1 % from orthonormal", function()
    local function register(name, analysis, synthesis)
      atomo.basis(name, {
        analyze = function(g) return g:view(1, -1):matmul(analysis(g:numel())) end,
        synthesize = function(c, shape) return c:matmul(synthesis(c:numel())):view(shape) end,
      })
      return atomo.verify(name .. ":ratio=8", {shape = {12, 12}, draws = 300})
    end
    local known = {}
    local function q(n) -- any orthonormal matrix
      if not known[n] then
        atomo.manual_seed(n)
        known[n] = atomo.qr(atomo.randn(n, n)):keep()
      end
      return known[n]
    end
    local function qt(n) return q(n):t():contiguous() end
    local function times(f, a) return function(n) return f(n) * a end end
    local function sheared(a) -- the first row is no longer orthogonal to the second
      return function(n)
        local m = atomo.zeros(n, n)
        for i = 1, n do m:set(i, i, 1) end
        if n > 1 then m:set(1, 2, a) end
        return m
      end
    end
    local r = register("right", q, qt)
    assert.is_true(r.pass, tostring(r))
    caught(register("long", times(q, 1.001), qt), "full budget")
    caught(register("scaled", times(q, 1.001), times(qt, 1 / 1.001)), "Parseval")
    caught(register("skewed", sheared(1e-3), sheared(0)), "full budget")
    caught(register("sheared", sheared(1e-3), sheared(-1e-3)), "Parseval")
  end)
end)
