--- nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.GlobalAvgPool, nn.Upsample over [N,H,W,C].
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

--- Makes MaxPool2d(kernel, {stride=kernel, padding=0, dilation=1, ceil_mode=false, return_indices=false}) and
--- AvgPool2d(kernel, {stride=kernel, padding=0, ceil_mode=false, count_include_pad=true, divisor_override=nil}).
--- F.max_pool2d and F.avg_pool2d describe the options. Sizes are numbers or {height, width}.
local function pool(name, layer, op)
  local class = Module:extend(name)
  class.fixed = window.pooling_options(layer)
  function class:init(kernel, opts)
    self.opts = opts == nil and {} or opts
    self.window = window.pooling(layer, kernel, opts)
  end
  function class:forward(x) return op(x, self.window, self.opts) end
  function class:describe()
    local w = self.window
    return ("kernel_size=(%d, %d), stride=(%d, %d), padding=(%d, %d)%s"):format(w.kernel[0], w.kernel[1], w.stride[0],
      w.stride[1], w.padding[0], w.padding[1], w.ceil_mode ~= 0 and ", ceil_mode=True" or "")
  end
  return class
end

--- [N,H,W,C] -> [N,C]
---@param ... nil refused
---@usage nn.GlobalAvgPool()(x):size(2) --> 3
local GlobalAvgPool = Module:extend "GlobalAvgPool"
function GlobalAvgPool:init(...) O.none("GlobalAvgPool", ...) end
function GlobalAvgPool:forward(x) return F.global_avg_pool(x) end

--- AdaptiveAvgPool2d(size): [N,H,W,C] -> [N,size,size,C], or size = {height, width}.
---@param output_size integer|integer[]
---@param ... nil refused
---@usage nn.AdaptiveAvgPool2d(2)(x):size(2) --> 2
local AdaptiveAvgPool2d = Module:extend "AdaptiveAvgPool2d"
function AdaptiveAvgPool2d:init(output_size, ...)
  O.none("AdaptiveAvgPool2d", ...)
  self.output_size = {window.pair("AdaptiveAvgPool2d", "output_size", output_size, nil, 1)}
end
function AdaptiveAvgPool2d:forward(x) return F.adaptive_avg_pool2d(x, self.output_size) end
function AdaptiveAvgPool2d:describe() return ("output_size=(%d, %d)"):format(unpack(self.output_size)) end

--- nn.Upsample{scale_factor = 2} or {size = {h, w}}: a layer of F.interpolate, which describes the options.
---@param opts {size: any, scale_factor: any, mode: "nearest"|"bilinear"|nil, align_corners: boolean?}
---@param ... nil refused
---@usage nn.Upsample {scale_factor = 2} (x):size(2) --> 16
local Upsample = Module:extend "Upsample"
function Upsample:init(opts, ...)
  O.none("Upsample", ...)
  window.resizing("Upsample", opts)
  self.opts = opts
end
function Upsample:forward(x) return F.interpolate(x, self.opts) end
function Upsample:describe() return ("mode='%s'"):format(self.opts.mode or "nearest") end

return {
  Upsample = Upsample,
  MaxPool2d = pool("MaxPool2d", "max_pool2d", F.max_pool2d),
  AvgPool2d = pool("AvgPool2d", "avg_pool2d", F.avg_pool2d),
  AdaptiveAvgPool2d = AdaptiveAvgPool2d,
  GlobalAvgPool = GlobalAvgPool,
}
