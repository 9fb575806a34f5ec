-- In-place operators whose operand shares the target's storage give the same result as with a copy of the operand; a
-- target whose elements share memory is refused. The names come from the class, so that a new operator without a case
-- fails.
local atomo = require "atomo"
local flags = require("atomo.autograd.ops.in_place").flags -- names of methods that change no element
local Tensor = getmetatable(atomo.zeros(1)).__index

--- name -> how to call it with an operand; false: it takes no tensor.
local calls = {
  axpy_ = function(t, u) return t:axpy_(-2, u) end,
  fill_ = false, zero_ = false, uniform_ = false, normal_ = false, clamp_ = false, exp_ = false, log_ = false,
  sqrt_ = false, abs_ = false, neg_ = false, relu_ = false, tanh_ = false, sigmoid_ = false,
}
for name in ("copy_ add_ sub_ mul_ div_ pow_ maximum_ minimum_"):gmatch "%S+" do
  calls[name] = function(t, u) return t[name](t, u) end
end
--- Returns the positions n, n - 1, ... 1 of t's first dimension, i32 [n].
local function backwards(t)
  local size = t:size(1)
  return (size - atomo.arange(size)):to "i32"
end
function calls.index_add_(t, u) return t:index_add_(1, backwards(t), u:expand(t:shape())) end
function calls.scatter_add_(t, u)
  local sizes = {t:size(1)}
  for d = 2, t:dim() do sizes[d] = 1 end
  return t:scatter_add_(1, backwards(t):reshape(sizes):expand(t:shape()), u:expand(t:shape()))
end
local arguments = {fill_ = {3}, clamp_ = {2, 5}}

local function names()
  local list = {}
  for name, value in pairs(Tensor) do
    if type(value) == "function" and name:find "[^_]_$" and not flags[name] then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

--- {shape of the storage, target, operand}
local n = 260 -- enough for several threads, and for pieces of a long row
local overlaps = {
  {"the same view", {4, 4}, function(t) return t end, function(t) return t:detach() end},
  {"its transpose", {4, 4}, function(t) return t end, function(t) return t:t() end},
  {"a large transpose", {n, n}, function(t) return t end, function(t) return t:t() end},
  {"the transpose as target", {4, 4}, function(t) return t:t() end, function(t) return t end},
  {"the same transpose", {4, 4}, function(t) return t:t() end, function(t) return t:t() end},
  {"what lies before", {8}, function(t) return t:narrow(1, 2, 7) end, function(t) return t:narrow(1, 1, 7) end},
  {"what lies after", {8}, function(t) return t:narrow(1, 1, 7) end, function(t) return t:narrow(1, 2, 7) end},
  {"a long row, shifted", {n * n}, function(t) return t:narrow(1, 4, n * n - 3) end,
    function(t) return t:narrow(1, 1, n * n - 3) end},
  {"rows, shifted", {6, 3}, function(t) return t:narrow(1, 2, 5) end, function(t) return t:narrow(1, 1, 5) end},
  {"columns, shifted", {3, 6}, function(t) return t:narrow(2, 1, 5) end, function(t) return t:narrow(2, 2, 5) end},
  {"its first row", {4, 4}, function(t) return t end, function(t) return t:select(1, 1) end},
  {"its last row", {4, 4}, function(t) return t end, function(t) return t:select(1, 4) end},
  {"its column", {4, 4}, function(t) return t end, function(t) return t:narrow(2, 2, 1) end},
  {"one element", {4, 4}, function(t) return t end, function(t) return t:select(1, 2):select(1, 3) end},
  {"an expanded row", {4, 4}, function(t) return t end, function(t) return t:narrow(1, 3, 1):expand(4, 4) end},
  {"dimensions in another order", {3, 3, 3}, function(t) return t end, function(t) return t:permute(3, 2, 1) end},
  {"two orders", {3, 3, 3}, function(t) return t:permute(2, 3, 1) end, function(t) return t:permute(3, 1, 2) end},
  {"another column", {4, 4}, function(t) return t:select(2, 1) end, function(t) return t:select(2, 2) end},
  {"another shape", {4, 3}, function(t) return t:view(3, 4) end, function(t) return t:t() end},
  {"no element", {0, 3}, function(t) return t end, function(t) return t:narrow(2, 1, 1) end},
}

