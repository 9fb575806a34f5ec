-- where, gather, sort, argsort, topk, split, chunk: values and gradients of PyTorch 1.13 (indices from 1), layouts,
-- dtypes, empty tensors, NaN, and refusals at the caller's line.
local atomo = require "atomo"
local fails = require "support.fails"

local X = {{0.5, -1.25, 3, 0}, {2, 2, -0.75, 1.5}, {-3, 0.25, 2, 4}}
local function x() return atomo.param(atomo.tensor(X)) end
local function index(t) return atomo.tensor(t, "i32") end
local function same(want, t) assert.same(want, t:totable()) end

--- Passes the gradient 1, 2, 3, ... back from y and returns the gradient of t as a table.
local function gradient(y, t)
  y:backward(atomo.arange(1, y:numel() + 1):view(y:shape()))
  return t.grad:totable()
end

--- Layouts of the same elements: contiguous, transposed, part of a larger tensor.
local function layouts(values, dtype)
  local t = atomo.tensor(values, dtype)
  local wide = atomo.zeros({t:size(1) + 2, t:size(2) + 3}, dtype)
  local part = wide:narrow(1, 2, t:size(1)):narrow(2, 3, t:size(2))
  part:copy_(t)
  return {contiguous = t, transposed = t:t():contiguous():t(), part = part}
end

describe("where", function()
  local mask = {{1, 0, 1, 0}, {0, 0, 1, 1}, {1, 1, 0, 0}}

  it("takes each element from one operand, which gets its gradient", function()
    local a, b = x(), atomo.param(atomo.tensor {10, 20, 30, 40})
    local y = atomo.where(atomo.tensor(mask), a, b)
    same({{0.5, 20, 3, 40}, {10, 20, -0.75, 1.5}, {-3, 0.25, 30, 40}}, y)
    assert.same({{1, 0, 3, 0}, {0, 0, 7, 8}, {9, 10, 0, 0}}, gradient(y, a))
    assert.same({5, 8, 11, 16}, b.grad:totable())
  end)

  it("keeps the sign of zero and every NaN, infinity and small number", function()
    local edges = {0, -0, 1e-45, -1e-45, 1 / 0, -1 / 0, 1, -1}
    local a, pick = atomo.tensor(edges), atomo.tensor {1, 0, 1, 0, 1, 0, 1, 0}
    for _, y in ipairs {atomo.where(pick, a, a), atomo.where(pick, a, -0), atomo.where(pick, -0, a)} do
      for i = 1, #edges do
        local got, kept = y:get(i), a:get(i)
        assert.is_true(got == kept and 1 / got == 1 / kept or got == 0 and 1 / got < 0, tostring(i))
      end
    end
    local y = atomo.where(atomo.tensor {1, 0}, 0 / 0, a:narrow(1, 1, 2))
    assert.is_true(y:get(1) ~= y:get(1) and 1 / y:get(2) < 0)
  end)

  it("passes gradcheck, with an operand used twice", function()
    local c = atomo.tensor {{1, 0, 1}}
    assert.is_true(atomo.gradcheck(function(a, b) return atomo.where(c, a, b) * atomo.where(c, b, a) end,
      {atomo.randn(2, 1), atomo.randn(3)}))
    assert.is_true(atomo.gradcheck(function(a) return atomo.where(c, a, a * 2) end, {atomo.randn(2, 3)}))
  end)

  it("keeps NaN and Inf of the operand that is not taken out of value and gradient", function()
    local a = atomo.param(atomo.tensor {0 / 0, 1, math.huge})
    local y = atomo.where(atomo.tensor {0, 1, 0}, a, 7)
    same({7, 1, 7}, y)
    assert.same({0, 2, 0}, gradient(y, a))
  end)

  it("takes numbers, masks of any dtype, and NaN as true", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      same({1, -1, 1}, atomo.where(atomo.tensor({2, 0, 3}, dtype), 1, -1))
    end
    same({1, 0, 1}, atomo.where(atomo.tensor {0 / 0, 0, -1}, 1, 0))
    same({1, 9}, atomo.tensor({1, 2}):where(atomo.tensor {1, 0}, 9))
  end)

  it("of i32 and u8 is exact and keeps the dtype", function()
    local big = 2 ^ 31 - 1
    local y = atomo.where(atomo.tensor {1, 0}, index {big, 1}, index {2, -big})
    same({big, -big}, y)
    assert.equal("i32", y:dtype())
    y = atomo.where(atomo.tensor {1, 0}, atomo.tensor({255, 1}, "u8"), 0)
    same({255, 0}, y)
    assert.equal("u8", y:dtype())
  end)

  it("refuses invalid arguments", function()
    fails({"fails.lua:5: ", "where: condition is a boolean"}, atomo.where, true, 1, 2)
    fails({"fails.lua:5: ", "where: b is missing"}, atomo.where, atomo.ones(1), 1)
    fails({"where: a is f32, b is i32"}, atomo.where, atomo.ones(1), atomo.ones(1), index {1})
    fails({"fails.lua:5: ", "[2]", "[3]"}, atomo.where, atomo.ones(2), atomo.ones(3), 0)
    fails({"where: b: 300 does not fit u8"}, atomo.where, atomo.ones(1), atomo.ones(1, "u8"), 300)
  end)

  it("records nothing under no_grad", function()
    local a = x()
    local y = atomo.no_grad(function() return atomo.where(atomo.tensor(mask), a, 0) end)
    assert.is_nil(y.node)
  end)
end)

