-- svd:bits=0, factors in a random basis: unbiased also where singular vectors have few entries, its stated variance the
-- measured one, less of it than rounded factors have, budgets, and inputs at the edges. Seeds are fixed.
-- test: slow
local atomo = require "atomo"
local codec = require "support.codec"

local ROWS, COLUMNS = 260, 300

--- Matrices whose singular vectors differ: dense, unit vectors, constant, of one entry.
local kinds = {
  low_rank = function() return atomo.randn(ROWS, 4):matmul(atomo.randn(4, COLUMNS)) end,
  sparse = function()
    local g = atomo.zeros(ROWS, COLUMNS)
    for i = 1, 6 do g:set(40 * i, 47 * i, 7 - i) end
    return g
  end,
  constant = function() return atomo.full({ROWS, COLUMNS}, 0.5) end,
  single = function()
    local g = atomo.zeros(ROWS, COLUMNS)
    g:set(3, 5, -2)
    return g
  end,
}

--- A matrix whose first singular values fall by a factor of two each, above noise.
local function falling(rows, columns)
  local g = atomo.randn(rows, columns) * 2 ^ -9
  for i = 1, 12 do g:axpy_(2 ^ -i, atomo.randn(rows, 1):matmul(atomo.randn(1, columns))) end
  return g
end

describe("svd:bits=0", function()
  local threads = atomo.num_threads()
  setup(function() atomo.set_num_threads(1) end)
  teardown(function() atomo.set_num_threads(threads) end)
  before_each(function() atomo.manual_seed(2) end)

  -- The basis is kept, so that a draw costs no eigendecomposition. A standard normal number is above 5.5 once in 5e7;
  -- the sum over pairs has somewhat longer tails.
  for name, make in pairs(kinds) do
    it("is unbiased on a matrix that is " .. name, function()
      local g = make()
      local _, errors = codec.bias(atomo.compressor("svd:bits=0,ratio=300,every=1000000", {seed = 7}), g, 15)
      assert.is_true(math.abs(errors) < 5.5, ("%s: %.2f standard errors"):format(name, errors))
    end)
  end

  it("would be found to have a planted bias of a fifth", function()
    local c = atomo.compressor("svd:bits=0,ratio=300,every=1000000", {seed = 7})
    local _, errors = codec.bias(c, kinds.low_rank(), 15, 0.8)
    assert.is_true(errors > 5.5, ("%.2f standard errors"):format(errors))
  end)

  it("states the measured variance where both sides are too short to rotate, and the matrix is sparse", function()
    for _, value in ipairs {function() return 1 end, function(i) return 1 / i end} do
      local g, draws = atomo.zeros(12, 72), 400
      for i = 1, 12 do g:set(i, 6 * i, value(i)) end
      for _, ratio in ipairs {8, 32} do
        local c, measured, stated = atomo.compressor(("svd:bits=0,ratio=%d"):format(ratio), {seed = 3}), 0, 0
        for step = 1, draws do
          measured = measured + codec.square(c:decode(c:encode(g, {step = step})) - g) / draws
          stated = stated + c:stats().variance / draws
        end
        assert.is_true(math.abs(measured / stated - 1) < 0.06, ("%g is measured, %g stated"):format(measured, stated))
      end
    end
  end)

  it("states the variance that is measured, with atoms that are sent always and by chance", function()
    local g = falling(ROWS, COLUMNS)
    for _, ratio in ipairs {16, 100, 400} do
      local c = atomo.compressor(("svd:bits=0,ratio=%d,every=1000000"):format(ratio), {seed = 3})
      local measured, stated, bytes, draws = 0, 0, 0, 200
      for step = 1, draws do
        local m = c:encode(g, {step = step})
        measured = measured + codec.square(c:decode(m) - g)
        stated, bytes = stated + c:stats().variance, bytes + m.nbytes
      end
      assert.near(1, measured / stated, 0.08) -- of 200 draws, whose spread is 5 % at 400x
      assert.near(4 * g:numel() / ratio, bytes / draws, 0.02 * 4 * g:numel() / ratio)
    end
  end)

  it("has less variance than rounded factors, where factors are long", function()
    local g = falling(ROWS, 4 * COLUMNS)
    local function stated(options)
      local c = atomo.compressor("svd:ratio=64," .. options, {seed = 3})
      c:encode(g, {step = 0})
      return c:stats().variance
    end
    local mine = stated "bits=0"
    for _, bits in ipairs {2, 3, 4, 6, 8, 16} do
      local other = stated("bits=" .. bits)
      assert.is_true(mine < 0.7 * other, ("bits=%d: %.4g, bits=0: %.4g"):format(bits, other, mine))
    end
  end)

  it("takes every shape, scale and budget", function()
    for _, shape in ipairs {{1}, {3}, {700}, {1, 700}, {700, 1}, {2, 3}, {255, 256}, {256, 300}, {5, 3, 3, 60}} do
      local g = atomo.randn(shape)
      for _, option in ipairs {"ratio=1", "ratio=4", "ratio=1000", "atoms=2", "bytes=60"} do
        for _, scale in ipairs {1, 1e-30, 1e25, 0} do
          local c = atomo.compressor("svd:bits=0," .. option, {seed = 3})
          local x = g * scale
          local m = c:encode(x, {step = 1})
          local ghat = c:decode(m)
          local what = ("%s of %s times %g"):format(option, table.concat(shape, "x"), scale)
          assert.equal(0, ghat:count_nonfinite(), what)
          assert.is_true(m.nbytes <= 4 * g:numel() + 40, what)
          if option == "ratio=1" and g:numel() >= 700 then
            assert.is_true(codec.square((ghat - x) * (1 / (scale + 1e-38))) <= 1e-3 * codec.square(g), what)
          end
        end
      end
    end
  end)

  it("cuts factors longer than 65536 entries into units", function()
    local g = atomo.randn(2, 1):matmul(atomo.randn(1, 70001))
    local c = atomo.compressor("svd:bits=0,ratio=16", {seed = 1})
    local ghat = c:decode(c:encode(g, {step = 1}))
    assert.near(c:stats().variance, codec.square(ghat - g), 0.05 * c:stats().variance)
    assert.is_true(c:stats().variance < 0.05 * codec.square(g))
  end)
end)