--- Positive, and different everywhere.
local function storage(shape, dtype)
  local count = 1
  for _, size in ipairs(shape) do count = count * size end
  return (atomo.arange(count) + 1):to(dtype):reshape(shape)
end

describe("in-place operators", function()
  for _, name in ipairs(names()) do
    it(name .. " has a case here", function() assert.is_not_nil(calls[name]) end)
  end

  for name, call in pairs(calls) do
    for _, case in ipairs(call and overlaps or {}) do
      it(("%s reads %s before it is overwritten"):format(name, case[1]), function()
        local dtypes = (name == "div_" or name == "pow_" or name == "axpy_") and {"f32"} or {"f32", "i32"}
        if name == "copy_" then dtypes[3] = "u8" end
        for _, dtype in ipairs(dtypes) do
          local got = storage(case[2], (dtype == "u8" and case[2][1] >= n) and "i32" or dtype)
          local want, operand = got:clone(), case[4](got):clone()
          call(case[3](want), operand)
          local target = case[3](got)
          assert.equal(target, call(target, case[4](got)))
          assert.equal(want:bytes(), got:bytes())
        end
      end)
    end

    it(name .. " refuses a target whose elements share memory, and leaves it alone", function()
      for _, expand in ipairs {function(t) return t:expand(5, 3) end, function(t) return t:t():expand(3, 2) end,
        function(t) return t:unsqueeze(2):expand(1, 4, 3) end} do
        local t = storage({1, 3}, "f32")
        local target = expand(t)
        local ok, text = pcall(function()
          if call then call(target, atomo.ones(1)) else target[name](target, unpack(arguments[name] or {})) end
        end)
        assert.is_false(ok)
        assert.matches("in_place_spec.lua:%d+: .*share memory %(an expanded view%)", text)
        assert.same({{1, 2, 3}}, t:totable())
      end
    end)

    it(name .. " works on every view as on its clone", function()
      for _, view in ipairs {function(t) return t:t() end, function(t) return t:narrow(2, 2, 2) end,
        function(t) return t:select(2, 2) end, function(t) return t:narrow(1, 2, 1) end} do
        local t = storage({3, 4}, "f32")
        local want = view(t):clone()
        local function run(x)
          atomo.manual_seed(1)
          if call then return call(x, atomo.full({1}, 2)) end
          return x[name](x, unpack(arguments[name] or {}))
        end
        run(want)
        run(view(t))
        assert.same(want:totable(), view(t):totable())
      end
    end)
  end

  it("with overlapping operands give the expected values", function()
    local a = atomo.tensor {{1, 2}, {3, 4}}
    a:add_(a:t())
    assert.same({{2, 5}, {5, 8}}, a:totable())
    local c = atomo.arange(8)
    c:narrow(1, 2, 7):copy_(c:narrow(1, 1, 7))
    assert.same({0, 0, 1, 2, 3, 4, 5, 6}, c:totable())
    local x = atomo.tensor {{1, 2}, {5, 7}}
    x:sub_(x:select(1, 1))
    assert.same({{0, 0}, {4, 5}}, x:totable())
  end)

  it("allocate nothing for a view of their own after the first calls", function()
    local t = atomo.rand(64, 64)
    local same, row = t:detach(), t:select(1, 1)
    local function step()
      t:add_(same):sub_(row):mul_(0.5):exp_():clamp_(0, 1)
    end
    step()
    local before = atomo.mem().system_allocs
    for _ = 1, 20 do step() end
    assert.equal(before, atomo.mem().system_allocs)
  end)
end)
