--- Elementwise activations, each with a forward and a backward kernel: leaky_relu, gelu, silu, tanh, sigmoid, softplus,
-- elu, selu, mish, hardtanh, relu6, hardswish, hardsigmoid, logsigmoid.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local where = require("atomo.autograd.ops").where
local C, check, raise = f.C, f.check, f.raise
local wrap, out, dense = T.wrap, T.out, S.dense

local F = {}

--- Makes an activation. keep: the tensor that backward needs, "input" or "result". sloped: has it a slope as a second
--- argument?
local function activation(name, kind, keep, sloped)
  return func {
    name = name,
    forward = function(ctx, x, a)
      local o = out()
      x = dense(x, name .. ": input")
      check(C.atomo_activation(kind, x.h, sloped and a or 0, o))
      local y = wrap(o[0])
      ctx:save(keep == "result" and y:detach() or x)
      return y
    end,
    backward = function(ctx, gy)
      local o = out()
      local slope = sloped and ctx.inputs[2] or 0
      check(C.atomo_activation_backward(kind, ctx:saved().h, slope, dense(gy, name .. ": gy").h, o))
      return wrap(o[0])
    end,
  }
end

local leaky_relu = activation("leaky_relu", C.ATOMO_LEAKY_RELU, "input", true)

--- x if x > 0, else negative_slope (default 0.01) * x.
---@param x atomo.Tensor
---@param negative_slope number?
---@return atomo.Tensor
---@usage F.leaky_relu(atomo.tensor {-2}, 0.5):item() --> -1
function F.leaky_relu(x, negative_slope)
  if negative_slope ~= nil and type(negative_slope) ~= "number" then
    raise(("leaky_relu: negative_slope is a %s, expected a number"):format(type(negative_slope)))
  end
  return leaky_relu(x, negative_slope or 0.01)
end

local gelu = activation("gelu", C.ATOMO_GELU, "input")
local gelu_tanh = activation("gelu", C.ATOMO_GELU_TANH, "input")

--- x Phi(x), Phi the normal distribution function; approximate = "tanh": PyTorch's approximation by tanh.
---@param x atomo.Tensor
---@param approximate "none"|"tanh"|nil
---@return atomo.Tensor
---@usage F.gelu(atomo.zeros(1)):item() --> 0
function F.gelu(x, approximate)
  if approximate == nil or approximate == "none" then return gelu(x) end
  if approximate == "tanh" then return gelu_tanh(x) end
  raise(("gelu: approximate is '%s', expected none or tanh"):format(brief(approximate)))
end

--- x sigmoid(x)
F.silu = activation("silu", C.ATOMO_SILU, "input")
F.tanh = activation("tanh", C.ATOMO_ACT_TANH, "result")
F.sigmoid = activation("sigmoid", C.ATOMO_ACT_SIGMOID, "result")

--- Returns option v of an activation, a finite number; the default for nil.
local function option(who, name, v, default)
  if v == nil then return default end
  if type(v) ~= "number" or v - v ~= 0 then
    raise(("%s: %s is %s, expected a number"):format(who, name, number.text(v)))
  end
  return v
end

local softplus = activation("softplus", C.ATOMO_SOFTPLUS, "input", true)

--- log(1 + e^(beta x)) / beta, a smooth ReLU; x itself where beta x is above threshold.
---@param x atomo.Tensor
---@param beta number?       above 0, default 1
---@param threshold number?  default 20
---@return atomo.Tensor
---@usage F.softplus(atomo.zeros(1)):item() > 0.69 --> true
function F.softplus(x, beta, threshold)
  beta, threshold = option("softplus", "beta", beta, 1), option("softplus", "threshold", threshold, 20)
  if beta <= 0 then raise(("softplus: beta is %g, expected a number above 0"):format(beta)) end
  if beta == 1 then return softplus(x, threshold) end
  local scaled = T.expect(x, "softplus: input", "f32") * beta
  return where(scaled:gt(threshold), x, softplus(scaled, threshold) / beta)
end

--- log sigmoid(x), without underflow.
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.logsigmoid(atomo.zeros(1)):item() < -0.69 --> true
function F.logsigmoid(x) return -softplus(-T.expect(x, "logsigmoid: input", "f32"), 20) end

local elu = activation("elu", C.ATOMO_ELU, "input", true)

--- x if x > 0, else alpha (e^x - 1).
---@param x atomo.Tensor
---@param alpha number?  default 1
---@return atomo.Tensor
---@usage F.elu(atomo.tensor {2}):item() --> 2
function F.elu(x, alpha) return elu(x, option("elu", "alpha", alpha, 1)) end

--- ELU with the alpha and the scale for which activations keep mean 0 and variance 1 [Klambauer et al. 2017].
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.selu(atomo.ones(1)):item() > 1.05 --> true
function F.selu(x) return elu(x, 1.6732632423543772) * 1.0507009873554805 end

--- x tanh(softplus(x))
F.mish = activation("mish", C.ATOMO_MISH, "input")
--- x relu6(x + 3) / 6
F.hardswish = activation("hardswish", C.ATOMO_HARD_SWISH, "input")
--- relu6(x + 3) / 6
F.hardsigmoid = activation("hardsigmoid", C.ATOMO_HARD_SIGMOID, "input")

local hardtanh = func {
  name = "hardtanh",
  forward = function(ctx, x, lo, hi)
    local o = out()
    x = dense(x, "hardtanh: input")
    check(C.atomo_clamp(x.h, lo, hi, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local x, lo, hi = ctx:saved(), ctx.inputs[2], ctx.inputs[3]
    return K.binary(C.ATOMO_WHERE, K.binary(C.ATOMO_WHERE, g, K.scalar(C.ATOMO_GT, x, lo)),
      K.scalar(C.ATOMO_LT, x, hi))
  end,
}

--- x, clipped to min_val and max_val. At the bounds its gradient is 0, unlike that of t:clamp.
---@param x atomo.Tensor
---@param min_val number?  default -1
---@param max_val number?  default 1, above min_val
---@return atomo.Tensor
---@usage F.hardtanh(atomo.tensor {3}):item() --> 1
function F.hardtanh(x, min_val, max_val)
  local lo, hi = option("hardtanh", "min_val", min_val, -1), option("hardtanh", "max_val", max_val, 1)
  if lo >= hi then raise(("hardtanh: min_val is %g, max_val %g, expected a larger one"):format(lo, hi)) end
  return hardtanh(x, lo, hi)
end

--- x, clipped to 0 and 6.
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.relu6(atomo.tensor {7}):item() --> 6
function F.relu6(x) return hardtanh(x, 0, 6) end

return F