describe("gather", function()
  it("has PyTorch's values and gradients along both dimensions", function()
    local t = x()
    local y = t:gather(1, index {{1, 3, 3, 2}, {3, 2, 1, 1}})
    same({{0.5, 0.25, 2, 1.5}, {-3, 2, 3, 0}}, y)
    assert.same({{1, 0, 7, 8}, {0, 6, 0, 4}, {5, 2, 3, 0}}, gradient(y, t))
    t = x()
    y = t:gather(-1, index {{4, 4}, {1, 2}, {3, 1}})
    same({{0, 0}, {2, 2}, {2, -3}}, y)
    assert.same({{0, 0, 0, 3}, {3, 4, 0, 0}, {6, 0, 5, 0}}, gradient(y, t))
  end)

  it("agrees with a loop for three dimensions and an index smaller than the tensor", function()
    local t = atomo.randn(3, 4, 5)
    for dim = 1, 3 do
      local sizes = {2, 3, 4}
      sizes[dim] = 6
      local k = (atomo.rand(unpack(sizes)) * t:size(dim)):int() + 1
      local y = t:gather(dim, k)
      for a = 1, sizes[1] do
        for b = 1, sizes[2] do
          for c = 1, sizes[3] do
            local at = {a, b, c}
            at[dim] = k:get(a, b, c)
            assert.equal(t:get(unpack(at)), y:get(a, b, c))
          end
        end
      end
    end
  end)

  it("reads every layout and dtype", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      for name, t in pairs(layouts({{1, 2, 3}, {4, 5, 6}}, dtype)) do
        local k = index {{3, 1}, {2, 1}}
        local y = t:gather(2, k:t():contiguous():t())
        assert.same({{3, 1}, {5, 4}}, y:totable(), name)
        assert.equal(dtype, y:dtype())
      end
    end
  end)

  it("passes gradcheck with indices named twice", function()
    local k = index {{2, 2, 1}, {1, 1, 1}}
    assert.is_true(atomo.gradcheck(function(t) return t:gather(1, k) * t:gather(2, k) end, {atomo.randn(2, 3)}))
  end)

  it("of empty tensors, scalars and empty indices", function()
    same({{}, {}}, atomo.zeros(2, 0):gather(2, atomo.zeros(2, 0, "i32")))
    same({}, atomo.ones(3):gather(1, atomo.zeros(0, "i32")))
    assert.equal(5, atomo.tensor(5):gather(1, atomo.tensor(1, "i32")):item())
  end)

  it("refuses invalid arguments", function()
    local t = atomo.tensor(X)
    fails({"fails.lua:5: ", "gather: index is f32, expected i32"}, t.gather, t, 1, atomo.ones(1, 4))
    fails({"fails.lua:5: ", "gather: index 0 at position 2 is outside 1 to 3"}, t.gather, t, 1, index {{1, 0}})
    fails({"gather: index 5 at position 1 is outside 1 to 4"}, t.gather, t, 2, index {{5}})
    fails({"gather: index [1] of tensor [3,4]"}, t.gather, t, 1, index {1})
    fails({"gather: index [4,1] of tensor [3,4]"}, t.gather, t, 2, index {{1}, {1}, {1}, {1}})
    fails({"gather: dimension 3"}, t.gather, t, 3, index {{1}})
    fails({"gather: dimension 0"}, t.gather, t, 0, index {{1}})
    fails({"gather: index is missing"}, t.gather, t, 1)
  end)
end)

