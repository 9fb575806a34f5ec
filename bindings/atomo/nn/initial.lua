--- nn.init: initial values from the seeded stream of atomo.manual_seed: same seed, same weights.
-- Fans of a weight [out, kh, kw, in/groups] or [out, in]: fan_in = kh kw in/groups, fan_out = out kh kw.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"

local M = {}

local function fans(w)
  local s = w:shape()
  if #s < 2 then f.raise(("init: weight %s has no fan, expected 2 dimensions or more"):format(T.shape_text(w))) end
  local field = 1
  for i = 2, #s - 1 do field = field * s[i] end
  return field * s[#s], s[1] * field
end

local function fan_of(w, mode)
  local fan_in, fan_out = fans(w)
  if mode ~= nil and mode ~= "fan_in" and mode ~= "fan_out" then
    f.raise(("init: mode is '%s', expected fan_in or fan_out"):format(tostring(mode)))
  end
  return mode == "fan_out" and fan_out or fan_in
end

--- He et al. 2015 for ReLU: normal with variance 2 / fan (fan_in unless mode says fan_out).
---@param w atomo.Tensor
---@param mode "fan_in"|"fan_out"|nil
function M.kaiming_normal_(w, mode)
  local std = math.sqrt(2 / fan_of(w, mode))
  return autograd.no_grad(function() return w:normal_(0, std) end)
end

--- Uniform on +-1/sqrt(fan): PyTorch's default for Linear (weight and bias).
function M.uniform_(t, fan)
  local bound = 1 / math.sqrt(fan)
  return autograd.no_grad(function() return t:uniform_(-bound, bound) end)
end

--- Glorot & Bengio 2010: uniform with variance 2 / (fan_in + fan_out).
function M.xavier_uniform_(w)
  local fan_in, fan_out = fans(w)
  local bound = math.sqrt(6 / (fan_in + fan_out))
  return autograd.no_grad(function() return w:uniform_(-bound, bound) end)
end

--- A parameter of that shape; `fill` gets the tensor.
---@param shape number[]
---@param fill fun(t: atomo.Tensor)
function M.parameter(shape, fill)
  local t = T.outside_scope(T.empty, shape)
  fill(t)
  return autograd.param(t)
end

return M
