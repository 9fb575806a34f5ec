--- In-place methods and autograd. Every tensor method whose name ends in "_" is replaced by a guarded one. While
-- recording, if the target or an operand requires a gradient, the guard records a method that has a rule below and
-- refuses any other. A rule is the out-of-place operator with the same result: the target takes its values and node.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local loss_terms = require "atomo.autograd.loss_terms"
local autograd = require "atomo.autograd"
local views = require "atomo.autograd.views"
local C, check, raise = f.C, f.check, f.raise
local Tensor, is_tensor, tracked = T.Tensor, T.is_tensor, autograd.tracked

-- ---- views and their bases -----------------------------------------------------------------------------------------

--- Allocates zeros with the layout of a base; returns two tensors over them, shaped as the base and as the view.
local function laid_out(layout)
  local buffer, b, v = T.zeros(layout.extent), layout.base.h, layout.view.h
  return K.make_view(buffer, b.shape, b.stride, layout.start, b.ndim),
    K.make_view(buffer, v.shape, v.stride, layout.start + layout.offset, v.ndim)
end

--- The node of a view whose base was changed in place after the view was made: base -> view.
autograd.view_of = autograd.operator {
  name = "view_of",
  forward = function(ctx, base, layout) return layout.view:detach() end,
  backward = function(ctx, g)
    local base, part = laid_out(ctx.inputs[2])
    local h, shape = part.h, {}
    for d = 1, h.ndim do shape[d] = h.stride[d - 1] == 0 and 1 or h.shape[d - 1] end -- stride 0: made by expand
    part = K.make_view(part, K.dims(shape), h.stride, 0, h.ndim)
    check(C.atomo_copy(part.h, K.sum_to(g, part).h))
    return base:contiguous()
  end,
}

--- The node of a base after one of its views was changed in place: (base, new values of the view) -> base.
local overlay = autograd.operator {
  name = "overlay",
  forward = function(ctx, base, part, layout) return layout.base:detach() end,
  backward = function(ctx, g)
    local base, part = laid_out(ctx.inputs[3])
    check(C.atomo_copy(base.h, g.h))
    local gp = T.empty(part:shape())
    check(C.atomo_copy(gp.h, part.h))
    check(C.atomo_fill(part.h, 0))
    return ctx:needs(1) and base:clone() or nil, ctx:needs(2) and gp or nil
  end,
}

-- ---- rules -------------------------------------------------------------------------------------------------------

local function nothing() return nil end

local filled = autograd.operator {
  name = "fill_", backward = nothing,
  forward = function(ctx, t, v) return T.empty_like(t):fill_(v) end,
}

local copied = autograd.operator {
  name = "copy_",
  forward = function(ctx, t, u)
    local y = T.empty_like(t)
    check(C.atomo_copy(y.h, u.h))
    return y
  end,
  backward = function(ctx, g) return nil, ctx:needs(2) and K.sum_to(g, ctx.inputs[2]) or nil end,
}

