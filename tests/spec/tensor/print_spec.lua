-- tostring of tensors: small ones in full, long ones without their middle.
local atomo = require "atomo"

local function lines_of(t)
  local list = {}
  for line in tostring(t):gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

describe("tostring of a tensor", function()
  it("shows a small one in full", function()
    assert.equal(" 1  2\n 3  4\n[atomo.Tensor i32 2x2]", tostring(atomo.tensor({{1, 2}, {3, 4}}, "i32")))
    assert.equal("3\n[atomo.Tensor f32 scalar]", tostring(atomo.tensor(3)))
    assert.equal("[atomo.Tensor f32 2x0]", tostring(atomo.zeros(2, 0)))
    assert.equal(101, #lines_of(atomo.arange(100)))
    assert.equal(21, #lines_of(atomo.zeros(20, 12)))
  end)

  it("shows three elements at each end of a vector of more than 1000", function()
    assert.same({" 1", " 2", " 3", " ... 5000 elements", " 4998", " 4999", " 5000", "[atomo.Tensor f32 5000]"},
      lines_of(atomo.arange(1, 5001)))
  end)

  it("shows the corners of a large matrix", function()
    assert.same({"    0     1     2  ...    97    98    99", "  100   101   102  ...   197   198   199",
      "  200   201   202  ...   297   298   299", " ... 40 rows", " 3700  3701  3702  ...  3797  3798  3799",
      " 3800  3801  3802  ...  3897  3898  3899", " 3900  3901  3902  ...  3997  3998  3999",
      "[atomo.Tensor f32 40x100]"}, lines_of(atomo.arange(4000):view(40, 100)))
    assert.equal(lines_of(atomo.arange(4000):view(40, 100))[1],
      lines_of(atomo.arange(4000):view(40, 100):t():contiguous():t())[1])
  end)

  it("shows the first and the last matrices of many, numbered", function()
    local lines = lines_of(atomo.zeros(4, 5, 10, 10))
    local titles = {}
    for _, line in ipairs(lines) do
      if line:find("=", 1, true) or line:find "matrices" then titles[#titles + 1] = line end
    end
    assert.same({"(1,1,.,.) =", "(1,2,.,.) =", "(1,3,.,.) =", "... 20 matrices", "(4,3,.,.) =", "(4,4,.,.) =",
      "(4,5,.,.) ="}, titles)
  end)

  it("leaves out the middle of one long dimension of a smaller tensor", function()
    local lines = lines_of(atomo.arange(60):view(2, 30))
    assert.equal("  0   1   2   3   4   5  ...  24  25  26  27  28  29", lines[1])
    lines = lines_of(atomo.arange(60):view(30, 2))
    assert.equal(22, #lines)
    assert.same({" 18  19", " ... 30 rows", " 40  41"}, {lines[10], lines[11], lines[12]})
    assert.equal(102, #lines_of(atomo.zeros(150)))
  end)

  it("chooses the format by the elements shown", function()
    local t = atomo.zeros(2000)
    t:set(1000, 0.5)
    assert.equal(" 0", lines_of(t)[1])
    t:set(2000, 0.5)
    assert.equal(" 0.0000", lines_of(t)[1])
  end)
end)
