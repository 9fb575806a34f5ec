--- Arithmetic (+ - * / ^ %), elementwise maximum and minimum, comparisons, all with broadcasting.
-- Backward sums the gradient over broadcast dimensions.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local loss_terms = require "atomo.autograd.loss_terms"
local func = require("atomo.autograd").operator
local C, raise = f.C, f.raise
local Tensor, is_tensor = T.Tensor, T.is_tensor
local unary, binary, scalar, sum_to, mul_to = K.unary, K.binary, K.scalar, K.sum_to, K.mul_to

local tensor_add = func {
  name = "add",
  forward = function(ctx, a, b) return binary(C.ATOMO_ADD, a, b) end,
  backward = function(ctx, g)
    local a, b = ctx.inputs[1], ctx.inputs[2]
    return ctx:needs(1) and sum_to(g, a) or nil, ctx:needs(2) and sum_to(g, b) or nil
  end,
}

local tensor_sub = func {
  name = "sub",
  forward = function(ctx, a, b) return binary(C.ATOMO_SUB, a, b) end,
  backward = function(ctx, g)
    local a, b = ctx.inputs[1], ctx.inputs[2]
    local gb = ctx:needs(2) and scalar(C.ATOMO_MUL, sum_to(g, b), -1) or nil
    return ctx:needs(1) and sum_to(g, a) or nil, gb
  end,
}

local tensor_mul = func {
  name = "mul",
  forward = function(ctx, a, b)
    ctx:save(ctx:needs(2) and a or nil, ctx:needs(1) and b or nil)
    return binary(C.ATOMO_MUL, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    return ctx:needs(1) and mul_to(g, b, ctx.inputs[1]) or nil, ctx:needs(2) and mul_to(g, a, ctx.inputs[2]) or nil
  end,
}

local tensor_div = func {
  name = "div",
  forward = function(ctx, a, b)
    ctx:save(ctx:needs(2) and a or nil, b)
    return binary(C.ATOMO_DIV, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local ga = binary(C.ATOMO_DIV, g, b)
    local gb
    if ctx:needs(2) then -- -g (a / b) / b, in this order: g / b or b^2 could overflow
      local q = binary(C.ATOMO_MUL, binary(C.ATOMO_DIV, binary(C.ATOMO_DIV, a, b), b), g)
      gb = sum_to(scalar(C.ATOMO_MUL, q, -1), b)
    end
    return ctx:needs(1) and sum_to(ga, ctx.inputs[1]) or nil, gb
  end,
}

--- Returns g, halved where the operands are equal.
local function shared(g, equal)
  return binary(C.ATOMO_MUL, g, scalar(C.ATOMO_SUB, scalar(C.ATOMO_MUL, equal, 0.5), 1, true))
end

--- Makes the elementwise maximum or minimum. The operand that is not taken gets no gradient; equal operands get half
--- each; if one is NaN, both get all of it. All as in PyTorch.
local function extremum(name, op, loses)
  return func {
    name = name,
    forward = function(ctx, a, b)
      ctx:save(a, b)
      return binary(op, a, b)
    end,
    backward = function(ctx, g)
      local a, b = ctx:saved()
      g = shared(g, binary(C.ATOMO_EQ, a, b))
      return ctx:needs(1) and sum_to(binary(C.ATOMO_UNLESS, g, binary(loses, a, b)), a) or nil,
        ctx:needs(2) and sum_to(binary(C.ATOMO_UNLESS, g, binary(loses, b, a)), b) or nil
    end,
  }
end
local tensor_max = extremum("maximum", C.ATOMO_MAXIMUM, C.ATOMO_LT)
local tensor_min = extremum("minimum", C.ATOMO_MINIMUM, C.ATOMO_GT)

--- a ^ b. The derivative by a is 0 if b = 0, the derivative by b is 0 if a = 0 and b >= 0, as in PyTorch.
local tensor_pow = func {
  name = "pow",
  forward = function(ctx, a, b)
    ctx:save(a, b)
    return binary(C.ATOMO_POW, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local ga, gb
    if ctx:needs(1) then
      local slope = binary(C.ATOMO_MUL, b, binary(C.ATOMO_POW, a, scalar(C.ATOMO_SUB, b, 1)))
      ga = sum_to(binary(C.ATOMO_UNLESS, binary(C.ATOMO_MUL, g, slope), scalar(C.ATOMO_EQ, b, 0)), a)
    end
    if ctx:needs(2) then
      local slope = binary(C.ATOMO_MUL, binary(C.ATOMO_POW, a, b), unary(C.ATOMO_LOG, a))
      local flat = binary(C.ATOMO_MUL, scalar(C.ATOMO_EQ, a, 0), scalar(C.ATOMO_GE, b, 0))
      gb = sum_to(binary(C.ATOMO_UNLESS, binary(C.ATOMO_MUL, g, slope), flat), b)
    end
    return ga, gb
  end,
}

--- Raises if an element of an i32 divisor is 0.
local function check_divisor(b)
  if b:dtype() ~= "i32" then return end
  local zeros = scalar(C.ATOMO_EQ, b, 0)
  if zeros:dot_value(zeros) > 0 then raise "remainder: an i32 divisor is 0; of f32 the result would be NaN" end
end

--- a - b floor(a / b), as Lua's %: it has b's sign.
local tensor_remainder = func {
  name = "remainder",
  forward = function(ctx, a, b)
    check_divisor(b)
    ctx:save(ctx:needs(2) and a or nil, ctx:needs(2) and b or nil)
    return binary(C.ATOMO_REMAINDER, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local gb
    if ctx:needs(2) then gb = scalar(C.ATOMO_MUL, mul_to(g, binary(C.ATOMO_QUOTIENT, a, b), b), -1) end
    return ctx:needs(1) and sum_to(g, ctx.inputs[1]) or nil, gb
  end,
}

--- Makes op(a, s), or op(s, a) if `reverse`, with a number s. slope(g, a, s, reverse) returns the gradient of a;
--- reads(reverse): does it use a's values (default: yes)?
local function scalar_op(name, op, slope, reads)
  return func {
    name = name,
    forward = function(ctx, a, s, reverse)
      if not reads or reads(reverse) then ctx:save(a) end
      return scalar(op, a, s, reverse)
    end,
    backward = function(ctx, g)
      local a = ctx:saved()
      return slope(g, a, ctx.inputs[2], ctx.inputs[3])
    end,
  }
end
local scalar_add = scalar_op("add", C.ATOMO_ADD, function(g) return g end, function() return false end)
local scalar_sub = scalar_op("sub", C.ATOMO_SUB, function(g, _, _, reverse)
  return reverse and scalar(C.ATOMO_MUL, g, -1) or g
end, function() return false end)
local scalar_mul = scalar_op("mul", C.ATOMO_MUL, function(g, _, s) return scalar(C.ATOMO_MUL, g, s) end,
  function() return false end)
local scalar_div = scalar_op("div", C.ATOMO_DIV, function(g, a, s, reverse)
  if not reverse then return scalar(C.ATOMO_DIV, g, s) end
  return binary(C.ATOMO_MUL, g, binary(C.ATOMO_DIV, scalar(C.ATOMO_DIV, a, -s, true), a)) -- g (-s / a) / a
end, function(reverse) return reverse end)
local scalar_pow = scalar_op("pow", C.ATOMO_POW, function(g, a, s, reverse)
  if reverse then -- s^a
    local ga = scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, g, scalar(C.ATOMO_POW, a, s, true)), math.log(s))
    return s == 0 and binary(C.ATOMO_UNLESS, ga, scalar(C.ATOMO_GE, a, 0)) or ga
  end
  if s == 0 then return T.zeros_like(a) end
  return binary(C.ATOMO_MUL, g, scalar(C.ATOMO_MUL, scalar(C.ATOMO_POW, a, s - 1), s))
end)
local scalar_remainder_of = scalar_op("remainder", C.ATOMO_REMAINDER, function(g, a, s, reverse)
  if not reverse then return g end
  return scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, g, scalar(C.ATOMO_QUOTIENT, a, s, true)), -1)
end, function(reverse) return reverse end)
local function scalar_remainder(a, s, reverse)
  if reverse then
    check_divisor(a)
  elseif s == 0 and a:dtype() == "i32" then
    raise "remainder: the divisor of an i32 tensor is 0"
  end
  return scalar_remainder_of(a, s, reverse)
