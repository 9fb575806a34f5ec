-- Operators in place give the bits of their counterparts, in every layout; every function takes each dtype exactly or
-- refuses it by name; empty tensors; long lists.
local atomo = require "atomo"
local edges = require "support.edges"
local rows = require "support.edge_rows"

local inf, nan = math.huge, 0 / 0
local values = {0, -0.0, 1, -1, 2.5, 1e-45, 1e-38, 1e30, -1e30, inf, -inf, nan}

local function layouts(make)
  return {
    contiguous = make(),
    transposed = atomo.empty(4, 3):t():copy_(make()),
    narrowed = atomo.full({5, 6}, nan):narrow(1, 2, 3):narrow(2, 2, 4):copy_(make()),
    skipping = atomo.full({3, 4, 2}, nan):select(3, 2):copy_(make()),
  }
end

describe("in place, the same bits:", function()
  local function make() return atomo.tensor(values):view(3, 4) end
  local operands = {2.5, 0, nan, atomo.tensor(values):view(3, 4):contiguous(), atomo.tensor {1, nan, 0, -2}}
  local tried = {}
  for name, fn in pairs(atomo.Tensor) do
    local plain = type(name) == "string" and name:match "^(%a+)_$"
    if plain and rows.rows["T." .. plain] then
      tried[#tried + 1] = name
      it(name, function()
        local binary = rows.rows["T." .. plain].elementwise == 2
        for layout in pairs(layouts(make)) do
          for _, u in ipairs(binary and operands or {-1}) do
            local t = layouts(make)[layout]
            local upper = plain == "clamp" and 1 or nil
            local want = atomo.Tensor[plain](make(), u, upper)
            fn(t, u, upper)
            assert.is_nil(edges.difference(t, want), ("%s, %s"):format(name, layout))
          end
        end
      end)
    end
  end
  it("all of them", function()
    assert.is_true(#tried >= 16)
  end)
end)

describe("of i32 and u8", function()
  local whole = {i32 = {0, 1, 2, 3, 5, 7, 100, 2}, u8 = {0, 1, 2, 3, 5, 7, 100, 2}}

  --- The inputs with whole numbers in place of f32 elements.
  local function converted(inputs, dtype)
    local list = {}
    for k, x in ipairs(inputs) do
      list[k] = x
      if x:dtype() == "f32" then
        local t = atomo.empty(x:shape())
        local p = t:data()
        for i = 0, t:numel() - 1 do p[i] = whole[dtype][(i + k) % 8 + 1] end
        list[k] = t:to(dtype)
      end
    end
    return list
  end
  local function floats(inputs)
    local list = {}
    for k, x in ipairs(inputs) do list[k] = x:float() end
    return list
  end

  for dtype in pairs(whole) do
    it(dtype .. ": every function gives what f32 gives, or names what it wants", function()
      local taken = {}
      for _, case in ipairs(edges.cases()) do
        local row = rows.of(case.name)
        local all_f32 = true
        for _, x in ipairs(case.inputs) do all_f32 = all_f32 and x:dtype() == "f32" end
        if all_f32 then
          local list = converted(case.inputs, dtype)
          local ok, y = pcall(row.fn, unpack(list))
          if ok then
            local want = row.fn(unpack(floats(list)))
            assert.is_nil(edges.difference(y:float(), want:float(), 1), case.name)
            taken[case.name:match "^[^/]+"] = true
          else
            local text = tostring(y)
            assert.is_truthy(text:match "[fi]32" or text:match "does not take u8", case.name .. ": " .. text)
          end
        end
      end
      for _, name in ipairs {"sum", "mean", "max", "min", "argmax", "argmin", "norm", "dot"} do
        assert.is_true(taken["T." .. name], name)
      end
    end)
  end
end)

describe("empty tensors", function()
  it("go through elementwise functions and their gradients", function()
    for _, case in ipairs(edges.cases()) do
      local row = rows.of(case.name)
      if row.elementwise then
        local list = {}
        for i = 1, #case.inputs do list[i] = atomo.param(atomo.zeros(3, 0)) end
        local y = row.fn(unpack(list))
        assert.same({3, 0}, y:shape(), case.name)
        if case.gradients then
          y:backward(atomo.zeros(3, 0))
          assert.same({3, 0}, list[1].grad:shape(), case.name)
        end
      end
    end
  end)

  it("sum to 0; have no mean and no extreme", function()
    local t = atomo.zeros(0, 3)
    assert.equal(0, t:sum():item())
    assert.same({0, 0, 0}, t:sum(1):totable())
    assert.same({0}, t:sum(2):shape())
    assert.equal(0, t:norm():item())
    assert.equal(0, t:flatten():dot(t:flatten()):item())
    for _, name in ipairs {"mean", "max", "min", "argmax", "argmin"} do
      local ok, text = pcall(t[name], t)
      assert.is_false(ok)
      assert.matches(name .. ": nothing to reduce", text)
      assert.same({0}, (t[name](t, 2)):shape())
    end
    for _, dtype in ipairs {"i32", "u8"} do assert.equal(0, atomo.zeros(0, dtype):sum():item()) end
  end)

  it("have products", function()
    assert.same({2, 3}, atomo.zeros(2, 0):matmul(atomo.zeros(0, 3)):shape())
    assert.equal(0, atomo.full({2, 0}, 1):matmul(atomo.zeros(0, 3)):norm_value())
    assert.same({0, 3}, atomo.zeros(0, 2):matmul(atomo.zeros(2, 3)):shape())
    assert.same({0, 3}, atomo.F.linear(atomo.zeros(0, 2), atomo.zeros(3, 2)):shape())
    assert.same({0, 3}, atomo.F.softmax(atomo.zeros(0, 3)):shape())
    assert.same({0, 2, 2, 1}, atomo.F.max_pool2d(atomo.zeros(0, 4, 4, 1), 2):shape())
  end)
end)

describe("long lists", function()
  it("are joined, with gradients", function()
    local parts = {}
    for i = 1, 5003 do parts[i] = atomo.param {i} end
    local y = atomo.cat(parts)
    assert.same({5003}, y:shape())
    assert.equal(5003, y:get(5003))
    y:backward(atomo.arange(5003))
    for _, i in ipairs {1, 250, 251, 4999, 5003} do assert.equal(i - 1, parts[i].grad:item()) end
    assert.same({5003, 1}, atomo.stack(parts):shape())
  end)

  it("become tensors; too many dimensions are refused", function()
    local list, ones = {}, {}
    for i = 1, 200000 do list[i] = i end
    local t = atomo.tensor(list)
    assert.equal(200000, t:get(200000))
    assert.equal(100000.5, t:mean():item())
    assert.equal(3, t:index_select(1, {200000, 1, 2}):numel())
    assert.equal(200000, t:index_select(1, list):numel())
    for i = 1, 3000 do ones[i] = 1 end
    for _, fn in ipairs {atomo.zeros, atomo.ones, atomo.rand} do
      local ok, text = pcall(fn, unpack(ones))
      assert.is_false(ok)
      assert.matches("3000 dimensions, at most 8", text)
    end
    local one = atomo.ones(1)
    local ok, text = pcall(one.view, one, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    assert.is_false(ok)
    assert.matches("9 dimensions, at most 8", text)
    ok, text = pcall(atomo.Tensor.unsqueeze, one:view(1, 1, 1, 1, 1, 1, 1, 1), 1)
    assert.is_false(ok)
    assert.matches("9 dimensions, at most 8", text)
    for _, name in ipairs {"view", "reshape", "expand", "permute"} do
      ok, text = pcall(one[name], one, unpack(ones))
      assert.is_false(ok)
      assert.matches("3000 dimensions", text)
    end
  end)
end)
