--- The parameters of layers, and how those of Linear, Conv2d and the recurrent layers begin. (nn.init is public.)
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"

local M = {}

--- A parameter of that shape; `fill` gets the tensor.
---@param shape number[]
---@param fill fun(t: atomo.Tensor)
function M.new(shape, fill)
  local t = T.outside_scope(T.empty, shape)
  fill(t)
  return autograd.param(t)
end

--- Uniform on +-1/sqrt(fan): what PyTorch's kaiming_uniform_(w, a = sqrt(5)) comes to, and its start of biases.
function M.uniform(fan)
  local bound = 1 / math.sqrt(fan)
  return function(t) t:uniform_(-bound, bound) end
end

function M.one(t) t:fill_(1) end
function M.zero(t) t:zero_() end

return M