describe("sort", function()
  local cases = { -- dimension, descending, values, indices
    {1, false, {{-3, -1.25, -0.75, 0}, {0.5, 0.25, 2, 1.5}, {2, 2, 3, 4}}, {{3, 1, 2, 1}, {1, 3, 3, 2}, {2, 2, 1, 3}}},
    {1, true, {{2, 2, 3, 4}, {0.5, 0.25, 2, 1.5}, {-3, -1.25, -0.75, 0}}, {{2, 2, 1, 3}, {1, 3, 3, 2}, {3, 1, 2, 1}}},
    {2, false, {{-1.25, 0, 0.5, 3}, {-0.75, 1.5, 2, 2}, {-3, 0.25, 2, 4}}, {{2, 4, 1, 3}, {3, 4, 1, 2}, {1, 2, 3, 4}}},
    {-1, true, {{3, 0.5, 0, -1.25}, {2, 2, 1.5, -0.75}, {4, 2, 0.25, -3}}, {{3, 1, 4, 2}, {1, 2, 4, 3}, {4, 3, 2, 1}}},
  }

  it("has PyTorch's values and indices in every layout; equal elements keep their order", function()
    for name, t in pairs(layouts(X)) do
      for _, case in ipairs(cases) do
        local values, indices = t:sort(case[1], case[2])
        assert.same(case[3], values:totable(), name)
        assert.same(case[4], indices:totable(), name)
        assert.same(case[4], t:argsort(case[1], case[2]):totable(), name)
        assert.equal("i32", indices:dtype())
      end
    end
  end)

  it("passes gradients to where the values came from", function()
    local t = x()
    assert.same({{3, 1, 4, 2}, {7, 8, 5, 6}, {9, 10, 11, 12}}, gradient((t:sort()), t))
    assert.is_true(atomo.gradcheck(function(a) return (a:sort(1)) * (a:sort(1, true)) end,
      {atomo.tensor {{3, -1}, {1, 2}, {-2, 5}}}))
  end)

  it("counts NaN as the largest number, and keeps the order of 0 and -0", function()
    local nan, inf = 0 / 0, math.huge
    local t = atomo.tensor {2, nan, -1, inf, -inf, 0, -0.0, nan, 2}
    local values, indices = t:sort()
    same({5, 3, 6, 7, 1, 9, 4, 2, 8}, indices)
    same({-inf, -1, 0, 0, 2, 2, inf}, values:narrow(1, 1, 7))
    assert.equal(2, values:narrow(1, 8, 2):count_nonfinite())
    same({2, 8, 4, 1, 9, 6, 7, 3, 5}, (t:argsort(1, true)))
  end)

  it("sorts a NaN of any bits, which LuaJIT could take for another type", function()
    local t = atomo.tensor {1, 0, 2}
    require("ffi").cast("uint32_t *", t.h.data)[1] = 0xfffffff1
    same({1, 3, 2}, (t:argsort()))
    t:sort()
  end)

  it("of i32 and u8 is exact", function()
    local values, indices = index({2 ^ 31 - 1, -2 ^ 31, 2 ^ 31 - 2, 0}):sort()
    same({-2 ^ 31, 0, 2 ^ 31 - 2, 2 ^ 31 - 1}, values)
    same({2, 4, 3, 1}, indices)
    values = atomo.tensor({200, 3, 255}, "u8"):sort(1, true)
    same({255, 200, 3}, values)
    assert.equal("u8", values:dtype())
  end)

  it("of many elements is in order and a permutation, of one and of none as well", function()
    for _, n in ipairs {1, 2, 3, 63, 64, 65, 1000} do
      local t = (atomo.rand(n) * 50):floor()
      local values, indices = t:sort()
      local seen = {}
      for i = 1, n do
        local k = indices:get(i)
        assert.is_nil(seen[k])
        seen[k] = true
        assert.equal(t:get(k), values:get(i))
        if i > 1 then
          local a, b = values:get(i - 1), values:get(i)
          assert.is_true(a < b or a == b and indices:get(i - 1) < k)
        end
      end
    end
    same({{}, {}}, (atomo.zeros(2, 0):sort()))
    same({}, (atomo.zeros(0, 2):sort(2)))
    assert.equal(3, atomo.tensor(3):sort():item())
  end)

  it("refuses invalid arguments", function()
    local t = atomo.tensor(X)
    fails({"fails.lua:5: ", "sort: dimension 3"}, t.sort, t, 3)
    fails({"sort: dimension 0"}, t.sort, t, 0)
    fails({"fails.lua:5: ", "sort: descending is 1, expected true or false"}, t.sort, t, 1, 1)
    fails({"argsort: descending is 'desc'"}, t.argsort, t, 1, "desc")
  end)
end)

