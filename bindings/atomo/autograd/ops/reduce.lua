--- Reductions: sum, mean, max, min, argmax, argmin, dot, norm.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local Tensor, wrap, out, dimension = T.Tensor, T.wrap, T.out, T.dimension
local unary, binary, scalar, view_as = K.unary, K.binary, K.scalar, K.view_as

--- Raises unless keepdim is nil or a boolean: in other libraries sum(1, 2) sums over two dimensions.
local function check_flag(who, keepdim)
  if keepdim ~= nil and type(keepdim) ~= "boolean" then
    raise(("%s: keepdim is %s, expected true or false (one dimension at a time)"):format(who, number.text(keepdim)))
  end
end

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

local result = ffi.new "double[1]"

--- Inner product as a Lua number, accumulated in double; not recorded.
---@param u atomo.Tensor
---@return number
---@usage t:dot_value(t) --> 30
function Tensor:dot_value(u)
  check(C.atomo_dot(T.self_handle(self), T.expect(u, "dot: operand").h, result))
  return f.number(result)
end

--- p-norm of all elements as a Lua number, accumulated in double; not recorded. p > 0, default 2, math.huge allowed.
---@param p number?
---@return number
---@usage atomo.tensor({3, 4}):norm_value() --> 5
function Tensor:norm_value(p)
  check(C.atomo_norm(T.self_handle(self), p == nil and 2 or number.expect(p, "norm_value: p"), result))
  return f.number(result)
end

Tensor.dot = func {
  name = "dot",
  forward = function(ctx, a, b)
    ctx:save(ctx:needs(2) and a or nil, ctx:needs(1) and b or nil)
    local v = a:dot_value(b)
    return a:dtype() == "f32" and rounded(v) or T.full({}, v, "i32")
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local s = g:item()
    return ctx:needs(1) and scalar(C.ATOMO_MUL, b, s) or nil, ctx:needs(2) and scalar(C.ATOMO_MUL, a, s) or nil
  end,
}

--- Returns t / n for an n that may be outside f32's range: t is first scaled by a power of two, which is exact.
local function over(t, n)
  local _, e = math.frexp(n)
  local scale = n < math.huge and 2 ^ math.max(-126, math.min(126, -e)) or 1
  return scalar(C.ATOMO_DIV, scale == 1 and t or scalar(C.ATOMO_MUL, t, scale), n * scale)
end

local norm = func {
  name = "norm",
  forward = function(ctx, t, p)
    ctx:save(t)
    ctx.value = t:norm_value(p)
    return rounded(ctx.value)
  end,
  backward = function(ctx, g)
    local t, p, n = ctx:saved(), ctx.inputs[2] or 2, ctx.value
    local s = g:item()
    if n == 0 then return T.zeros_like(t) end
    if p == math.huge then
      local hit = n == n and scalar(C.ATOMO_EQ, unary(C.ATOMO_ABS, t), n) or binary(C.ATOMO_NE, t, t)
      return scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, hit, unary(C.ATOMO_SIGN, t)), s / hit:dot_value(hit))
    end
    local ratio = over(t, n)
    if p == 2 then return scalar(C.ATOMO_MUL, ratio, s) end
    local power = scalar(C.ATOMO_POW, unary(C.ATOMO_ABS, ratio), p - 1) -- Inf at 0 if p < 1: the gradient there is 0
    local slope = scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, power, unary(C.ATOMO_SIGN, t)), s)
    return binary(C.ATOMO_UNLESS, slope, scalar(C.ATOMO_EQ, t, 0))
  end,
}

--- p-norm of all elements (default p = 2), a scalar tensor with a gradient.
---@param p number? default 2; math.huge: the largest magnitude
---@param dim nil refused: the norm is of all elements
---@return atomo.Tensor a scalar
---@usage atomo.tensor({3, 4}):norm():item() --> 5
function Tensor:norm(p, dim)
  if dim ~= nil then raise "norm: takes no dimension, it is of all elements; t:square():sum(dim):sqrt() is by one" end
  return norm(self, p ~= nil and number.expect(p, "norm: p") or nil)
end
