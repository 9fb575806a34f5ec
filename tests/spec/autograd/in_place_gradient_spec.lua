-- In-place changes: every tensor method whose name ends in "_" is recorded, or refused if a gradient would be lost. The
-- names come from the class, so that a new method without a case here fails.
local atomo = require "atomo"
local rules, flags = require("atomo.autograd.ops.in_place").rules, require("atomo.autograd.ops.in_place").flags

--- Makes distinct values, 0.2 apart, starting at `from`. Values from 0.5 and from 0.6 stay distinct in gradcheck.
local function positive(from, ...)
  local t = atomo.empty(...)
  local p, n = t:data(), t:numel()
  for k = 0, n - 1 do p[k] = from + 0.2 * (k * 5 % math.max(n, 7)) end
  return t
end

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok, "no error")
  return text
end

--- Indices for additions along the last dimension of t, the first one twice; of t's shape if `whole`.
local function indices(t, whole)
  local list = {}
  for k = 1, t:size(-1) do list[k] = math.max(1, k - 1) end
  local index = atomo.tensor(list, "i32")
  return whole and index:expand(t:shape()) or index
end

-- name -> {call(target, operand or nil), "both": a tensor or a number, "tensor", "number" or "none"}
local cases = {
  add_ = {function(t, u) t:add_(u) end, "both"},
  sub_ = {function(t, u) t:sub_(u) end, "both"},
  mul_ = {function(t, u) t:mul_(u) end, "both"},
  div_ = {function(t, u) t:div_(u) end, "both"},
  pow_ = {function(t, u) t:pow_(u) end, "both"},
  maximum_ = {function(t, u) t:maximum_(u) end, "both"},
  minimum_ = {function(t, u) t:minimum_(u) end, "both"},
  copy_ = {function(t, u) t:copy_(u) end, "both"},
  axpy_ = {function(t, u) t:axpy_(-2, u) end, "tensor"},
  index_add_ = {function(t, u) t:index_add_(-1, indices(t), u:expand(t:shape())) end, "tensor"},
  scatter_add_ = {function(t, u) t:scatter_add_(-1, indices(t, true), u:expand(t:shape())) end, "tensor"},
  fill_ = {function(t) t:fill_(2) end, "number"},
  zero_ = {function(t) t:zero_() end, "none"},
  exp_ = {function(t) t:exp_() end, "none"}, log_ = {function(t) t:log_() end, "none"},
  sqrt_ = {function(t) t:sqrt_() end, "none"}, abs_ = {function(t) t:abs_() end, "none"},
  neg_ = {function(t) t:neg_() end, "none"}, relu_ = {function(t) t:relu_() end, "none"},
  tanh_ = {function(t) t:tanh_() end, "none"}, sigmoid_ = {function(t) t:sigmoid_() end, "none"},
  clamp_ = {function(t) t:clamp_(0.6, 1.2) end, "none"},
  uniform_ = {function(t) t:uniform_(0, 1) end, "none"},
  normal_ = {function(t) t:normal_(0, 1) end, "none"},
}

