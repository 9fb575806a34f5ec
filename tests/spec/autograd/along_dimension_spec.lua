-- cumsum, prod, logsumexp, norm along a dimension, flip, tile, tril, triu, %, rounding, isnan and logic: dtypes, empty
-- tensors, limits, refusals at the caller's line. Values and gradients of PyTorch: tests/golden/edges.lua.
local atomo = require "atomo"
local F = atomo.F
local fails = require "support.fails"
local inf, nan = math.huge, 0 / 0

local function same(want, t) assert.same(want, t:totable()) end

describe("cumsum and prod", function()
  it("of i32 and u8 are exact i32, or raise", function()
    for _, dtype in ipairs {"i32", "u8"} do
      local t = atomo.tensor({{200, 100}, {100, 255}}, dtype)
      assert.equal("i32", t:cumsum(1):dtype())
      same({{200, 100}, {300, 355}}, t:cumsum(1))
      same({{20000, 25500}}, t:prod(1, true))
      assert.equal("i32", t:prod():dtype())
    end
    same({2 ^ 24 + 1, 2 ^ 24 + 2}, atomo.tensor({2 ^ 24 + 1, 1}, "i32"):cumsum(1))
    fails({"fails.lua:5: ", "cumsum: 2147483648 does not fit i32"}, atomo.Tensor.cumsum,
      atomo.tensor({2 ^ 31 - 1, 1, -1}, "i32"), 1)
    fails({"fails.lua:5: ", "prod: 4.6116860184273879e+18 does not fit i32"}, atomo.Tensor.prod,
      atomo.tensor({-2 ^ 31, -2 ^ 31}, "i32"))
    assert.equal(-2 ^ 31, atomo.tensor({-2 ^ 31, 1}, "i32"):prod():item())
    assert.equal(0, atomo.full({60}, 2 ^ 31 - 1, "i32"):set(60, 0):prod():item())
  end)

  it("accumulate in double, in order", function()
    local n = 100000
    local sums = atomo.full({n}, 0.1):cumsum(1)
    assert.is_true(math.abs(sums:get(n) - n * atomo.tensor({0.1}):item()) < 1e-3)
    assert.equal(2, atomo.tensor({1e30, 1e30, 2e-30, 1e-30}):prod():item())
  end)

  it("of empty tensors, forward and gradient", function()
    local w = atomo.param(atomo.zeros(2, 0))
    same({{}, {}}, w:cumsum(2))
    same({1, 1}, w:prod(2))
    same({}, w:prod(1))
    assert.equal(1, w:prod():item());
    (w:prod() + w:cumsum(1):sum()):backward()
    assert.same({2, 0}, w.grad:shape())
  end)

  it("of prod with zeros: the gradient is the product of the others", function()
    local w = atomo.param {{0, 2, 3}, {0, 5, 0}, {inf, 2, 1}}
    w:prod(2):backward(atomo.ones(3))
    same({{6, 0, 0}, {0, 0, 0}, {2, inf, inf}}, w.grad)
  end)

  it("notice a change before backward, and refuse invalid arguments", function()
    local x = atomo.param {2, 3} * 1
    local y = x:prod()
    x:detach():fill_(7)
    fails("changed in place", y.backward, y)
    local t = atomo.ones(2, 2)
    fails({"fails.lua:5: ", "cumsum: dimension nil of a tensor with 2"}, t.cumsum, t)
    fails({"cumsum: dimension 3"}, t.cumsum, t, 3)
    fails({"prod: keepdim is 2"}, t.prod, t, 1, 2)
    fails({"prod: dimension 0"}, t.prod, t, 0)
  end)
end)

