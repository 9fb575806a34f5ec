-- var, std and einsum: values and gradients of PyTorch 1.13 and NumPy 1.24, and refusals at the caller's line.
local atomo = require "atomo"
local fails = require "support.fails"

local X = {{0.5, -1.25, 3, 0}, {2, 2, -0.75, 1.5}, {-3, 0.25, 2, 4}}

local function near(want, got, what)
  local difference = (atomo.tensor(want) - got):abs():max():item()
  assert.same(atomo.tensor(want):shape(), got:shape(), what)
  local bound = 2e-6 * math.max(1, got:abs():max():item())
  assert.is_true(difference <= bound, ("%s: differs by %g"):format(what, difference))
end

describe("var and std", function()
  local cases = { -- method, dimension, options, value, gradient of sum(value * {1, 2, ...})
    {"var", nil, nil, 3.8120265, {{-0.06439394, -0.38257578, 0.3901515, -0.15530303},
      {0.20833333, 0.20833333, -0.29166669, 0.11742424}, {-0.70075762, -0.10984849, 0.20833333, 0.57196969}}},
    {"var", nil, {unbiased = false}, 3.4943576, {{-0.05902778, -0.35069448, 0.3576389, -0.14236112},
      {0.19097221, 0.19097221, -0.26736113, 0.10763889}, {-0.64236116, -0.10069445, 0.19097221, 0.52430558}}},
    {"var", 1, nil, {6.5833335, 2.6458333, 3.7708333, 4.0833335}, {{0.66666669, -3.1666667, 4.75, -7.3333335},
      {2.1666667, 3.3333333, -6.4999995, -1.3333335}, {-2.8333333, -0.16666669, 1.7500001, 8.666666}}},
    {"var", 2, {unbiased = false, keepdim = true}, {{2.38671875}, {1.29296875}, {6.60546875}},
      {{-0.03125, -0.90625, 1.21875, -0.28125}, {0.8125, 0.8125, -1.9375, 0.3125},
        {-5.71875, -0.84375, 1.78125, 4.78125}}},
    {"std", nil, nil, 1.9524412, {{-0.01649062, -0.0979737, 0.09991377, -0.0397715},
      {0.05335201, 0.05335201, -0.07469282, 0.03007114}, {-0.17945679, -0.02813106, 0.05335201, 0.14647552}}},
    {"std", 1, nil, {2.5658007, 1.6266018, 1.9418634, 2.020726},
      {{0.12991397, -0.97339952, 1.223052, -1.8145294}, {0.42222041, 1.024631, -1.67365, -0.32991448},
        {-0.55213434, -0.05123156, 0.45059815, 2.1444438}}},
    {"std", -1, {unbiased = false}, {1.5449009, 1.1370878, 2.5701106},
      {{-0.01011392, -0.29330361, 0.39444277, -0.09102526}, {0.3572723, 0.3572723, -0.85195702, 0.13741243},
        {-1.1125494, -0.16414663, 0.34653178, 0.93016422}}},
  }

  it("have PyTorch's values and gradients", function()
    for i, case in ipairs(cases) do
      for _, turned in ipairs {false, true} do
        local x = atomo.param(atomo.tensor(X))
        local t = turned and x:t():contiguous():t() or x
        local y = t[case[1]](t, case[2], case[3])
        near(case[4], y, "value " .. i)
        y:backward(atomo.arange(1, y:numel() + 1):view(y:shape()))
        near(case[5], x.grad, "gradient " .. i)
      end
    end
    near(3.4943576, atomo.tensor(X):var {unbiased = false}, "options alone")
  end)

  it("pass gradcheck", function()
    assert.is_true(atomo.gradcheck(function(a) return a:var(1) * a:std(1, {unbiased = false}) + a:std() end,
      {atomo.randn(4, 3)}))
  end)

  it("are exact far from 0: the variance of 10000.1, 10000.2, 10000.4, 10000.0", function()
    near(0.029248158, atomo.tensor({10000.1, 10000.2, 10000.4, 10000.0}):var(), "far")
    near(0, atomo.full({7}, 1e7 / 3):var(), "constant")
    -- {0, a, a} has the variance a^2 / 3; its mean is between two numbers of f32 here
    local far = atomo.tensor({0, 0.0625, 0.0625}) + 1e6
    assert.is_near(0.0625 ^ 2 / 3, far:var():item(), 1e-9)
    assert.is_near(0.0625 ^ 2 / 3, far:view(3, 1):var(1):item(), 1e-9)
  end)

  it("the gradient of std is 0 where the elements are equal, as in PyTorch", function()
    local x = atomo.param(atomo.tensor {{1, 1}, {1, 3}})
    x:std(2):sum():backward()
    near({{0, 0}, {-0.70710678, 0.70710678}}, x.grad, "std")
  end)

  it("NaN spreads along its dimension only", function()
    local y = atomo.tensor({{0 / 0, 1}, {1, 3}}):var(2)
    assert.is_true(y:get(1) ~= y:get(1))
    assert.equal(2, y:get(2))
  end)

  it("refuse too few elements, other dtypes and unknown options", function()
    local t = atomo.ones(3, 1)
    fails({"fails.lua:5: var: 1 elements along dimension 2 of tensor [3,1]", "2; {unbiased = false}"}, t.var, t, 2)
    assert.same({0, 0, 0}, t:std(2, {unbiased = false}):totable())
    fails({"std: 0 elements", "at least 2"}, t.std, atomo.zeros(0))
    fails({"var: 0 elements along dimension 2", "at least 1"}, t.var, atomo.zeros(2, 0), 2, {unbiased = false})
    fails({"fails.lua:5: ", "var: tensor is i32, expected f32"}, t.var, atomo.ones(3, "i32"))
    fails({"std: unknown option 'unbaised'", "did you mean 'unbiased'"}, t.std, t, 1, {unbaised = true})
    fails({"var: unbiased is 1, expected true or false"}, t.var, t, 1, {unbiased = 1})
    fails({"var: options are a boolean"}, t.var, t, 1, false)
    fails({"var: dimension 0"}, t.var, t, 0)
  end)
end)

