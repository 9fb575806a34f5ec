-- Spectral atoms: scaling the gradient scales its atoms, every=K keeps a basis for K steps, and messages of an earlier
-- build decode.
local atomo = require "atomo"

--- A matrix of rank 3 plus noise. The noise's atoms are below 0.4 % of the largest atom: too small to be measured from
--- a Gram matrix in f32.
local function strong_and_weak(seed, m, n)
  atomo.manual_seed(seed)
  return atomo.randn(m, 3):matmul(atomo.randn(3, n)) + atomo.randn(m, n):mul_(1e-4)
end

describe("spectral atoms", function()
  it("of a scaled gradient are the same atoms, scaled", function()
    local g = strong_and_weak(1, 24, 40)
    for _, text in ipairs {"svd:ratio=2", "svd:ratio=2,bits=16", "svd:ratio=2,bits=4", "svd:ratio=2,every=3"} do
      local c = atomo.compressor(text)
      local want = c:decode(c:encode(g, {step = 1}))
      local variance = c:stats().variance
      for _, unit in ipairs {2 ^ 12, 2 ^ -4} do
        c = atomo.compressor(text)
        local ghat = c:decode(c:encode(g * unit, {step = 1}))
        local difference = (ghat * (1 / unit) - want):norm_value(2)
        assert.is_true(difference <= 1e-6 * want:norm_value(2), ("%s, times %g: %g"):format(text, unit, difference))
        assert.near(1, c:stats().variance / unit ^ 2 / variance, 1e-3, text)
      end
    end
  end)

  it("keep their basis for every=K steps", function()
    local g = {}
    for step = 0, 5 do g[step] = strong_and_weak(10 + step, 12, 20) end
    local function decoded(every, first)
      local c, list = atomo.compressor("svd:ratio=4,every=" .. every, {seed = 3}), {}
      for step = first, 5 do list[step] = c:decode(c:encode(g[step], {step = step})) end
      return list
    end
    local fresh, two, three = decoded(1, 0), decoded(2, 0), decoded(3, 0)
    local function differ(a, b) return (a - b):norm_value(2) > 0 end
    for step = 0, 5 do
      assert.equal(step % 2 > 0, differ(two[step], fresh[step]), "every=2, step " .. step)
      assert.equal(step % 3 > 0, differ(three[step], fresh[step]), "every=3, step " .. step)
    end
    assert.is_false(differ(two[1], three[1])) -- both use the basis of step 0
  end)
end)
