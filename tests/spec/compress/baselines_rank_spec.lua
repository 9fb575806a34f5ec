-- Compressors of low rank beside ATOMO: PowerSGD's promises, and the bias of ATOMO's published code, reproduced.
-- Statistics: fixed seeds, false-alarm rate 1e-6 a check.
local atomo = require "atomo"
local verify = require "atomo.tools.verify"
local codec = require "support.codec"
local square = codec.square

local function draws(c, g, count) return verify.draw(verify.sampler(c, g), g, count) end

describe("powersgd", function()
  local function best(m, r) -- the squared error of the best matrix of rank r
    local _, s = atomo.svd(m)
    local left = 0
    for i = r + 1, s:numel() do left = left + s:get(i) ^ 2 end
    return left
  end

  it("is a projection: the error is ||M||^2 - ||Q||^2, and comes down to the best of its rank", function()
    atomo.manual_seed(5)
    for _, shape in ipairs {{20, 30}, {40, 7}, {6, 3, 3, 5}} do
      local g = atomo.randn(unpack(shape))
      local m = g:view(shape[1], -1)
      for i = 1, 4 do m:add_(atomo.randn(m:size(1), 1):matmul(atomo.randn(1, m:size(2))):mul_(6 - i)) end
      local last = math.huge
      local c = atomo.compressor "powersgd:rank=4"
      for step = 1, 60 do
        local error = square(c:decode(c:encode(g, {step = step})) - g)
        local s = c:stats()
        assert.near(error, s.variance, 1e-4 * s.square)
        assert.is_true(error <= s.square and error <= last * (1 + 1e-5))
        last = error
      end
      assert.near(1, last / best(m, 4), 1e-2)
      local cold = atomo.compressor "powersgd:rank=4,warm=false"
      for step = 1, 10 do cold:encode(g, {step = step}) end
      assert.is_true(cold:stats().variance > last)
    end
  end)

  it("gives matrices of its rank and below exactly, also after zeros", function()
    atomo.manual_seed(6)
    local c = atomo.compressor "powersgd:rank=3"
    for step = 1, 4 do
      local g = step == 3 and atomo.zeros(12, 9) or atomo.randn(12, step):matmul(atomo.randn(step, 9))
      if step == 4 then g = atomo.randn(12, 2):matmul(atomo.randn(2, 9)) end
      local error = (c:decode(c:encode(g, {step = step})) - g):norm_value(math.huge)
      assert.is_true(error <= 1e-5 * (1 + g:norm_value(2)), error)
    end
    local v = atomo.randn(50)
    local ghat = c:decode(c:encode(v, {tensor = 2}))
    assert.is_true((ghat - v):norm_value(math.huge) < 1e-5)
  end)

  it("orthonormalises exactly: nearly parallel columns leave no error of their own", function()
    for k = 1, 5 do
      atomo.manual_seed(k)
      local c, v = atomo.compressor("powersgd:rank=2", {seed = k}), atomo.randn(1, 30)
      -- two directions 1e4 apart: the columns of M Q differ in the fifth digit
      local g = atomo.randn(20, 1):matmul(v) + atomo.randn(20, 1):matmul(atomo.randn(1, 30)):mul_(1e-4)
      local error = (c:decode(c:encode(g)) - g):norm_value(2)
      assert.is_true(error < 3e-6 * g:norm_value(2), error / g:norm_value(2))
    end
  end)

  it("without warm start begins from another Q in every step", function()
    local g = atomo.randn(8, 8)
    local c = atomo.compressor "powersgd:rank=1,warm=false"
    local first = c:decode(c:encode(g, {step = 1}))
    assert.is_true((c:decode(c:encode(g, {step = 2})) - first):norm_value(2) > 1e-3)
    assert.equal(0, (c:decode(c:encode(g, {step = 1})) - first):norm_value(2))
  end)

  it("starts from the same Q on every rank", function()
    local g = atomo.randn(8, 8)
    local c = atomo.compressor "powersgd"
    local a = c:decode(c:encode(g, {rank = 0}))
    local other = atomo.compressor "powersgd"
    assert.equal(0, (other:decode(other:encode(g, {rank = 7})) - a):norm_value(2))
  end)
end)

describe("atomo-published", function()
  it("inflates the mean by 1 / (1 - P(empty)), with the squared error that it states", function()
    atomo.manual_seed(9)
    local g = atomo.randn(10, 12)
    local svd = atomo.compressor "svd:bits=32,fold=paper,atoms=1"
    for _, s in ipairs {1, 2} do
      local c = atomo.compressor("atomo-published:atoms=" .. s, {seed = 5})
      assert.is_false(c.unbiased)
      local _, lambda = atomo.svd(g)
      local sum, empty, p = lambda:sum():item(), 1, {}
      for i = 1, 10 do
        p[i] = math.min(1, s * lambda:get(i) / sum)
        empty = empty * (1 - p[i])
      end
      local drawn = draws(c, g * (1 / (1 - empty)), 1500)
      -- draws were made of the inflated gradient: its mean is inflated once more
      local look = drawn.along[1]
      local inflated = 1 + look.mean / drawn.energy
      local error = math.sqrt(look.m2 / look.n) / math.sqrt(look.n) / drawn.energy
      assert.near(1 / (1 - empty), inflated, 5.1 * error)
      assert.is_true(1 / (1 - empty) > 1 + 6 * error)
      drawn = draws(c, g, 1500)
      assert.is_false(verify.unbiased(drawn).pass)
      assert.is_true(verify.variance(drawn, c:stats().variance).pass)
    end
    svd:encode(g)
    assert.is_true(svd.unbiased)
  end)

  it("loses the budget of clipped atoms: 2 to 4 times the variance of Algorithm 1 on 0.5^k", function()
    local g = atomo.zeros(16, 16)
    for i = 1, 16 do g:set(i, i, 0.5 ^ i) end
    for s, times in pairs {[3] = 2, [4] = 4} do
      local c, ours = atomo.compressor("atomo-published:atoms=" .. s), atomo.compressor("svd:bits=32,atoms=" .. s)
      c:encode(g)
      ours:encode(g)
      assert.near(times, c:stats().variance / ours:stats().variance, 0.25)
      assert.is_true(c:stats().atoms_expected < s - 0.4)
    end
  end)
end)
