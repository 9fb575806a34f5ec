--- Elementwise functions: exp, log, tanh, clamp, ..., and their in-place forms.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local Tensor, wrap, out = T.Tensor, T.wrap, T.out
local unary, binary, scalar = K.unary, K.binary, K.scalar

--- Makes an elementwise function. keep: "input", "result" or nil, the tensor t that slope(g, t) needs for the gradient.
local function elementwise(name, op, keep, slope)
  Tensor[name] = func {
    name = name,
    forward = function(ctx, x)
      T.expect(x, name .. ": tensor")
      local y = unary(op, x)
      if keep == "input" then ctx:save(x) end
      if keep == "result" then ctx:save(y:detach()) end -- a view, since keeping y itself would make a cycle
      return y
    end,
    backward = function(ctx, g) return slope(g, (ctx:saved())) end,
  }
end
local function times(g, s) return binary(C.ATOMO_MUL, g, s) end
elementwise("exp", C.ATOMO_EXP, "result", function(g, y) return times(g, y) end)
elementwise("log", C.ATOMO_LOG, "input", function(g, x) return binary(C.ATOMO_DIV, g, x) end)
elementwise("sqrt", C.ATOMO_SQRT, "result", function(g, y)
  return scalar(C.ATOMO_MUL, binary(C.ATOMO_DIV, g, y), 0.5)
end)
elementwise("abs", C.ATOMO_ABS, "input", function(g, x) return times(g, unary(C.ATOMO_SIGN, x)) end)
elementwise("square", C.ATOMO_SQUARE, "input", function(g, x) return scalar(C.ATOMO_MUL, times(g, x), 2) end)
elementwise("reciprocal", C.ATOMO_RECIPROCAL, "result", function(g, y)
  return scalar(C.ATOMO_MUL, times(times(g, y), y), -1)
end)
elementwise("sin", C.ATOMO_SIN, "input", function(g, x) return times(g, unary(C.ATOMO_COS, x)) end)
elementwise("cos", C.ATOMO_COS, "input", function(g, x)
  return scalar(C.ATOMO_MUL, times(g, unary(C.ATOMO_SIN, x)), -1)
end)
elementwise("tanh", C.ATOMO_TANH, "result", function(g, y)
  return times(g, scalar(C.ATOMO_SUB, times(y, y), 1, true))
end)
elementwise("sigmoid", C.ATOMO_SIGMOID, "result", function(g, y)
  return times(times(g, y), scalar(C.ATOMO_SUB, y, 1, true))
end)
elementwise("relu", C.ATOMO_RELU, "result", function(g, y)
  return binary(C.ATOMO_UNLESS, g, scalar(C.ATOMO_LE, y, 0)) -- the gradient passes where y is NaN, as in PyTorch
end)
elementwise("sign", C.ATOMO_SIGN, nil, T.zeros_like)
elementwise("floor", C.ATOMO_FLOOR, nil, T.zeros_like)
elementwise("ceil", C.ATOMO_CEIL, nil, T.zeros_like)
elementwise("round", C.ATOMO_ROUND, nil, T.zeros_like)
elementwise("trunc", C.ATOMO_TRUNC, nil, T.zeros_like)

--- Returns the bounds of a clamp as numbers, -Inf and Inf for nil.
local function bounds(who, lo, hi)
  return lo == nil and -math.huge or number.expect(lo, who .. ": lower bound"),
    hi == nil and math.huge or number.expect(hi, who .. ": upper bound")
end

Tensor.clamp = func {
  name = "clamp",
  forward = function(ctx, x, lo, hi)
    local o, from, to = out(), bounds("clamp", lo, hi)
    check(C.atomo_clamp(T.self_handle(x), from, to, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local x = ctx:saved()
    local lo, hi = bounds("clamp", ctx.inputs[2], ctx.inputs[3])
    return binary(C.ATOMO_WHERE, g, times(scalar(C.ATOMO_GE, x, lo), scalar(C.ATOMO_LE, x, hi)))
  end,
}

--- Returns the elements, those below lo as lo.
---@param lo number
---@return atomo.Tensor
---@usage t:clamp_min(2):get(1, 1) --> 2
function Tensor:clamp_min(lo) return Tensor.clamp(self, number.expect(lo, "clamp_min: lower bound")) end

--- Returns the elements, those above hi as hi.
---@param hi number
---@return atomo.Tensor
---@usage t:clamp_max(2):get(2, 2) --> 2
function Tensor:clamp_max(hi) return Tensor.clamp(self, nil, number.expect(hi, "clamp_max: upper bound")) end

-- In-place forms of the elementwise functions: t:exp_() and so on.
for name, op in pairs {exp_ = C.ATOMO_EXP, log_ = C.ATOMO_LOG, sqrt_ = C.ATOMO_SQRT, abs_ = C.ATOMO_ABS,
  neg_ = C.ATOMO_NEG, relu_ = C.ATOMO_RELU, tanh_ = C.ATOMO_TANH, sigmoid_ = C.ATOMO_SIGMOID} do
  Tensor[name] = function(self)
    T.begin_change(self, name)
    local o = out()
    o[0] = self.h
    check(C.atomo_unary(op, self.h, o))
    return self
  end
end

--- Clips every element to lo and hi, in place.
---@param lo number? default: no limit
---@param hi number? default: no limit
---@return atomo.Tensor self
---@usage t:clone():clamp_(2, 3):get(1, 1) --> 2
function Tensor:clamp_(lo, hi)
  lo, hi = bounds("clamp_", lo, hi)
  T.begin_change(self, "clamp_")
  local o = out()
  o[0] = self.h
  check(C.atomo_clamp(self.h, lo, hi, o))
  return self
end
