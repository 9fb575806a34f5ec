-- view, reshape, squeeze, unsqueeze and flatten share storage wherever strides allow, as in PyTorch; else they copy
-- (reshape) or say so (view).
local atomo = require "atomo"

local function shares(t, view)
  local before = t:sum():item()
  view:copy_(view + 1)
  return t:sum():item() == before + view:numel()
end

local function counted(...) return atomo.arange(select(1, ...) * select(2, ...) * select(3, ...)):view(...) end

describe("a view of a strided tensor", function()
  local function cases()
    local t = counted(2, 3, 4)
    local turned = t:transpose(1, 3) -- [4,3,2]
    local cut = t:narrow(3, 2, 2)    -- [2,3,2], rows apart
    return t, {
      {"unsqueeze in front", turned, turned:unsqueeze(1), {1, 4, 3, 2}},
      {"unsqueeze inside", turned, turned:unsqueeze(2), {4, 1, 3, 2}},
      {"unsqueeze behind", turned, turned:unsqueeze(-1), {4, 3, 2, 1}},
      {"squeeze", turned, turned:narrow(2, 2, 1):squeeze(2), {4, 2}, turned:narrow(2, 2, 1)},
      {"squeeze of all", turned, turned:narrow(2, 2, 1):squeeze(), {4, 2}, turned:narrow(2, 2, 1)},
      {"view that joins dimensions", cut, cut:view(6, 2), {6, 2}},
      {"view that splits one", turned, turned:view(2, 2, 3, 2), {2, 2, 3, 2}},
      {"view that splits and keeps", cut, cut:view(2, 3, 1, 2, 1), {2, 3, 1, 2, 1}},
      {"reshape that joins", cut, cut:reshape(6, 2), {6, 2}},
    }
  end
  local _, list = cases()
  for i = 1, #list do
    it("is no copy: " .. list[i][1], function()
      local t, all = cases()
      local _, from, view, shape, source = unpack(all[i])
      source = source or from
      assert.same(shape, view:shape())
      assert.same(source:contiguous():view(-1):totable(), view:contiguous():view(-1):totable())
      assert.is_true(shares(t, view))
    end)
  end

  it("of an expanded tensor keeps the stride of 0", function()
    local row = atomo.tensor {1, 2, 3}
    local wide = row:expand(4, 3)
    local view = wide:unsqueeze(2):squeeze(2)
    row:set(1, 9)
    assert.equal(9, view:get(4, 1))
    assert.same({2, 2, 3}, wide:view(2, 2, 3):shape())
    assert.equal(9, wide:view(2, 2, 3):get(2, 2, 1))
  end)

  it("is refused by view and copied by reshape where strides allow none", function()
    local t = counted(2, 3, 4):transpose(1, 3)
    local ok, text = pcall(t.view, t, 24)
    assert.is_false(ok)
    assert.matches("%[4,3,2%] is not contiguous and cannot be seen as %[24%] without a copy, use :reshape%(%)", text)
    local copy = t:reshape(24)
    assert.equal(12, copy:get(2))
    copy:zero_()
    assert.equal(12, t:get(1, 1, 2))
  end)

  it("agrees with a copy for every way to split and join", function()
    local base = counted(4, 6, 4)
    local sources = {base, base:transpose(1, 2), base:transpose(2, 3), base:narrow(3, 1, 2), base:narrow(2, 2, 4),
      base:narrow(1, 2, 2), base:select(2, 3), base:narrow(2, 1, 1), base:select(1, 1):unsqueeze(2):expand(6, 3, 4)}
    local viewed = 0
    for _, t in ipairs(sources) do
      local n = t:numel()
      for a = 1, n do
        for b = 1, n / a do
          if n % a == 0 and (n / a) % b == 0 then
            local sizes = {a, b, n / a / b}
            local want = t:contiguous():view(sizes):totable()
            assert.same(want, t:reshape(sizes):totable())
            local ok, view = pcall(t.view, t, sizes)
            if ok then
              viewed = viewed + 1
              assert.same(want, view:totable())
            end
          end
        end
      end
    end
    assert.is_true(viewed > 100)
  end)

  it("passes gradients on", function()
    local p = atomo.param(counted(2, 3, 4):contiguous())
    local weights = atomo.arange(24):view(6, 4)
    ;(p:transpose(1, 2):reshape(6, 4) * weights):sum():backward()
    assert.same(weights:view(3, 2, 4):transpose(1, 2):totable(), p.grad:totable())
  end)

  it("of an empty tensor is one too", function()
    assert.same({0, 3}, atomo.zeros(3, 0):t():view(0, 3):shape())
    assert.same({1, 0}, atomo.zeros(0):unsqueeze(1):shape())
  end)
end)
