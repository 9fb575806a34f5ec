--- nn.BatchNorm2d: batch normalisation, with ReLU and a residual addition in the same pass where wanted.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.functional"
local init = require "atomo.nn.initial"
local window = require "atomo.nn.window"
local Module = require("atomo.nn.module").Module

---@class atomo.BatchNorm2d: atomo.Module
---@field weight atomo.Tensor       [channels], starts at 1
---@field bias atomo.Tensor         [channels], starts at 0
---@field running_mean atomo.Tensor buffer, starts at 0
---@field running_var atomo.Tensor  buffer, starts at 1
local BatchNorm2d = Module:extend "BatchNorm2d"

local defaults = {eps = 1e-5, momentum = 0.1, relu = false}

local function positive(name, v, most)
  if type(v) ~= "number" or not (v >= 0 and v <= most) then
    f.raise(("BatchNorm2d: %s is %s, expected 0 to %g"):format(name, tostring(v), most))
  end
  return v
end

--- nn.BatchNorm2d(channels, {eps=1e-5, momentum=0.1, relu=false}); bn(x, residual) is relu(bn(x) + residual) with relu.
function BatchNorm2d:init(num_features, opts)
  opts = opts or {}
  window.check_options("BatchNorm2d", opts, defaults)
  if type(num_features) ~= "number" or num_features % 1 ~= 0 or num_features < 1 then
    f.raise(("BatchNorm2d: num_features is %s, expected a whole number >= 1"):format(tostring(num_features)))
  end
  self.num_features = num_features
  self.weight = init.parameter({num_features}, function(t) t:fill_(1) end)
  self.bias = init.parameter({num_features}, function(t) t:zero_() end)
  T.outside_scope(function()
    self:register_buffer("running_mean", T.zeros(num_features))
    self:register_buffer("running_var", T.ones(num_features))
  end)
  self.eps = positive("eps", opts.eps or defaults.eps, 1)
  self.momentum = positive("momentum", opts.momentum or defaults.momentum, 1)
  self.relu = opts.relu or false
end

--- The module itself is the options table: training, momentum, eps, relu and the running statistics are its fields.
function BatchNorm2d:forward(x, residual)
  return F.batch_norm_with(x, self.weight, self.bias, residual, self)
end

function BatchNorm2d:describe()
  return ("%d, eps=%g, momentum=%g%s"):format(self.num_features, self.eps, self.momentum,
    self.relu and ", relu=True" or "")
end

return {BatchNorm2d = BatchNorm2d}