describe("logsumexp and norm along a dimension", function()
  it("keep the dimension or not", function()
    local t = atomo.zeros(2, 3)
    assert.same({2}, t:logsumexp(2):shape())
    assert.same({1, 3}, t:logsumexp(1, true):shape())
    assert.same({1, 1}, t:logsumexp(nil, true):shape())
    assert.same({}, t:logsumexp():shape())
    assert.same({3}, t:norm(2, 1):shape())
    assert.same({2, 1}, t:norm(1, -1, true):shape())
    assert.same({1, 1}, t:norm(2, nil, true):shape())
  end)

  it("of large elements are shared by ties, in gradient as in value", function()
    local w = atomo.param {3e38, 3e38, 0}
    w:logsumexp():backward()
    same({0.5, 0.5, 0}, w.grad)
  end)

  it("of nothing are -Inf and 0", function()
    same({-inf, -inf}, atomo.zeros(2, 0):logsumexp(2))
    assert.equal(-inf, atomo.zeros(0):logsumexp():item())
    for _, p in ipairs {1, 2, inf, 0.5} do same({0, 0}, atomo.zeros(2, 0):norm(p, 2)) end
    same({}, atomo.zeros(2, 0):logsumexp(1))
  end)

  it("refuse invalid arguments", function()
    local t = atomo.ones(2, 2)
    fails({"fails.lua:5: ", "norm: p is 0, expected a number above 0"}, t.norm, t, 0, 1)
    fails({"norm: dimension 3"}, t.norm, t, 2, 3)
    fails({"norm: tensor is i32, expected f32"}, t.norm, t:int(), 2, 1)
    fails({"logsumexp: tensor is u8, expected f32"}, t.logsumexp, t:to "u8")
    fails({"fails.lua:5: ", "logsumexp: keepdim is 2"}, t.logsumexp, t, 1, 2)
    fails({"normalize: p is 0, expected a number above 0"}, F.normalize, t, {p = 0})
    fails({"normalize: options are a number"}, F.normalize, t, 2)
    fails({"normalize: dimension -1 of a tensor with 0"}, F.normalize, atomo.tensor(1))
    fails({"fails.lua:5: ", "cosine_similarity: a is [2,2], b is [3]"}, F.cosine_similarity, t, atomo.ones(3))
    fails({"cosine_similarity: unknown option 'p'"}, F.cosine_similarity, t, t, {p = 2})
  end)

  it("of cosine_similarity over any dimension, of vectors and rows", function()
    local a, b = atomo.tensor {{1, 0}, {1, 1}}, atomo.tensor {2, 0}
    local y = F.cosine_similarity(a, b)
    assert.equal(1, y:get(1))
    assert.is_true(math.abs(y:get(2) - 2 ^ -0.5) < 1e-6)
    assert.same({2}, F.cosine_similarity(b, a, {dim = 1}):shape())
    assert.equal(0, F.cosine_similarity(atomo.zeros(2), b):item())
  end)
end)

describe("flip, tile, tril, triu", function()
  it("keep the dtype, and return copies", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      local t = atomo.tensor({{1, 2}, {3, 4}}, dtype)
      for _, y in ipairs {t:flip(1, 2), t:tile(1), t:tile(2, 2), t:tril(), t:triu()} do
        assert.equal(dtype, y:dtype())
        y:fill_(9)
      end
      same({{1, 2}, {3, 4}}, t)
      same({{4, 3}, {2, 1}}, t:flip {1, -1})
      same({{1, 0}, {3, 4}}, t:tril())
      same({{0, 2}, {0, 0}}, t:triu(1))
      same({{1, 2, 1, 2}, {3, 4, 3, 4}}, t:tile(2))
    end
    same({2 ^ 31 - 1, 2 ^ 31 - 1}, atomo.tensor({2 ^ 31 - 1}, "i32"):tile(2))
  end)

  it("of empty tensors and scalars", function()
    same({{}, {}}, atomo.zeros(2, 0):flip(1, 2))
    same({{}, {}}, atomo.zeros(2, 0):tile(1, 3))
    same({3, 3}, atomo.tensor(3):tile(2))
    same({{}, {}}, atomo.zeros(2, 0):tril())
    same({}, atomo.ones(2):tile(0))
  end)

  it("refuse invalid arguments", function()
    local t = atomo.ones(2, 2)
    fails({"fails.lua:5: ", "flip: no dimension is named"}, t.flip, t)
    fails({"flip: dimension 2 named twice"}, t.flip, t, 2, -1)
    fails({"flip: dimension 3"}, t.flip, t, 3)
    fails({"fails.lua:5: ", "tile: no count is given"}, t.tile, t)
    fails({"tile: count 2 is -1"}, t.tile, t, 1, -1)
    fails({"tile: count 1 is 1.5"}, t.tile, t, 1.5)
    fails({"at most 8"}, t.tile, t, 1, 1, 1, 1, 1, 1, 1, 1, 2)
    fails({"fails.lua:5: ", "tril: tensor [2] is no matrix"}, t.tril, atomo.ones(2))
    fails({"triu: diagonal is 0.5"}, t.triu, t, 0.5)
  end)
end)

