-- index_add, scatter_add, their in-place forms and masked_select: dtypes, layouts, empty tensors, gradients of changes
-- in place, refusals at the caller's line. Values and gradients of PyTorch: tests/golden/edges.lua.
local atomo = require "atomo"
local fails = require "support.fails"

local function i32(t) return atomo.tensor(t, "i32") end
local function same(want, t) assert.same(want, t:totable()) end

--- A tensor of zeros that is every second column of a wider one.
local function skipping(rows, columns, dtype)
  return atomo.zeros({rows, columns, 2}, dtype):select(3, 1)
end

describe("index_add", function()
  it("adds every slice, one that is named twice as well; the tensor stays", function()
    local t = atomo.tensor {{1, 2}, {3, 4}}
    same({{1, 2}, {14, 26}}, t:index_add(1, {2, 2}, atomo.tensor {{1, 2}, {10, 20}}))
    same({{4, 2}, {9, 4}}, t:index_add(-1, i32 {1, 1}, atomo.tensor {{1, 2}, {3, 3}}))
    same({{1, 2}, {3, 4}}, t)
  end)

  it("in place counts labels, of i32 exactly, in every layout", function()
    local labels = i32 {3, 1, 3}
    same({1, 0, 2}, atomo.zeros(3):index_add_(1, labels, atomo.ones(3)))
    local counts = atomo.tensor({2 ^ 24, 0, 2 ^ 24}, "i32")
    assert.equal(counts, counts:index_add_(1, labels, atomo.ones(3, "i32")))
    same({2 ^ 24 + 1, 0, 2 ^ 24 + 2}, counts)
    for _, dtype in ipairs {"f32", "i32"} do
      local t = skipping(2, 3, dtype)
      t:index_add_(2, {3, 3}, atomo.tensor({{1, 2}, {3, 4}}, dtype):t():contiguous():t())
      same({{0, 0, 3}, {0, 0, 7}}, t)
    end
  end)

  it("takes a source that is a view of the tensor as it was", function()
    local t = atomo.tensor {{1, 2}, {3, 4}}
    same({{1 + 1 + 2, 2 + 3 + 4}, {3, 4}}, t:index_add_(1, {1, 1}, t:t()))
  end)

  it("of empty tensors and indices", function()
    same({{}, {}}, atomo.zeros(2, 0):index_add(1, {1}, atomo.zeros(1, 0)))
    same({5}, atomo.full({1}, 5):index_add_(1, {}, atomo.zeros(0)))
    local w = atomo.param {1, 2}
    w:index_add(1, i32 {}, atomo.zeros(0)):sum():backward()
    same({1, 1}, w.grad)
  end)

  it("keeps the index of the call for backward", function()
    local index, source = i32 {1, 1}, atomo.param {5, 7}
    local y = atomo.zeros(2):index_add(1, index, source)
    index:fill_(2)
    y:backward(atomo.tensor {1, 10})
    same({1, 1}, source.grad)
  end)

  it("refuses invalid arguments", function()
    local t = atomo.zeros(2, 2)
    fails({"fails.lua:5: ", "index_add: index 3 at position 2 is outside 1 to 2"}, t.index_add, t, 1, {1, 3}, t)
    fails({"index_add: index 0 at position 1"}, t.index_add_, t, 1, {0, 1}, t)
    fails({"fails.lua:5: ", "index_add: index is f32, expected i32"}, t.index_add, t, 1, atomo.ones(2), t)
    fails({"index_add_: source is i32, expected f32"}, t.index_add_, t, 1, {1, 2}, atomo.zeros(2, 2, "i32"))
    fails({"index_add: source [2,2], tensor [2,2], 1 indices"}, t.index_add, t, 1, {1}, t)
    fails({"index_add: tensor is u8, expected f32"}, t.index_add, atomo.zeros(1, "u8"), 1, {1}, atomo.zeros(1, "u8"))
    fails({"index_add: dimension 3"}, t.index_add, t, 3, {1}, t)
    fails({"index_add: source is missing"}, t.index_add, t, 1, {1})
    same({{0, 0}, {0, 0}}, t)
  end)
end)