-- name -> {operator, does its backward read the target's values?}
local rules = {
  fill_ = {filled, false},
  zero_ = {function(t) return filled(t, 0) end, false},
  copy_ = {function(t, u)
    if is_tensor(u) then return copied(t, u) end
    return filled(t, u)
  end, false},
  add_ = {Tensor.add, false},
  sub_ = {Tensor.sub, false},
  index_add_ = {Tensor.index_add, false},
  scatter_add_ = {Tensor.scatter_add, false},
  axpy_ = {function(t, alpha, x) return t + T.expect(x, "axpy_: x") * number.expect(alpha, "axpy_: alpha") end, false},
}
for name in ("mul div pow maximum minimum exp log sqrt abs neg relu tanh sigmoid clamp"):gmatch "%S+" do
  rules[name .. "_"] = {Tensor[name], true}
end

-- ---- the guard ---------------------------------------------------------------------------------------------------

--- Raises if a change of t cannot be recorded.
local function check_target(name, t)
  local root = t.base or t
  if (root.requires_grad or root.is_parameter) and not root.node then
    raise(("%s: a tensor that requires a gradient cannot be changed in place while recording%s; use atomo.no_grad"):
      format(name, root ~= t and ": this is a view of a parameter" or ""))
  end
  if t.base and t.link ~= "view" then
    raise(("%s: this view was made %s, so that the change cannot be recorded; make it again, or change a :clone()"):
      format(name, t.link == "no_grad" and "under no_grad" or "by a user-defined operator"))
  end
  if t.h.dtype ~= C.ATOMO_F32 then
    raise(("%s: the target is %s, which carries no gradient, and the operand requires one; use its :detach()"):
      format(name, t:dtype()))
  end
end

--- Returns a tensor with t's present node and, if with_values, a copy of its present values.
local function as_it_is(t, with_values)
  local old = t:detach()
  if with_values then old = old:clone() end
  old.requires_grad, old.node, old.slot = tracked(t), t.node, t.slot
  return old
end

--- Returns operand a; a copy if it shares the memory of the target t, which is about to change.
local function operand(t, a)
  if is_tensor(a) and a.h.storage == t.h.storage then return as_it_is(a, true) end
  return a
end

--- Gives t the node of its new values y. If t is a view, its base gets a node too, and all its views become stale.
local function adopt_node(t, y)
  local base = t.base
  if not base then
    t.requires_grad, t.node, t.slot = true, y.node, y.slot
    t.rebased = (t.rebased or 0) + 1
    return
  end
  local whole = overlay(base, y, views.layout(base, t))
  base.requires_grad, base.node, base.slot = true, whole.node, whole.slot
  base.rebased = (base.rebased or 0) + 1
  tracked(t)
end

local function record(name, rule, t, a, b, c)
  check_target(name, t)
  local y = rule[1](as_it_is(t, rule[2]), operand(t, a), operand(t, b), operand(t, c))
  if T.shape_text(y) ~= T.shape_text(t) then
    raise(("%s: the operand does not repeat to the target: %s for %s"):format(name, T.shape_text(y), T.shape_text(t)))
  end
  check(C.atomo_copy(t.h, y.h))
  C.atomo_tensor_touch(t.h)
  adopt_node(t, y)
  return t
end

local function needs_tape(v)
  if not is_tensor(v) then return false end
  return tracked(v) or v.base and v.base.requires_grad or false
end

--- Returns the method `raw` with the guard described above. The terms of a loss follow its change.
local function guarded(name, raw)
  local rule, plain = rules[name], name:sub(1, -2)
  local function change(t, a, b, c)
    if not (T.recording() and (needs_tape(t) or needs_tape(a) or needs_tape(b) or needs_tape(c))) then
      return raw(t, a, b, c)
    end
    T.expect(t, name .. ": target")
    if rule then return record(name, rule, t, a, b, c) end
    check_target(name, t)
    raise(("%s: has no gradient: a tensor that requires one cannot be changed by it, or be its operand, while "
      .. "recording; use atomo.no_grad, or :detach()"):format(name))
  end
  return function(t, a, b, c)
    if not (is_tensor(t) and t.terms or is_tensor(a) and a.terms) then return change(t, a, b, c) end
    local terms = loss_terms.of(plain, t, a)
    change(t, a, b, c)
    t.terms = terms
    return t
  end
end

--- t:set(...) with the guard: an element is changed as a view of the tensor.
local function guarded_set(raw)
  return function(t, ...)
    if not (T.recording() and needs_tape(t)) then return raw(t, ...) end
    local n, one = select("#", ...), t
    if n ~= t:dim() + 1 or type((select(n, ...))) ~= "number" then return raw(t, ...) end -- raises
    for i = 1, n - 1 do one = one:select(1, (select(i, ...))) end
    one:fill_((select(n, ...)))
    return t
  end
end

local flags = {requires_grad_ = true} -- names that end in "_" but change no element

local function is_in_place(name, value)
  return type(name) == "string" and name:match "^[^_].*[^_]_$" and type(value) == "function" and not flags[name]
end

local names = {}
for name, method in pairs(Tensor) do
  if is_in_place(name, method) then names[#names + 1] = name end
end
for _, name in ipairs(names) do Tensor[name] = guarded(name, Tensor[name]) end
Tensor.set = guarded_set(Tensor.set)

-- A method that is added later is guarded too.
getmetatable(Tensor).__newindex = function(class, name, value)
  rawset(class, name, is_in_place(name, value) and guarded(name, value) or value)
end

return {rules = rules, flags = flags}