describe("einsum", function()
  local A, B = atomo.arange(1, 7):view(2, 3), atomo.tensor {{1, -1}, {0.5, 2}, {3, 0}}
  local P = atomo.arange(1, 13):view(2, 2, 3) - 5
  local Q = atomo.tensor {{{0, 1}, {2, 3}, {-1, 0}}, {{1, 2}, {3, -1}, {0, 1}}}
  local u, v = atomo.tensor {1, 2, -1}, atomo.tensor {2, -3}
  local cases = {
    {"ij,jk->ik", {A, B}, {{11, 3}, {24.5, 6}}}, {"ij,jk", {A, B}, {{11, 3}, {24.5, 6}}},
    {" ij, jk -> ki ", {A, B}, {{11, 24.5}, {3, 6}}},
    {"bij,bjk->bik", {P, Q}, {{{-4, -13}, {-1, -1}}, {{11, 5}, {23, 11}}}},
    {"bij,bjk->ikb", {P, Q}, {{{-4, 11}, {-13, 5}}, {{-1, 23}, {-1, 11}}}},
    {"bij,bjk->ik", {P, Q}, {{7, -8}, {22, 10}}},
    {"ij->ji", {A}, {{1, 4}, {2, 5}, {3, 6}}}, {"ba", {A}, {{1, 4}, {2, 5}, {3, 6}}},
    {"ij->i", {A}, {6, 15}}, {"ij->", {A}, 21}, {"ij->ij", {A}, {{1, 2, 3}, {4, 5, 6}}},
    {"i,j->ij", {u, v}, {{2, -3}, {4, -6}, {-2, 3}}}, {"i,i->", {u, u}, 6}, {"ij,j->i", {A, u}, {2, 8}},
    {"ij,ij->ij", {A, A}, {{1, 4, 9}, {16, 25, 36}}}, {"ij,ij->", {A, A}, 91},
    {"ij,k->jk", {A, v}, {{10, -15}, {14, -21}, {18, -27}}}, {"ij,jk,k->i", {A, B, v}, {13, 31}},
    {"bij,j->bi", {P, u}, {{-8, -2}, {4, 10}}},
    {"i,j,k->kij", {u, v, v}, {{{4, -6}, {8, -12}, {-4, 6}}, {{-6, 9}, {-12, 18}, {6, -9}}}},
  }

  it("has NumPy's and PyTorch's values", function()
    for _, case in ipairs(cases) do near(case[3], atomo.einsum(case[1], unpack(case[2])), case[1]) end
  end)

  it("passes gradcheck in every form", function()
    for _, case in ipairs(cases) do
      local inputs = {}
      for i, t in ipairs(case[2]) do inputs[i] = atomo.randn(t:shape()) end
      local ok, worst = atomo.gradcheck(function(...) return atomo.einsum(case[1], ...) end, inputs)
      assert.is_true(ok, ("%s: %g"):format(case[1], worst))
    end
    assert.is_true(atomo.gradcheck(function(a) return atomo.einsum("ij,kj->ik", a, a) end, {atomo.randn(2, 3)}))
  end)

  it("reads views, and never returns its operand itself", function()
    near({{11, 3}, {24.5, 6}}, atomo.einsum("ji,jk->ik", A:t(), B:t():contiguous():t()), "transposed")
    local t = atomo.ones(2)
    atomo.einsum("i->i", t):fill_(5)
    assert.same({1, 1}, t:totable())
  end)

  it("of empty sums is 0", function()
    near({{0, 0}, {0, 0}}, atomo.einsum("ij,jk->ik", atomo.zeros(2, 0), atomo.zeros(0, 2)), "empty")
    assert.same({0, 2, 2}, atomo.einsum("bij,bjk->bik", atomo.zeros(0, 2, 3), atomo.zeros(0, 3, 2)):shape())
  end)

  it("refuses unsupported equations and operands that do not fit", function()
    local e = atomo.einsum
    fails({"fails.lua:5: ", "letter 'i' twice in operand 1: a diagonal or trace is not supported"}, e, "ii->i", B)
    fails({"letter 'i' twice in the result"}, e, "ij->ii", A)
    fails({"'...' is not supported"}, e, "...i->i", A)
    fails({"fails.lua:5: ", "names 2 operands, got 1 tensors"}, e, "ij,jk->ik", A)
    fails({"letter 'k' of the result is in no operand"}, e, "ij->ik", A)
    fails({"operand 1 has 3 letters, tensor [2,3] has 2 dimensions"}, e, "ijk->i", A)
    fails({"letter 'j' is 3 in an operand before, 2 in operand 2 [2,3]"}, e, "ij,jk->ik", A, A)
    fails({"operand 2 is i32, expected f32"}, e, "i,i->", u, atomo.ones(3, "i32"))
    fails({"operand 1 is a number"}, e, "i->", 1)
    fails({"equation is a table"}, e, A, "i->")
  end)
end)
