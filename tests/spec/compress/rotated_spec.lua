-- rotated: a random basis, quantisers without chance. Unbiased, also on gradients that a poor rotation would not hide;
-- a variance near the rate-distortion bound; budgets; inputs at the edges. Seeds are fixed. False-alarm rates stand
-- with the tests.
-- test: slow
local atomo = require "atomo"
local gradients = require "atomo.tools.gradients"
local codec = require "support.codec"

local function gaussian(n)
  atomo.manual_seed(1)
  return atomo.randn(n)
end

--- Gradients of few entries, or with structure that signs and butterflies might keep.
local kinds = {
  one = function(g) g:set(1, 3) end,
  two = function(g, n) g:set(1, 3) g:set(n, 1) end,
  neighbours = function(g) g:set(1, 3) g:set(2, 1) end,
  ["16 apart"] = function(g) g:set(5, 3) g:set(21, 1) end,
  ["200 apart"] = function(g) g:set(5, 3) g:set(205, 1) end,
  three = function(g, n) g:set(1, 3) g:set(5, 1) g:set(n - 3, -2) end,
  ramp = function(g, n) for i = 1, n do g:set(i, i) end end,
  constant = function(g) g:fill_(1) end,
}

describe("rotated", function()
  local threads = atomo.num_threads()
  setup(function() atomo.set_num_threads(1) end)
  teardown(function() atomo.set_num_threads(threads) end)

  -- Lengths of a whole power of two, of odd rows times one, and with zeros behind. A standard normal number is above
  -- 5.5 once in 5e7; the sum over pairs has somewhat longer tails.
  for _, n in ipairs {512, 1000, 4096, 6144} do
    it(("is unbiased on sparse and regular gradients of %d entries"):format(n), function()
      for name, make in pairs(kinds) do
        local g = atomo.zeros(n)
        make(g, n)
        local _, errors = codec.bias(atomo.compressor("rotated:classes=1,ratio=64", {seed = 7}), g, 40)
        assert.is_true(errors < 5.5, ("%s: %.1f standard errors"):format(name, errors))
      end
    end)
  end

  -- Whole rows of zeros are not sent, so a unit has 64 or 128 entries. Picks in a rotation without a permutation failed
  -- this for neighbours (14 standard errors at 4096 entries).
  it("is unbiased in small units with few picks", function()
    for name, make in pairs(kinds) do
      local g = atomo.zeros(1000)
      make(g, 1000)
      local _, errors = codec.bias(atomo.compressor("rotated:classes=1,ratio=200", {seed = 7}), g, 100)
      assert.is_true(errors < 5.5, ("%s: %.1f standard errors"):format(name, errors))
    end
  end)

  it("fails the test if it is biased by a tenth", function()
    local g = gaussian(1024)
    local size, errors = codec.bias(atomo.compressor("rotated:ratio=32", {seed = 7}), g, 40, 0.9)
    assert.is_true(errors > 5.5 and math.abs(size - 0.01) < 0.005, ("%.4f, %.1f standard errors"):format(size, errors))
  end)

  -- 65536 normal entries: R is known to 0.1 %, V to 1 %. The bound of any code is 1 / (4^R - 1).
  for _, case in ipairs {{4, 1.5}, {2, 1.5}, {1, 1.7}, {0.5, 1.6}, {0.25, 1.55}, {0.125, 1.5}} do
    it(("has at most %g times the least variance at %g bits an entry"):format(case[2], case[1]), function()
      local g = gaussian(65536)
      local c = atomo.compressor(("rotated:classes=1,ratio=%g"):format(32 / case[1]))
      c:encode(g, {step = 1})
      local s = c:stats()
      local bits, variance = 8 * s.nbytes / g:numel(), s.variance / codec.square(g)
      assert.near(case[1], bits, 0.02 * case[1])
      local over = variance * (4 ^ bits - 1)
      assert.is_true(over > 1 and over <= case[2], ("%.3f at %.3f bits, V %.4g"):format(over, bits, variance))
    end)
  end

  it("is near the bound of its classes, which is stated, and never below it", function()
    atomo.manual_seed(5)
    local g = atomo.randn(256, 3, 3, 64)
    for r = 1, 256 do g:select(1, r):mul_(2 ^ (r % 6)) end
    for _, case in ipairs {{16, 1.55}, {64, 1.7}, {256, 1.75}} do
      for _, name in ipairs {"rotated", "auto"} do
        local c = atomo.compressor(("%s:ratio=%d"):format(name, case[1]))
        c:encode(g, {step = 1})
        local s = c:stats()
        local over = s.variance / s.bound
        assert.is_true(over > 1 and over <= case[2], ("%s at %dx: %.3f"):format(name, case[1], over))
      end
    end
    local c = atomo.compressor "entry:ratio=16"
    c:encode(g, {step = 1})
    assert.is_nil(c:stats().bound)
  end)

  it("has the same variance for every gradient of one class", function()
    local sparse, smooth = atomo.zeros(16384), atomo.zeros(16384)
    for i = 1, 16384, 50 do sparse:set(i, i % 7 + 1) end
    for i = 1, 16384 do smooth:set(i, math.sin(i / 300)) end
    for _, g in ipairs {gaussian(16384), sparse, smooth} do
      local c = atomo.compressor "rotated:classes=1,ratio=64,base=none"
      c:encode(g, {step = 1})
      assert.near(1.52, c:stats().variance / codec.square(g), 0.12)
    end
  end)

  it("rotates entries of one energy together: classes lower the variance", function()
    atomo.manual_seed(3)
    local g = atomo.randn(64, 3, 3, 32)
    for r = 1, 64 do g:select(1, r):mul_(2 ^ (r % 8)) end
    local variance = {}
    for i, classes in ipairs {1, 4, 16} do
      local c = atomo.compressor("rotated:ratio=64,classes=" .. classes)
      c:encode(g, {step = 1})
      variance[i] = c:stats().variance / codec.square(g)
    end
    assert.is_true(variance[2] < 0.7 * variance[1] and variance[3] < variance[2], table.concat(variance, " "))
  end)

  for _, ratio in ipairs {3, 8, 16, 64, 256, 1000} do
    it(("keeps a step's budget within 2 %% at %gx"):format(ratio), function()
      local list = gradients.made_up()
      local c, bytes, dense = atomo.compressor("rotated:ratio=" .. ratio, {seed = 2}), 0, 0
      for _, g in ipairs(list) do dense = dense + 4 * g:numel() end
      local steps = 10
      for step = 1, steps do
        c:encode_all(list, {step = step})
        bytes = bytes + c:stats().nbytes / steps
      end
      assert.near(1, bytes * ratio / dense, 0.02)
    end)
  end

  it("takes a budget in atoms: entries that are not 0", function()
    local g, c, sent = gaussian(5000), atomo.compressor "rotated:atoms=100", 0
    for step = 1, 50 do
      c:encode(g, {step = step})
      sent = sent + c:stats().atoms_sent / 50
    end
    assert.near(100, sent, 5)
  end)

  it("codes energies of all orders side by side, and a single entry", function()
    local g = atomo.zeros(4, 3, 3, 64)
    g:select(1, 1):fill_(1e30)
    g:select(1, 2):fill_(1e-37)
    g:select(1, 4):set(2, 2, 5, 1)
    local c = atomo.compressor "rotated:ratio=4"
    local ghat = c:decode(c:encode(g, {step = 1}))
    assert.equal(0, ghat:count_nonfinite())
    assert.is_true((ghat - g):norm_value(2) <= 0.2 * g:norm_value(2))
    assert.equal(0, ghat:select(1, 3):norm_value(2)) -- nothing is sent of zeros
    local one = atomo.zeros(1000)
    one:set(517, -2)
    c = atomo.compressor "rotated:ratio=20"
    local back = c:decode(c:encode(one, {step = 1}))
    assert.near(4, -2 * back:get(517), 1e-1 * 4) -- <g, ghat> = ||g||^2 in every draw, except for the scale's rounding
  end)

  it("sends floats if the budget holds them, and never more bytes", function()
    local g = gaussian(3000)
    local c = atomo.compressor "rotated:ratio=0.5"
    local m = c:encode(g, {step = 1})
    assert.equal(0, (c:decode(m) - g):norm_value(2))
    assert.is_true(m.nbytes <= 4 * 3000 + 32)
  end)

  it("rotates every rank otherwise: errors of two ranks are independent", function()
    local g = gaussian(4096)
    local c = atomo.compressor("rotated:ratio=64", {seed = 5})
    local a = c:decode(c:encode(g, {step = 1, rank = 0})) - g
    local b = c:decode(c:encode(g, {step = 1, rank = 1})) - g
    -- the standard error is 1 / sqrt(4096)
    assert.is_true(math.abs(a:dot(b):item()) <= 6 / 64 * a:norm_value(2) * b:norm_value(2))
  end)

  for _, text in ipairs {"rotated:ratio=16", "rotated:ratio=200", "rotated:ratio=8,base=none", "rotated:atoms=40",
    "rotated:bytes=300,sampling=bernoulli"} do
    it("passes verify: " .. text, function()
      local report = atomo.verify(text, {shape = {12, 3, 3, 9}, draws = 500})
      assert.is_true(report.pass, tostring(report))
    end)
  end

  it("codes fewer than 256 entries as `entry` does", function()
    for _, shape in ipairs {{1}, {7}, {255}, {5, 3, 3, 3}} do
      atomo.manual_seed(2)
      local g = atomo.randn(shape)
      local a, b = atomo.compressor("rotated:ratio=8"), atomo.compressor("entry:ratio=8")
      a:encode(g, {step = 1})
      b:encode(g, {step = 1})
      assert.equal(b:stats().nbytes, a:stats().nbytes)
      assert.near(b:stats().variance, a:stats().variance, 1e-6 * (1 + b:stats().variance))
    end
  end)
end)
