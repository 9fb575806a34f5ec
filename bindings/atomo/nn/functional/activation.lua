--- Elementwise activations, each with a forward and a backward kernel: leaky_relu, gelu, silu, tanh, sigmoid.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
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

return F
