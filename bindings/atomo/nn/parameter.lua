--- Makes the parameters of layers with their initial values. (The public functions for users are in nn.init.)
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"

local M = {}

--- Makes a parameter of that shape; fill(tensor) sets its initial value.
---@param shape number[]
---@param fill fun(t: atomo.Tensor)
function M.new(shape, fill)
  local t = T.outside_scope(T.empty, shape)
  fill(t)
  return autograd.param(t)
end

--- Returns a fill function: uniform in +-1/sqrt(fan). PyTorch's kaiming_uniform_(w, a = sqrt(5)) and its initial biases
--- have this distribution.
function M.uniform(fan)
  local bound = 1 / math.sqrt(fan)
  return function(t) t:uniform_(-bound, bound) end
end

function M.one(t) t:fill_(1) end
function M.zero(t) t:zero_() end

return M
