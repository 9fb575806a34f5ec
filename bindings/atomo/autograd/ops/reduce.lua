--- Reductions: sum, mean, max, min, amax, amin, argmax, argmin, dot.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local ffi, C, check = f.ffi, f.C, f.check
local Tensor, wrap, out, dimension = T.Tensor, T.wrap, T.out, T.dimension
local binary, scalar, view_as, check_flag = K.binary, K.scalar, K.view_as, K.check_flag

local function reduce(op, t, d, keepdim)
  local o = out()
  check(C.atomo_reduce(op, T.self_handle(t), d, keepdim and 1 or 0, o))
  return wrap(o[0])
end

--- Returns g, reduced over dimension d, as a view with size 1 there, so that it broadcasts to t.
local function keep_dims(g, t, d)
  local sizes = t:shape()
  if d < 0 then
    for i = 1, #sizes do sizes[i] = 1 end
  else
    sizes[d + 1] = 1
  end
  return view_as(g, sizes) -- never nil: any strides allow a dimension of size 1
end

local function summing(name, op)
  local apply = func {
    name = name,
    forward = function(ctx, t, d, keepdim) return reduce(op, t, d, keepdim) end,
    backward = function(ctx, g)
      local t, d = ctx.inputs[1], ctx.inputs[2]
      local gt = T.empty_like(t)
      check(C.atomo_copy(gt.h, keep_dims(g, t, d).h))
      if op == C.ATOMO_MEAN then gt:mul_((d < 0 and 1 or t.h.numel / t.h.shape[d]) / t.h.numel) end
      return gt
    end,
  }
  Tensor[name] = function(self, dim, keepdim)
    check_flag(name, keepdim)
    return apply(self, dim and dimension(self, dim, name) or -1, keepdim)
  end
end
summing("sum", C.ATOMO_SUM)
summing("mean", C.ATOMO_MEAN)

--- Returns a number as an f32 scalar tensor. Unlike T.full, it makes Inf of a number beyond f32.
local function rounded(v)
  local t = T.empty {}
  t:data()[0] = v
  return t
end

--- The gradient of the maximum or minimum of all elements: elements equal to it share it evenly, as in PyTorch.
local function to_equals(g, t, value)
  local equal = value == value and scalar(C.ATOMO_EQ, t, value) or binary(C.ATOMO_NE, t, t)
  local share = g:item() / equal:dot_value(equal)
  return binary(C.ATOMO_WHERE, rounded(share), equal)
end

local function extreme(name, op, arg_op)
  local apply = func {
    name = name,
    forward = function(ctx, t, d, keepdim)
      local y, index = reduce(op, t, d, keepdim), reduce(arg_op, t, d, keepdim)
      ctx:save(index, d < 0 and t or nil)
      ctx.value = d < 0 and t:dtype() == "f32" and y:item() or nil
      return y, scalar(C.ATOMO_ADD, index, 1)
    end,
    backward = function(ctx, g)
      local index, all = ctx:saved()
      local t, d = ctx.inputs[1], ctx.inputs[2]
      if d < 0 then return to_equals(g, all, ctx.value) end
      local gt = T.zeros_like(t)
      local p, q, k = gt:data(), g:contiguous():data(), index:data()
      local n, inner = t.h.shape[d], 1
      for i = d + 1, t.h.ndim - 1 do inner = inner * t.h.shape[i] end
      for r = 0, g.h.numel - 1 do
        local o, i = math.floor(r / inner), r % inner
        p[(o * n + k[r]) * inner + i] = q[r]
      end
      return gt
    end,
  }
  --- Without dim: the maximum (minimum) of all elements, a scalar. With dim: values and 1-based indices (i32) along
  --- dim.
  Tensor[name] = function(self, dim, keepdim)
    check_flag(name, keepdim)
    local values, index = apply(self, dim and dimension(self, dim, name) or -1, keepdim)
    if dim then return values, index end
    return values
  end
  Tensor["arg" .. name] = function(self, dim, keepdim)
    check_flag("arg" .. name, keepdim)
    return scalar(C.ATOMO_ADD, reduce(arg_op, self, dim and dimension(self, dim, "arg" .. name) or -1, keepdim), 1)
  end
end
extreme("max", C.ATOMO_MAX_OF, C.ATOMO_ARGMAX)
extreme("min", C.ATOMO_MIN_OF, C.ATOMO_ARGMIN)

--- Makes amax or amin: the values of max or min along a dimension, whose gradient equal elements share evenly.
local function shared_extreme(name, op, of_all)
  local apply = func {
    name = name,
    forward = function(ctx, t, d)
      local y = reduce(op, t, d, true)
      ctx:save(t, y:detach())
      return y
    end,
    backward = function(ctx, g)
      local t, y = ctx:saved()
      local equal = binary(C.ATOMO_EQ, t, y)
      return binary(C.ATOMO_MUL, equal, binary(C.ATOMO_DIV, g, reduce(C.ATOMO_SUM, equal, ctx.inputs[2], true)))
    end,
  }
  Tensor[name] = function(self, dim, keepdim)
    check_flag(name, keepdim)
    if dim == nil then return of_all(self, nil, keepdim) end
    local d = dimension(self, dim, name)
    local y = apply(self, d)
    return keepdim and y or y:squeeze(d + 1)
  end
end
shared_extreme("amax", C.ATOMO_MAX_OF, Tensor.max)
shared_extreme("amin", C.ATOMO_MIN_OF, Tensor.min)

local result = ffi.new "double[1]"

--- Inner product as a Lua number, accumulated in double; not recorded.
---@param u atomo.Tensor
---@return number
---@usage t:dot_value(t) --> 30
function Tensor:dot_value(u)
  check(C.atomo_dot(T.self_handle(self), T.expect(u, "dot: operand").h, result))
  return f.number(result)
end

Tensor.dot = func {
  name = "dot",
  forward = function(ctx, a, b)
    ctx:save(ctx:needs(2) and a or nil, ctx:needs(1) and b or nil)
    local v = Tensor.dot_value(a, b)
    return a:dtype() == "f32" and rounded(v) or T.full({}, v, "i32")
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local s = g:item()
    return ctx:needs(1) and scalar(C.ATOMO_MUL, b, s) or nil, ctx:needs(2) and scalar(C.ATOMO_MUL, a, s) or nil
  end,
}