end
local function scalar_extremum(name, op, loses)
  return scalar_op(name, op, function(g, a, s)
    return binary(C.ATOMO_UNLESS, shared(g, scalar(C.ATOMO_EQ, a, s)), scalar(loses, a, s))
  end)
end
local scalar_max = scalar_extremum("maximum", C.ATOMO_MAXIMUM, C.ATOMO_LT)
local scalar_min = scalar_extremum("minimum", C.ATOMO_MINIMUM, C.ATOMO_GT)

--- Makes a method or metamethod. The terms of a loss are passed on to the result.
local function arithmetic(name, with_tensor, with_scalar)
  local function apply(a, b)
    if is_tensor(a) then
      if is_tensor(b) then return with_tensor(a, b) end
      local s = number.of(b)
      if s then return with_scalar(a, s, false) end
    elseif is_tensor(b) then
      local s = number.of(a)
      if s then return with_scalar(b, s, true) end
    end
    T.refuse_freed(b, name .. ": operand")
    raise(("%s: %s and %s, expected tensors or numbers"):format(name, type(a), type(b)))
  end
  return function(a, b, more)
    if more ~= nil then T.no_third(name) end
    local y = apply(a, b)
    if is_tensor(a) and a.terms or is_tensor(b) and b.terms then return loss_terms.pass_on(y, name, a, b) end
    return y
  end
end
Tensor.__add = arithmetic("add", tensor_add, scalar_add)
Tensor.__sub = arithmetic("sub", tensor_sub, scalar_sub)
Tensor.__mul = arithmetic("mul", tensor_mul, scalar_mul)
Tensor.__div = arithmetic("div", tensor_div, scalar_div)
Tensor.__pow = arithmetic("pow", tensor_pow, scalar_pow)
Tensor.__mod = arithmetic("remainder", tensor_remainder, scalar_remainder)
Tensor.__unm = function(a) return Tensor.__mul(a, -1) end
Tensor.add, Tensor.sub, Tensor.mul, Tensor.div = Tensor.__add, Tensor.__sub, Tensor.__mul, Tensor.__div
Tensor.pow, Tensor.remainder, Tensor.neg = Tensor.__pow, Tensor.__mod, Tensor.__unm
Tensor.maximum = arithmetic("maximum", tensor_max, scalar_max)
Tensor.minimum = arithmetic("minimum", tensor_min, scalar_min)

for name, op in pairs {eq = C.ATOMO_EQ, ne = C.ATOMO_NE, lt = C.ATOMO_LT, le = C.ATOMO_LE, gt = C.ATOMO_GT,
  ge = C.ATOMO_GE} do
  --- Comparison: f32 0 or 1.
  Tensor[name] = function(a, b)
    local s = number.of(b)
    if s then return scalar(op, a, s) end
    return binary(op, a, T.expect(b, name .. ": operand"))
  end
end
