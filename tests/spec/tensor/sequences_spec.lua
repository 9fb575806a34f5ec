-- linspace, eye, randperm: PyTorch's values, the generator's reproducibility, and refusals at the caller's line.
local atomo = require "atomo"
local fails = require "support.fails"

describe("linspace", function()
  it("has PyTorch's values and both ends exactly", function()
    assert.same({-1, -0.5, 0, 0.5, 1, 1.5, 2}, atomo.linspace(-1, 2, 7):totable())
    assert.same(atomo.tensor({3, 4 / 3, -1 / 3, -2}):totable(), atomo.linspace(3, -2, 4):totable())
    assert.same({5}, atomo.linspace(5, 9, 1):totable())
    assert.same({}, atomo.linspace(5, 9, 0):totable())
    local t = atomo.linspace(0.1, 0.7, 1001)
    assert.equal(atomo.tensor(0.1):item(), t:get(1))
    assert.equal(atomo.tensor(0.7):item(), t:get(1001))
    assert.equal(1, atomo.linspace(1e30, 1, 4):get(4))
    assert.equal(1, atomo.linspace(1, 1e30, 4):get(1))
  end)

  it("refuses numbers that do not fit", function()
    fails({"fails.lua:5: ", "linspace: steps is missing"}, atomo.linspace, 0, 1)
    fails({"linspace: steps is -1"}, atomo.linspace, 0, 1, -1)
    fails({"linspace: start is 'a'"}, atomo.linspace, "a", 1, 2)
    fails({"linspace: stop: 1e+39 does not fit f32"}, atomo.linspace, 0, 1e39, 2)
    fails({"linspace: start is nan"}, atomo.linspace, 0 / 0, 1, 2)
  end)
end)

describe("eye", function()
  it("has ones on the diagonal", function()
    assert.same({{1, 0}, {0, 1}}, atomo.eye(2):totable())
    assert.same({{1, 0, 0}, {0, 1, 0}}, atomo.eye(2, 3):totable())
    assert.same({{1}, {0}}, atomo.eye(2, 1, "u8"):totable())
    assert.equal("i32", atomo.eye(2, "i32"):dtype())
    assert.same({}, atomo.eye(0):totable())
    assert.same({2, 0}, atomo.eye(2, 0):shape())
  end)

  it("refuses sizes and dtypes that there are not", function()
    fails({"fails.lua:5: ", "eye: rows is missing"}, atomo.eye)
    fails({"eye: columns is 1.5"}, atomo.eye, 2, 1.5)
    fails({"eye: unknown dtype 'f64'"}, atomo.eye, 2, "f64")
  end)
end)

describe("randperm", function()
  it("has every number from 1 to n once, as i32 indices", function()
    for _, n in ipairs {0, 1, 2, 100} do
      local t = atomo.randperm(n)
      assert.equal("i32", t:dtype())
      assert.same(n > 0 and atomo.arange(1, n + 1):totable() or {}, (t:sort()):totable())
    end
    assert.same({3}, atomo.randn(3, 2):index_select(1, atomo.randperm(3)):select(2, 1):shape())
  end)

  it("repeats with the seed, and differs from draw to draw", function()
    atomo.manual_seed(5)
    local a, b = atomo.randperm(20):totable(), atomo.randperm(20):totable()
    atomo.manual_seed(5)
    assert.same(a, atomo.randperm(20):totable())
    assert.are_not.same(a, b)
  end)

  it("draws every order of three equally often", function()
    atomo.manual_seed(1)
    local counts, n = {}, 6000
    for _ = 1, n do
      local order = table.concat(atomo.randperm(3):totable())
      counts[order] = (counts[order] or 0) + 1
    end
    local chi2, kinds = 0, 0
    for _, c in pairs(counts) do chi2, kinds = chi2 + (c - n / 6) ^ 2 / (n / 6), kinds + 1 end
    assert.equal(6, kinds)
    assert.is_true(chi2 < 20.5, ("chi-squared %g of 5 degrees of freedom"):format(chi2)) -- 0.1 % above 20.5
  end)

  it("refuses a length that is none", function()
    fails({"fails.lua:5: ", "randperm: n is -1"}, atomo.randperm, -1)
    fails({"randperm: n is 2147483648, at most"}, atomo.randperm, 2 ^ 31)
  end)
end)
