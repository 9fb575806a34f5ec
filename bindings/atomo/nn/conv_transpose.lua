--- nn.ConvTranspose2d: transposed convolution of [N,H,W,in] with a weight [in, kh, kw, out/groups].
local f = require "atomo.ffi"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

---@class atomo.ConvTranspose2d: atomo.Module
---@field weight atomo.Tensor [in, kh, kw, out/groups]
---@field bias atomo.Tensor?  [out]
local ConvTranspose2d = Module:extend "ConvTranspose2d"
ConvTranspose2d.fixed = window.options

--- nn.ConvTranspose2d(in, out, kernel, {stride=1, padding=0, output_padding=0, dilation=1, groups=1, bias=true});
--- Initial weight and bias are uniform in +-1/sqrt(kh kw out/groups), as in PyTorch.
---@param in_channels integer
---@param out_channels integer
---@param kernel integer|integer[]
---@param opts table?
---@usage nn.ConvTranspose2d(3, 8, 2, {stride = 2})(x):size(2) --> 16
function ConvTranspose2d:init(in_channels, out_channels, kernel, opts)
  opts = opts == nil and {} or opts
  in_channels = check.count("ConvTranspose2d", "in_channels", in_channels)
  self.in_channels = in_channels
  out_channels = check.count("ConvTranspose2d", "out_channels", out_channels)
  self.out_channels = out_channels
  local kh, kw = window.pair("ConvTranspose2d", "kernel_size", kernel, nil, 1)
  self.kernel_size = {kh, kw}
  self.window, self.output_padding = F.transpose_window("ConvTranspose2d", opts, {bias = O.flag})
  local groups = self.window.groups
  if in_channels % groups ~= 0 or out_channels % groups ~= 0 then
    f.raise(("ConvTranspose2d: %d groups do not divide %d input and %d output channels"):format(groups, in_channels,
      out_channels))
  end
  local fill = parameter.uniform(kh * kw * out_channels / groups)
  self.weight = parameter.new({in_channels, kh, kw, out_channels / groups}, fill)
  if opts.bias ~= false then self.bias = parameter.new({out_channels}, fill) end
end

function ConvTranspose2d:forward(x)
  return F.conv_transpose2d_with(x, self.weight, self.bias, self.window, self.output_padding)
end

function ConvTranspose2d:describe()
  local w = self.window
  return ("%d, %d, kernel_size=(%d, %d), stride=(%d, %d)%s"):format(self.in_channels, self.out_channels,
    self.kernel_size[1], self.kernel_size[2], w.stride[0], w.stride[1], self.bias and "" or ", bias=False")
end

return {ConvTranspose2d = ConvTranspose2d}
