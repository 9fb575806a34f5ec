--- nn.BatchNorm2d and nn.BatchNorm1d: batch normalisation, optionally with residual addition and ReLU in the same pass.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

---@class atomo.BatchNorm2d: atomo.Module
---@field weight atomo.Tensor?              [channels], initially 1; nil without affine
---@field bias atomo.Tensor?                [channels], initially 0; nil without affine
---@field running_mean atomo.Tensor?        buffer [channels], initially 0; nil without track_running_stats
---@field running_var atomo.Tensor?         buffer [channels], initially 1; nil without track_running_stats
---@field num_batches_tracked atomo.Tensor? buffer, a scalar; only with momentum = false
local BatchNorm2d = Module:extend "BatchNorm2d"

local defaults = {eps = 1e-5, momentum = 0.1, affine = true, track_running_stats = true, relu = false}
local rules = {eps = O.number(0, 1), momentum = true, affine = O.flag, track_running_stats = O.flag, relu = O.flag}

--- nn.BatchNorm2d(channels, {eps=1e-5, momentum=0.1, affine=true, track_running_stats=true, relu=false}); momentum =
--- false is PyTorch's None: running statistics are the averages over all batches so far. bn(x, residual) is
--- bn(x) + residual, or with relu = true the ReLU of the sum.
---@param num_features integer
---@param opts {eps: number?, momentum: number|false|nil, affine: boolean?, track_running_stats: boolean?, relu:
--- boolean?}?
---@usage nn.BatchNorm2d(3)(x):dim() --> 4
function BatchNorm2d:init(num_features, opts)
  local name = self.class_name
  opts = opts == nil and {} or opts
  window.check_options(name, opts, rules)
  num_features = check.count(name, "num_features", num_features)
  self.num_features = num_features
  for _, flag in ipairs {"affine", "track_running_stats", "relu"} do
    local v = opts[flag]
    if v == nil then v = defaults[flag] end
    self[flag] = v
  end
  if self.affine then
    self.weight = parameter.new({num_features}, parameter.one)
    self.bias = parameter.new({num_features}, parameter.zero)
  end
  self.eps = check.within(name, "eps", opts.eps or defaults.eps, 1)
  self.momentum = opts.momentum ~= false and check.within(name, "momentum", opts.momentum or defaults.momentum, 1)
  if self.track_running_stats then
    T.outside_scope(function()
      self:register_buffer("running_mean", T.zeros(num_features))
      self:register_buffer("running_var", T.ones(num_features))
      if not self.momentum then self:register_buffer("num_batches_tracked", T.zeros()) end
    end)
  end
end

--- Returns options of F.batch_norm for a layer with momentum = false, or without running statistics (which always uses
--- those of the batch).
local function options(self)
  local o = {training = true, eps = self.eps, relu = self.relu}
  if self.track_running_stats then
    if not self.num_batches_tracked then
      f.raise(("%s: momentum was set to %s; only a layer made with {momentum = false} counts its batches"):format(
        self.class_name, brief(self.momentum)))
    end
    o.momentum = 1 / (self.num_batches_tracked:item() + 1)
    o.running_mean, o.running_var = self.running_mean, self.running_var
  end
  return o
end

--- In the usual case the module itself is the options table: training, momentum, eps, relu and the running statistics
--- are its fields.
function BatchNorm2d:forward(x, residual)
  local o = self
  if not self.track_running_stats or (self.training and not self.momentum) then o = options(self) end
  local y = F.batch_norm_with(x, self.weight, self.bias, residual, o)
  if o ~= self and o.momentum then self.num_batches_tracked:add_(1) end -- an input that is refused does not count
  return y
end

function BatchNorm2d:describe()
  return ("%d, eps=%g, momentum=%s%s%s%s"):format(self.num_features, self.eps,
    self.momentum and ("%g"):format(self.momentum) or "None", self.affine and "" or ", affine=False",
    self.track_running_stats and "" or ", track_running_stats=False", self.relu and ", relu=True" or "")
end

--- nn.BatchNorm1d(channels, options of BatchNorm2d), for inputs [N, channels] or [N, L, channels].
local BatchNorm1d = BatchNorm2d:extend "BatchNorm1d"

function BatchNorm1d:forward(x, residual)
  T.expect(x, "BatchNorm1d: input", "f32")
  if x:dim() ~= 2 and x:dim() ~= 3 then
    f.raise(("BatchNorm1d: input is %s, expected [N, %d] or [N, L, %d]"):format(T.shape_text(x), self.num_features,
      self.num_features))
  end
  return BatchNorm2d.forward(self, x, residual)
end

return {BatchNorm1d = BatchNorm1d, BatchNorm2d = BatchNorm2d}