local names = {}
for name, method in pairs(atomo.Tensor) do
  if type(name) == "string" and name:match "^[^_].*[^_]_$" and type(method) == "function" and not flags[name] then
    names[#names + 1] = name
  end
end
table.sort(names)

--- Targets made from a tensor a that requires a gradient: function(a) -> target, tensor for the loss.
local targets = {
  ["a result"] = function(a)
    local y = a * 1
    return y, y
  end,
  ["a view"] = function(a)
    local y = a * 1
    return y:t():narrow(1, 2, 2):select(2, 1), y
  end,
  ["a base with views"] = function(a)
    local y = a * 1
    local view = y:narrow(1, 1, 2):t()
    return y, view
  end,
}

--- Operands for a target, by kind.
local operands = {
  function(t) return positive(0.6, t:shape()) end,
   function(t) return positive(0.6, 1) end,
}

describe("a change in place", function()
  it("has a case here for every name, and the guard knows them all", function()
    for _, name in ipairs(names) do assert.is_truthy(cases[name], name .. " has no case") end
    for name in pairs(cases) do assert.is_truthy(atomo.Tensor[name], name) end
    for name in pairs(rules) do assert.is_truthy(atomo.Tensor[name], name) end
    assert.is_true(#names >= 22)
  end)

  for _, name in ipairs(names) do
    local call, kind = cases[name][1], cases[name][2]
    local function on(target, a, u)
      local t, y = targets[target](a)
      call(t, u)
      return y * y
    end

    for target in pairs(targets) do
      if rules[name] then
        it(("by %s of %s is recorded"):format(name, target), function()
          local inputs = kind == "tensor" and {} or {{positive(0.5, 3, 3), kind == "both" and 1.6 or nil}}
          if kind == "both" or kind == "tensor" then
            for _, make in ipairs(operands) do
              local a = positive(0.5, 3, 3)
              inputs[#inputs + 1] = {a, make((targets[target](a)))}
            end
          end
          for _, given in ipairs(inputs) do
            local tensors = {given[1], atomo.is_tensor(given[2]) and given[2] or nil}
            local ok, worst = atomo.gradcheck(function(a, u) return on(target, a, u or given[2]) end, tensors,
              {tolerance = 4e-3})
            assert.is_true(ok, ("worst relative error %g"):format(worst))
          end
        end)
      else
        it(("by %s of %s is refused"):format(name, target), function()
          assert.matches(name .. ": has no gradient", message(on, target, atomo.param(positive(0.5, 3, 3))))
        end)
      end
    end

    it(("by %s of a parameter, or a view of one, is refused unless under no_grad"):format(name), function()
      for _, view in ipairs {function(w) return w end, function(w) return w:select(1, 2) end,
        function(w) return atomo.no_grad(w.select, w, 1, 2) end} do
        local w = atomo.param(positive(0.5, 3, 3))
        local t, before = view(w), w:totable()
        local u = (kind == "both" or kind == "tensor") and atomo.ones(1) or nil
        assert.matches("^[^:]+:%d+: " .. name .. ": .*cannot be changed in place", message(call, t, u))
        assert.same(before, w:totable())
        local y = w * w
        atomo.no_grad(call, t, u)
        assert.is_true(w.requires_grad and w.node == nil)
        assert.matches("changed in place since", message(function() y:sum():backward() end))
      end
    end)

    it(("by %s of a :detach()ed alias counts as a change of what it shares"):format(name), function()
      local w = atomo.param(positive(0.5, 3))
      local x = w * 1
      local y = x * x
      call(x:detach(), (kind == "both" or kind == "tensor") and positive(0.6, 3) or nil)
      assert.matches("mul: .*changed in place since", message(function() y:sum():backward() end))
    end)

    if kind == "both" or kind == "tensor" then
      it(("by %s keeps the operand's gradient where only that requires one"):format(name), function()
        for _, make in ipairs {function() return positive(0.2, 2, 3) end, function() return positive(0.2, 3) end} do
          local base = positive(0.5, 2, 3)
          local ok, worst = atomo.gradcheck(function(u)
            local whole, part = base:clone(), base:clone()
            call(whole, u + 0.1)
            call(part:narrow(1, 1, 1), u:mean() + 0.13)
            return whole * part
          end, {make()})
          assert.is_true(ok, ("worst relative error %g"):format(worst))
        end
      end)

      it(("by %s takes operands that share the target's memory as they were"):format(name), function()
        local function gradient(w, as_operand)
          local y = w * 1
          call(y, as_operand(y:t()))
          call(y, as_operand(y:select(1, 2)))
          call(y:narrow(1, 1, 2), as_operand(y:narrow(1, 2, 2)));
          (y * y):sum():backward()
          return w.grad:totable()
        end
        local a = positive(0.5, 3, 3)
        assert.same(gradient(atomo.param(a:clone()), function(u) return u:clone() end),
          gradient(atomo.param(a), function(u) return u end))
      end)

      it(("by %s of integers refuses an operand that requires a gradient"):format(name), function()
        local w = atomo.param {1, 2, 3}
        assert.matches("is i32, which carries no gradient", message(call, atomo.zeros(3, "i32"), w))
      end)
    end
  end

  it("of one element is recorded, refused or allowed as any other", function()
    local w = atomo.param {{1, 2}, {3, 4}}
    local y = w * 1
    y:set(1, 2, 7);
    (y * y):sum():backward()
    assert.same({{2, 0}, {6, 8}}, w.grad:totable())
    assert.matches("cannot be changed in place", message(w.set, w, 1, 1, 5))
    atomo.no_grad(w.set, w, 1, 1, 5)
    assert.equal(5, w:get(1, 1))
  end)

  it("gives the operand its gradient, also through a view", function()
    local w, v = atomo.param {1, 2, 3}, atomo.tensor {4, 5, 6}
    local y = atomo.zeros(3)
    y:add_(w * 2);
    (y * v):sum():backward()
    assert.same({8, 10, 12}, w.grad:totable())
    w.grad = nil
    local table_ = atomo.zeros(2, 3)
    local first = table_:select(1, 1)
    table_:select(1, 2):copy_(w);
    (table_ * v):sum():backward()
    assert.same({4, 5, 6}, w.grad:totable())
    assert.is_truthy((first * 1).requires_grad) -- a view taken before the write requires a gradient, too
  end)

  it("is refused where the view was made under no_grad or by a user-defined operator", function()
    local w = atomo.param(positive(0.5, 4))
    local y = w * 1
    local blind = atomo.no_grad(y.narrow, y, 1, 1, 2)
    assert.matches("add_: this view was made under no_grad", message(blind.add_, blind, 1))
    local part_of_it = blind:narrow(1, 1, 1)
    assert.matches("add_: this view was made under no_grad", message(part_of_it.add_, part_of_it, 1))
    local head = atomo.func {name = "head", forward = function(_, x) return x:narrow(1, 1, 2) end,
      backward = function(_, g) return atomo.cat({g, atomo.zeros(2)}, 1) end}
    local part = head(y)
    assert.matches("add_: this view was made by a user%-defined operator", message(part.add_, part, 1))
    y:mul_(2)
    assert.matches("a user%-defined operator's result .*changed in place", message(function() return part * 1 end))
    assert.matches("made under no_grad .*changed in place", message(function() return blind * 1 end))
  end)

  it("inside a user-defined operator's forward must leave arguments that require a gradient", function()
    local bad = atomo.func {name = "bad", forward = function(_, x) return x:mul_(2) end,
      backward = function(_, g) return g * 2 end}
    assert.matches("bad: forward changed argument 1 %[2%] in place", message(bad, atomo.param {1, 2}))
  end)

  it("whose operand does not fit leaves the target and its graph alone", function()
    local w = atomo.param {1, 2, 3}
    local y = w * 2
    assert.matches("add_: the operand does not repeat to the target", message(y.add_, y, w:view(3, 1)))
    y:sum():backward()
    assert.same({2, 2, 2}, w.grad:totable())
  end)

  it("reaches views that were made before it, in any order of use", function()
    local w, u = atomo.param {1, 2, 3, 4}, atomo.param {5, 6}
    local y = w * 1
    local left, right = y:narrow(1, 1, 2), y:narrow(1, 3, 2)
    y:mul_(3)
    left:copy_(right) -- an operand that shares the memory, not used since the change
    y:sum():backward()
    assert.same({0, 0, 6, 6}, w.grad:totable())
    local x = atomo.zeros(3)
    local view = x:narrow(1, 2, 2)
    x:narrow(1, 1, 2):copy_(u)
    local first = atomo.scope(function() return view * 1 end) -- the view outlives the scope, and so does its node
    assert.is_truthy(first.requires_grad)
    view:sum():backward()
    assert.same({0, 1}, u.grad:totable())
  end)

  it("is refused for a frozen parameter too, where the operand requires a gradient", function()
    local w, frozen = atomo.param {1, 2}, atomo.param({3, 4}):requires_grad_(false)
    assert.matches("add_: .*cannot be changed in place", message(frozen.add_, frozen, w))
    assert.same({4, 5}, frozen:add_(1):totable())
    assert.is_nil(frozen.node)
    assert.is_false(w:requires_grad_(false).requires_grad)
  end)

  it("leaves indices without a gradient: they are integers", function()
    local values, index = atomo.param {{1, 3}, {4, 2}}:max(2)
    assert.is_true(values.requires_grad)
    assert.is_nil(index.requires_grad)
  end)

  it("guards methods that are added later", function()
    atomo.Tensor.twice_ = function(t) return t:mul_(2) end
    local y = atomo.param {1} * 1
    local text = message(y.twice_, y)
    rawset(atomo.Tensor, "twice_", nil)
    assert.matches("twice_: has no gradient", text)
  end)
end)
