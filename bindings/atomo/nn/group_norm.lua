--- nn.LayerNorm and nn.GroupNorm (batch norms are in norm.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

---@class atomo.LayerNorm: atomo.Module
---@field weight atomo.Tensor?  [normalized_shape], initially 1; nil without elementwise_affine
---@field bias atomo.Tensor?    [normalized_shape], initially 0
local LayerNorm = Module:extend "LayerNorm"

--- nn.LayerNorm(normalized_shape, {eps=1e-5, elementwise_affine=true}). normalized_shape: the sizes of the last
--- dimensions, or one size.
---@param normalized_shape integer|integer[]
---@param opts {eps: number?, elementwise_affine: boolean?}?
---@usage nn.LayerNorm(3)(x):dim() --> 4
function LayerNorm:init(normalized_shape, opts)
  opts = opts == nil and {} or opts
  window.check_options("LayerNorm", opts, {eps = O.number(0, 1), elementwise_affine = O.flag})
  local sizes = type(normalized_shape) == "table" and normalized_shape or {normalized_shape}
  if #sizes == 0 then f.raise "LayerNorm: normalized_shape is missing, expected a size or a list" end
  self.normalized_shape = {}
  for i, n in ipairs(sizes) do self.normalized_shape[i] = check.count("LayerNorm", "normalized_shape", n) end
  self.eps = check.within("LayerNorm", "eps", opts.eps or 1e-5, 1)
  if opts.elementwise_affine ~= false then
    self.weight = parameter.new(self.normalized_shape, parameter.one)
    self.bias = parameter.new(self.normalized_shape, parameter.zero)
  end
end

function LayerNorm:forward(x) return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps) end

function LayerNorm:describe()
  return ("(%s,), eps=%g, elementwise_affine=%s"):format(table.concat(self.normalized_shape, ", "), self.eps,
    self.weight and "True" or "False")
end

---@class atomo.GroupNorm: atomo.Module
---@field weight atomo.Tensor?  [channels], initially 1; nil without affine
---@field bias atomo.Tensor?    [channels], initially 0
local GroupNorm = Module:extend "GroupNorm"

--- nn.GroupNorm(num_groups, num_channels, {eps=1e-5, affine=true}), for inputs [N, ..., channels].
---@param num_groups integer a divisor of num_channels
---@param num_channels integer
---@param opts {eps: number?, affine: boolean?}?
---@usage nn.GroupNorm(3, 3)(x):dim() --> 4
function GroupNorm:init(num_groups, num_channels, opts)
  opts = opts == nil and {} or opts
  window.check_options("GroupNorm", opts, {eps = O.number(0, 1), affine = O.flag})
  num_groups = check.count("GroupNorm", "num_groups", num_groups)
  self.num_groups = num_groups
  num_channels = check.count("GroupNorm", "num_channels", num_channels)
  self.num_channels = num_channels
  if num_channels % num_groups ~= 0 then
    f.raise(("GroupNorm: %d groups do not divide %d channels"):format(num_groups, num_channels))
  end
  self.eps = check.within("GroupNorm", "eps", opts.eps or 1e-5, 1)
  if opts.affine ~= false then
    self.weight = parameter.new({num_channels}, parameter.one)
    self.bias = parameter.new({num_channels}, parameter.zero)
  end
end

function GroupNorm:forward(x)
  T.expect(x, "GroupNorm: input", "f32")
  if x:dim() < 2 or x:size(-1) ~= self.num_channels then
    f.raise(("GroupNorm: input is %s, expected [N, ..., %d]"):format(T.shape_text(x), self.num_channels))
  end
  return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
end

function GroupNorm:describe()
  return ("%d, %d, eps=%g%s"):format(self.num_groups, self.num_channels, self.eps, self.weight and "" or
    ", affine=False")
end

return {LayerNorm = LayerNorm, GroupNorm = GroupNorm}
