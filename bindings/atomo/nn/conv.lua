--- nn.Conv2d: 2-D convolution of [N,H,W,in] with a weight [out, kh, kw, in/groups].
local f = require "atomo.ffi"
local F = require "atomo.functional"
local init = require "atomo.nn.initial"
local window = require "atomo.nn.window"
local Module = require("atomo.nn.module").Module
local raise = f.raise

---@class atomo.Conv2d: atomo.Module
---@field weight atomo.Tensor [out, kh, kw, in/groups]
---@field bias atomo.Tensor?  [out]
local Conv2d = Module:extend "Conv2d"

local function channels(name, v)
  if type(v) ~= "number" or v % 1 ~= 0 or v < 1 then
    raise(("Conv2d: %s is %s, expected a whole number >= 1"):format(name, tostring(v)))
  end
  return v
end

local named = {in_channels = true, out_channels = true, kernel_size = true}
local extra = {bias = true}

--- nn.Conv2d(in, out, kernel, {stride=1, padding=0, dilation=1, groups=1, bias=true}), or one table with in_channels,
-- out_channels, kernel_size and the same options. Weights start as in torchvision's ResNet: Kaiming normal, fan_out;
-- the bias as zero.
function Conv2d:init(in_channels, out_channels, kernel, opts)
  if type(in_channels) == "table" then
    local all = in_channels
    in_channels, out_channels, kernel, opts = all.in_channels, all.out_channels, all.kernel_size, {}
    for k, v in pairs(all) do
      if not named[k] then opts[k] = v end
    end
  end
  opts = opts or {}
  self.in_channels, self.out_channels = channels("in_channels", in_channels), channels("out_channels", out_channels)
  local kh, kw = window.pair("Conv2d", "kernel_size", kernel, nil, 1)
  self.kernel_size, self.opts = {kh, kw}, opts
  self.window = window.of("Conv2d", opts, extra)
  local groups = opts.groups or 1
  if in_channels % groups ~= 0 or out_channels % groups ~= 0 then
    raise(("Conv2d: %d groups do not divide %d input and %d output channels"):format(groups, in_channels, out_channels))
  end
  self.weight = init.parameter({out_channels, kh, kw, in_channels / groups}, function(w)
    init.kaiming_normal_(w, "fan_out")
  end)
  if opts.bias ~= false then
    self.bias = init.parameter({out_channels}, function(b) b:zero_() end)
  end
end

function Conv2d:forward(x) return F.conv2d(x, self.weight, self.bias, self.window) end

function Conv2d:describe()
  local w = self.window
  local text = ("%d, %d, kernel_size=(%d, %d), stride=(%d, %d)"):format(self.in_channels, self.out_channels,
    self.kernel_size[1], self.kernel_size[2], w.stride[0], w.stride[1])
  if w.padding[0] + w.padding[1] > 0 then text = text .. (", padding=(%d, %d)"):format(w.padding[0], w.padding[1]) end
  if w.dilation[0] * w.dilation[1] > 1 then
    text = text .. (", dilation=(%d, %d)"):format(w.dilation[0], w.dilation[1])
  end
  if w.groups > 1 then text = text .. (", groups=%d"):format(w.groups) end
  return self.bias and text or text .. ", bias=False"
end

return {Conv2d = Conv2d}