describe("%, rounding and logic", function()
  it("% has the divisor's sign, as Lua's, of i32 too", function()
    local t = atomo.tensor({-7, 7, -2 ^ 31}, "i32")
    same({1, 3, 0}, t % 4)
    same({-3, -1, 0}, t % -4)
    same({0, 0, 0}, t % -1)
    same({-7 % 4, 7 % 4, -5.5 % 4}, atomo.tensor {-7, 7, -5.5} % 4)
    same({10 % 3, 10 % -3}, 10 % atomo.tensor({3, -3}, "i32"))
    same({{1, 0}, {0, 2}}, atomo.tensor({{1}, {2}}, "i32") % atomo.tensor({2, 3}, "i32") % 3 * atomo.eye(2, "i32"))
    fails({"fails.lua:5: ", "remainder: an i32 divisor is 0"}, t.remainder, t, atomo.tensor({1, 0, 1}, "i32"))
    fails({"remainder: an i32 divisor is 0"}, t.remainder, 3, atomo.tensor({1, 0, 1}, "i32"))
    fails({"remainder: the divisor of an i32 tensor is 0"}, t.remainder, t, 0)
    fails({"remainder: does not take u8"}, t.remainder, t:to "u8", 2)
    fails({"remainder: table and string, expected tensors or numbers"}, t.remainder, t, "2")
  end)

  it("of atomo.elementwise are those of tensors, gradient included", function()
    local fused = atomo.elementwise("rounding", function(a, b)
      return (a % b) * a:ceil() + a:round() * a:trunc() + b % 0.75
    end)
    local function plain(a, b) return (a % b) * a:ceil() + a:round() * a:trunc() + b % 0.75 end
    local results = {}
    for i, fn in ipairs {fused, plain} do
      local a, b = atomo.param {2.5, -1.5, 3.25, -0.25}, atomo.param {2, 0.7, -1.5, 4}
      local y = fn(a, b)
      y:sum():backward()
      results[i] = {y:totable(), a.grad:totable(), b.grad:totable()}
    end
    assert.same(results[2], results[1])
  end)

  it("of i32 and u8: every element is finite", function()
    for _, dtype in ipairs {"i32", "u8"} do
      local t = atomo.tensor({0, 3}, dtype)
      same({0, 0}, t:isnan())
      same({0, 0}, t:isinf())
      same({1, 1}, t:isfinite())
      same({1, 0}, t:logical_not())
      same({0, 1}, t:logical_and(atomo.tensor {nan, -1}))
      same({1, 1}, t:logical_or(atomo.tensor {nan, 0}))
      same({{0, 1}, {1, 0}}, t:logical_xor(atomo.tensor({{0}, {255}}, "u8")))
    end
    fails({"fails.lua:5: ", "logical_and: operand is a number"}, atomo.Tensor.logical_and, atomo.ones(1), 1)
  end)

  it("answer without recording, of a tensor that requires a gradient too", function()
    local w = atomo.param {1, nan, inf}
    for _, name in ipairs {"isnan", "isinf", "isfinite", "logical_not"} do assert.is_nil(w[name](w).node) end
    same({1, 0, 0}, w:isfinite())
    assert.is_nil(w:logical_and(w).node)
  end)
end)