describe("scatter_add", function()
  it("is the reverse of gather, for a source larger than the index too", function()
    local index = i32 {{3, 1}, {3, 3}}
    local y = atomo.zeros(2, 3):scatter_add(2, index, atomo.tensor {{1, 2, 9}, {4, 8, 9}, {9, 9, 9}})
    same({{2, 0, 1}, {0, 0, 12}}, y)
    local t, u = atomo.randn(2, 3), atomo.randn(2, 2)
    local a = t:gather(2, index):flatten():dot(u:flatten()):item()
    local b = atomo.zeros(2, 3):scatter_add(2, index, u):flatten():dot(t:flatten()):item()
    assert.is_true(math.abs(a - b) < 1e-5)
  end)

  it("in place, of i32, in every layout, and of a scalar", function()
    for _, dtype in ipairs {"f32", "i32"} do
      local t = skipping(2, 3, dtype)
      assert.equal(t, t:scatter_add_(1, i32 {{2, 1, 2}}, atomo.tensor({{1, 2, 3}}, dtype)))
      same({{0, 2, 0}, {1, 0, 3}}, t)
    end
    assert.equal(5, atomo.tensor(2):scatter_add_(1, i32(1), atomo.tensor(3)):item())
  end)

  it("of empty tensors and indices", function()
    same({{}, {}}, atomo.zeros(2, 0):scatter_add(1, atomo.zeros(2, 0, "i32"), atomo.zeros(2, 0)))
    same({1, 1}, atomo.ones(2):scatter_add_(1, atomo.zeros(0, "i32"), atomo.zeros(0)))
  end)

  it("refuses invalid arguments, and changes nothing then", function()
    local t = atomo.zeros(2, 2)
    local index = i32 {{1, 1}, {1, 2}}
    fails({"fails.lua:5: ", "scatter_add_: index 3 at position 2 is outside 1 to 2"}, t.scatter_add_, t, 1,
      i32 {{1, 3}}, t + 1)
    fails({"scatter_add: source [1,2] is smaller than index [2,2]"}, t.scatter_add, t, 1, index, atomo.ones(1, 2))
    fails({"scatter_add: source [2] is smaller than index [2,2]"}, t.scatter_add, t, 1, index, atomo.ones(2))
    fails({"scatter_add: index [2] of tensor [2,2]"}, t.scatter_add, t, 1, i32 {1, 1}, t)
    fails({"scatter_add: source is i32, expected f32"}, t.scatter_add, t, 1, index, index)
    fails({"scatter_add: source is missing"}, t.scatter_add, t, 1, index)
    same({{0, 0}, {0, 0}}, t)
  end)
end)

describe("masked_select", function()
  it("keeps the order of the elements, in every dtype and layout", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      local t = atomo.tensor({{1, 2, 3}, {4, 5, 6}}, dtype)
      for _, mask_type in ipairs {"f32", "i32", "u8"} do
        local mask = atomo.tensor({{0, 2, 1}, {1, 0, 0}}, mask_type)
        local y = t:masked_select(mask)
        same({2, 3, 4}, y)
        assert.equal(dtype, y:dtype())
        same({4, 2, 3}, t:t():masked_select(mask:t()))
      end
    end
  end)

  it("repeats the mask, and gives none for none", function()
    local t = atomo.tensor {{1, 2}, {3, 4}}
    same({2, 4}, t:masked_select(atomo.tensor {0, 1}))
    same({3, 4}, t:masked_select(atomo.tensor {{0}, {1}}))
    same({1, 2, 3, 4}, t:masked_select(atomo.tensor(1)))
    same({}, t:masked_select(atomo.zeros(2, 2)))
    same({}, atomo.zeros(0, 2):masked_select(atomo.ones(2)))
    same({7}, atomo.tensor(7):masked_select(atomo.tensor(1)))
    local w = atomo.param(t)
    w:masked_select(atomo.zeros(2, 2)):sum():backward()
    same({{0, 0}, {0, 0}}, w.grad)
  end)

  it("refuses invalid arguments", function()
    local t = atomo.zeros(2, 3)
    fails({"fails.lua:5: ", "masked_select: mask [2] does not repeat to tensor [2,3]"}, t.masked_select, t,
      atomo.ones(2))
    fails({"masked_select: mask [1,2,3] does not repeat to tensor [2,3]"}, t.masked_select, t, atomo.ones(1, 2, 3))
    fails({"masked_select: mask is a function"}, t.masked_select, t, print)
  end)
end)
