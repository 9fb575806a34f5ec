--- Elementwise functions: exp, log, tanh, clamp, ..., and their in-place forms.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.ops.kernels"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local Tensor, wrap, out = T.Tensor, T.wrap, T.out
local unary, binary, scalar = K.unary, K.binary, K.scalar

--- slope(g, x, y) gives the gradient from the input x and the result y.
local function elementwise(name, op, slope)
  Tensor[name] = func {
    name = name,
    forward = function(ctx, x)
      T.expect(x, name .. ": tensor")
      local y = unary(op, x)
      ctx:save(x)
      ctx.y = y.h ~= nil and y:detach() or nil -- an alias: keeping y itself would make a cycle
      return y
    end,
    backward = function(ctx, g)
      local x = ctx:saved()
      return slope(g, x, ctx.y)
    end,
  }
end
local function times(g, s) return binary(C.ATOMO_MUL, g, s) end
elementwise("exp", C.ATOMO_EXP, function(g, _, y) return times(g, y) end)
elementwise("log", C.ATOMO_LOG, function(g, x) return binary(C.ATOMO_DIV, g, x) end)
elementwise("sqrt", C.ATOMO_SQRT, function(g, _, y) return scalar(C.ATOMO_MUL, binary(C.ATOMO_DIV, g, y), 0.5) end)
elementwise("abs", C.ATOMO_ABS, function(g, x) return times(g, unary(C.ATOMO_SIGN, x)) end)
elementwise("square", C.ATOMO_SQUARE, function(g, x) return scalar(C.ATOMO_MUL, times(g, x), 2) end)
elementwise("reciprocal", C.ATOMO_RECIPROCAL, function(g, _, y)
  return scalar(C.ATOMO_MUL, times(times(g, y), y), -1)
end)
elementwise("sin", C.ATOMO_SIN, function(g, x) return times(g, unary(C.ATOMO_COS, x)) end)
elementwise("cos", C.ATOMO_COS, function(g, x) return scalar(C.ATOMO_MUL, times(g, unary(C.ATOMO_SIN, x)), -1) end)
elementwise("tanh", C.ATOMO_TANH, function(g, _, y)
  return times(g, scalar(C.ATOMO_SUB, times(y, y), 1, true))
end)
elementwise("sigmoid", C.ATOMO_SIGMOID, function(g, _, y)
  return times(times(g, y), scalar(C.ATOMO_SUB, y, 1, true))
end)
elementwise("relu", C.ATOMO_RELU, function(g, _, y)
  return binary(C.ATOMO_UNLESS, g, scalar(C.ATOMO_LE, y, 0)) -- of NaN all, as in PyTorch
end)
elementwise("sign", C.ATOMO_SIGN, T.zeros_like)
elementwise("floor", C.ATOMO_FLOOR, T.zeros_like)

Tensor.clamp = func {
  name = "clamp",
  forward = function(ctx, x, lo, hi)
    local o = out()
    check(C.atomo_clamp(x.h, lo or -math.huge, hi or math.huge, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local x = ctx:saved()
    local lo, hi = ctx.args[2] or -math.huge, ctx.args[3] or math.huge
    return binary(C.ATOMO_WHERE, g, times(scalar(C.ATOMO_GE, x, lo), scalar(C.ATOMO_LE, x, hi)))
  end,
}

-- In-place forms of the elementwise functions: t:exp_() and so on.
for name, op in pairs {exp_ = C.ATOMO_EXP, log_ = C.ATOMO_LOG, sqrt_ = C.ATOMO_SQRT, abs_ = C.ATOMO_ABS,
  neg_ = C.ATOMO_NEG, relu_ = C.ATOMO_RELU, tanh_ = C.ATOMO_TANH, sigmoid_ = C.ATOMO_SIGMOID} do
  Tensor[name] = function(self)
    T.changing(self, name)
    local o = out()
    o[0] = self.h
    check(C.atomo_unary(op, self.h, o))
    return self
  end
end

function Tensor:clamp_(lo, hi)
  T.changing(self, "clamp_")
  local o = out()
  o[0] = self.h
  check(C.atomo_clamp(self.h, lo or -math.huge, hi or math.huge, o))
  return self
end
