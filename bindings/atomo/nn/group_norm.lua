--- nn.LayerNorm, nn.GroupNorm, and nn.BatchNorm1d (BatchNorm2d is in norm.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.functional"
local init = require "atomo.nn.initial"
local check = require "atomo.nn.check"
local window = require "atomo.nn.window"
local Module = require("atomo.nn.module").Module
local BatchNorm2d = require("atomo.nn.norm").BatchNorm2d

local function one(t) t:fill_(1) end
local function zero(t) t:zero_() end

---@class atomo.LayerNorm: atomo.Module
---@field weight atomo.Tensor?  [normalized_shape], starts at 1
---@field bias atomo.Tensor?    [normalized_shape], starts at 0
local LayerNorm = Module:extend "LayerNorm"

--- nn.LayerNorm(normalized_shape, {eps=1e-5, elementwise_affine=true}); the shape of the last dimensions, or the last
--- one's size.
function LayerNorm:init(normalized_shape, opts)
  opts = opts or {}
  window.check_options("LayerNorm", opts, {eps = true, elementwise_affine = true})
  self.normalized_shape = type(normalized_shape) == "table" and normalized_shape or {normalized_shape}
  if #self.normalized_shape == 0 then f.raise "LayerNorm: normalized_shape is missing, expected a size or a list" end
  for _, n in ipairs(self.normalized_shape) do check.count("LayerNorm", "normalized_shape", n) end
  self.eps = check.within("LayerNorm", "eps", opts.eps or 1e-5, 1)
  if opts.elementwise_affine ~= false then
    self.weight = init.parameter(self.normalized_shape, one)
    self.bias = init.parameter(self.normalized_shape, zero)
  end
end

function LayerNorm:forward(x) return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps) end

function LayerNorm:describe()
  return ("(%s,), eps=%g, elementwise_affine=%s"):format(table.concat(self.normalized_shape, ", "), self.eps,
    self.weight and "True" or "False")
end

---@class atomo.GroupNorm: atomo.Module
---@field weight atomo.Tensor  [channels], starts at 1
---@field bias atomo.Tensor    [channels], starts at 0
local GroupNorm = Module:extend "GroupNorm"

--- nn.GroupNorm(num_groups, num_channels, {eps=1e-5}) of [N, ..., channels].
function GroupNorm:init(num_groups, num_channels, opts)
  opts = opts or {}
  window.check_options("GroupNorm", opts, {eps = true})
  self.num_groups = check.count("GroupNorm", "num_groups", num_groups)
  self.num_channels = check.count("GroupNorm", "num_channels", num_channels)
  if num_channels % num_groups ~= 0 then
    f.raise(("GroupNorm: %d groups do not divide %d channels"):format(num_groups, num_channels))
  end
  self.eps = check.within("GroupNorm", "eps", opts.eps or 1e-5, 1)
  self.weight = init.parameter({num_channels}, one)
  self.bias = init.parameter({num_channels}, zero)
end

function GroupNorm:forward(x) return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps) end

function GroupNorm:describe() return ("%d, %d, eps=%g"):format(self.num_groups, self.num_channels, self.eps) end

--- nn.BatchNorm1d(channels, {eps=1e-5, momentum=0.1, relu=false}) of [N, channels] or [N, L, channels].
local BatchNorm1d = BatchNorm2d:extend "BatchNorm1d"

function BatchNorm1d:forward(x, residual)
  T.expect(x, "BatchNorm1d: input", "f32")
  if x:dim() ~= 2 and x:dim() ~= 3 then
    f.raise(("BatchNorm1d: input is %s, expected [N, %d] or [N, L, %d]"):format(T.shape_text(x), self.num_features,
      self.num_features))
  end
  return BatchNorm2d.forward(self, x, residual)
end

return {LayerNorm = LayerNorm, GroupNorm = GroupNorm, BatchNorm1d = BatchNorm1d}
