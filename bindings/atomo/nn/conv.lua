--- nn.Conv2d: 2-D convolution of [N,H,W,in] with a weight [out, kh, kw, in/groups].
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local autograd = require "atomo.autograd"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module
local raise = f.raise

---@class atomo.Conv2d: atomo.Module
---@field weight atomo.Tensor [out, kh, kw, in/groups]
---@field bias atomo.Tensor?  [out]
local Conv2d = Module:extend "Conv2d"

local named = {in_channels = true, out_channels = true, kernel_size = true}
local extra = {bias = O.flag, padding_mode = true, init = true}
Conv2d.fixed = window.options

-- padding_mode -> function(i, n) that returns the 0-based index of the element at padded position i (< 0 or >= n in the
-- padding) of a dimension of size n.
local beyond = {
  reflect = function(i, n) return n - 1 - math.abs(n - 1 - math.abs(i)) end,
  replicate = function(i, n) return math.max(0, math.min(n - 1, i)) end,
  circular = function(i, n) return i % n end,
}
local reach = {reflect = function(n) return n - 1 end, replicate = function() return math.huge end,
  circular = function(n) return n end} -- the largest padding for a dimension of size n

--- Returns x padded by `before` and `after` rows (dim 2) or columns (dim 3) in a padding mode.
local function padded(x, dim, before, after, mode)
  local n = x:size(dim)
  if math.max(before, after) > reach[mode](n) or n == 0 then
    raise(("Conv2d: input is %s, padding %d in mode %s needs at least %d in dimension %d"):format(T.shape_text(x),
      math.max(before, after), mode, mode == "reflect" and after + 1 or math.max(after, 1), dim))
  end
  if before + after == 0 then return x end
  local index = T.empty({before + n + after}, "i32")
  local p = index:data()
  for i = 0, before + n + after - 1 do p[i] = beyond[mode](i - before, n) + 1 end
  return x:index_select(dim, index)
end

local function read_mode(self, opts)
  local mode = opts.padding_mode or "zeros"
  if mode ~= "zeros" and not beyond[mode] then
    raise(("Conv2d: padding_mode is '%s', expected zeros, reflect, replicate or circular"):format(brief(mode)))
  end
  self.padding_mode = mode
end

--- Makes weight and bias. Initial values are by opts.init, or as in PyTorch: kaiming_uniform_ with a = sqrt(5), the
--- bias uniform in +-1/sqrt(fan_in).
local function start(self, shape, opts)
  local own = opts.init
  if own ~= nil and type(own) ~= "function" then
    raise(("Conv2d: init is a %s, expected a function of weight and bias"):format(type(own)))
  end
  local fill = own and function() end or parameter.uniform(shape[2] * shape[3] * shape[4])
  self.weight = parameter.new(shape, fill)
  if opts.bias ~= false then self.bias = parameter.new({shape[1]}, fill) end
  if own then autograd.no_grad(own, self.weight, self.bias) end
end

--- nn.Conv2d(in, out, kernel, {stride=1, padding=0, dilation=1, groups=1, bias=true, padding_mode="zeros"}), or one
-- table with in_channels, out_channels, kernel_size and the same options. padding: a size, {height, width}, "valid" or
--- "same"; padding_mode: zeros, reflect, replicate or circular. init: a function(weight, bias or nil) that sets the
--- initial values; the random stream is then not used for PyTorch's.
---@param in_channels integer|table
---@param out_channels integer?
---@param kernel integer|integer[]|nil
---@param opts table?
---@usage nn.Conv2d(3, 8, 3, {padding = "same"})(x):size(4) --> 8
function Conv2d:init(in_channels, out_channels, kernel, opts)
  if type(in_channels) == "table" then
    local all = in_channels
    in_channels, out_channels, kernel, opts = all.in_channels, all.out_channels, all.kernel_size, {}
    for k, v in pairs(all) do
      if not named[k] then opts[k] = v end
    end
  end
  opts = opts == nil and {} or opts
  in_channels = check.count("Conv2d", "in_channels", in_channels)
  self.in_channels = in_channels
  out_channels = check.count("Conv2d", "out_channels", out_channels)
  self.out_channels = out_channels
  local kh, kw = window.pair("Conv2d", "kernel_size", kernel, nil, 1)
  self.kernel_size, self.opts = {kh, kw}, opts
  self.window, self.skip = window.of("Conv2d", opts, extra, self.kernel_size)
  read_mode(self, opts)
  local groups = self.window.groups
  if in_channels % groups ~= 0 or out_channels % groups ~= 0 then
    raise(("Conv2d: %d groups do not divide %d input and %d output channels"):format(groups, in_channels, out_channels))
  end
  if self.padding_mode ~= "zeros" then -- forward pads the input, the convolution itself has no padding
    self.around = {}
    for i = 0, 1 do
      local after, less = self.window.padding[i], self.skip and self.skip[i + 1] or 0
      self.around[i + 1], self.window.padding[i] = {after - less, after}, 0
    end
    self.skip = nil
  end
  start(self, {out_channels, kh, kw, in_channels / groups}, opts)
end

function Conv2d:forward(x)
  if self.padding_mode ~= "zeros" then
    T.expect(x, "Conv2d: input", "f32")
    if x:dim() ~= 4 then raise(("Conv2d: input is %s, expected [N,H,W,C]"):format(T.shape_text(x))) end
    for i, p in ipairs(self.around) do x = padded(x, i + 1, p[1], p[2], self.padding_mode) end
  end
  return window.without(F.conv2d(x, self.weight, self.bias, self.window), self.skip)
end

function Conv2d:describe()
  local w, padding = self.window, self.opts.padding
  local text = ("%d, %d, kernel_size=(%d, %d), stride=(%d, %d)"):format(self.in_channels, self.out_channels,
    self.kernel_size[1], self.kernel_size[2], w.stride[0], w.stride[1])
  if type(padding) == "string" then
    text = text .. (", padding=%s"):format(padding)
  else
    local h, v = window.pair("Conv2d", "padding", padding, 0, 0)
    if h + v > 0 then text = text .. (", padding=(%d, %d)"):format(h, v) end
  end
  if w.dilation[0] * w.dilation[1] > 1 then
    text = text .. (", dilation=(%d, %d)"):format(w.dilation[0], w.dilation[1])
  end
  if w.groups > 1 then text = text .. (", groups=%d"):format(w.groups) end
  if not self.bias then text = text .. ", bias=False" end
  return self.padding_mode == "zeros" and text or ("%s, padding_mode=%s"):format(text, self.padding_mode)
end

return {Conv2d = Conv2d}