describe("topk", function()
  it("has PyTorch's values, and the first of equal elements first", function()
    local t = x()
    local values, indices = t:topk(2)
    same({{3, 0.5}, {2, 2}, {4, 2}}, values)
    same({{3, 1}, {1, 2}, {4, 3}}, indices)
    assert.same({{2, 0, 1, 0}, {3, 4, 0, 0}, {0, 0, 6, 5}}, gradient(values, t))
    values, indices = t:topk(2, 1, false)
    same({{-3, -1.25, -0.75, 0}, {0.5, 0.25, 2, 1.5}}, values)
    same({{3, 1, 2, 1}, {1, 3, 3, 2}}, indices)
  end)

  it("counts NaN as the largest number", function()
    local _, indices = atomo.tensor({1, 0 / 0, 3}):topk(2)
    same({2, 3}, indices)
  end)

  it("of none, of all and of a scalar; refuses more than there are", function()
    local t = atomo.tensor {3, 1, 2}
    same({}, (t:topk(0)))
    same({3, 2, 1}, (t:topk(3)))
    assert.equal(4, atomo.tensor(4):topk(1):item())
    fails({"fails.lua:5: ", "topk: k is 4, dimension 1 has 3 elements"}, t.topk, t, 4)
    fails({"topk: k is 1.5"}, t.topk, t, 1.5)
    fails({"topk: k is missing"}, t.topk, t)
    fails({"topk: largest is 0"}, t.topk, t, 1, 1, 0)
  end)
end)

describe("split and chunk", function()
  local function sizes(list, dim)
    local all = {}
    for i, t in ipairs(list) do all[i] = t:size(dim or 1) end
    return all
  end

  it("have PyTorch's sizes", function()
    local t = atomo.arange(7)
    assert.same({3, 3, 1}, sizes(t:split(3)))
    assert.same({7}, sizes(t:split(9)))
    assert.same({2, 0, 5}, sizes(t:split {2, 0, 5}))
    assert.same({3, 3, 1}, sizes(t:chunk(3)))
    assert.same({2, 2, 2, 1}, sizes(t:chunk(5)))
    assert.same({1, 1, 1, 1, 1, 1, 1}, sizes(t:chunk(9)))
    assert.same({0, 0, 0}, sizes(atomo.zeros(0, 2):chunk(3)))
    assert.same({0}, sizes(atomo.zeros(0):split(2)))
    same({5, 6}, t:split({5, 2})[2])
    same({{2}, {4}}, atomo.tensor({{1, 2}, {3, 4}}):chunk(2, -1)[2])
  end)

  it("return views: a change in place shows in the tensor, gradients meet again", function()
    local t = atomo.zeros(4)
    t:split(2)[2]:fill_(1)
    same({0, 0, 1, 1}, t)
    local p = x()
    local left, right = unpack(p:chunk(2, 2))
    local y = left * right
    assert.same({{3, 0, 0.5, -2.5}, {-2.25, 6, 6, 8}, {10, 24, -15, 1.5}}, gradient(y, p))
    assert.is_true(atomo.gradcheck(function(a) return atomo.cat({a:split({1, 2}, 2)[2], a:chunk(3, 2)[1]}, 2) * a end,
      {atomo.randn(2, 3)}))
  end)

  it("refuse invalid arguments", function()
    local t = atomo.zeros(4, 2)
    fails({"fails.lua:5: ", "split: sizes [1,2] add up to 3, dimension 1 has 4"}, t.split, t, {1, 2})
    fails({"split: size is 0"}, t.split, t, 0)
    fails({"split: size 2 is -1"}, t.split, t, {5, -1})
    fails({"split: size is missing"}, t.split, t)
    fails({"split: dimension 3"}, t.split, t, 1, 3)
    fails({"fails.lua:5: ", "chunk: number of chunks is 0"}, t.chunk, t, 0)
    fails({"chunk: number of chunks is 1000000000000"}, atomo.zeros(0).chunk, atomo.zeros(0), 1e12)
    fails({"chunk: dimension 0"}, t.chunk, t, 2, 0)
  end)
end)
