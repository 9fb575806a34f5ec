--- Checks kernel, stride, padding, dilation and groups, and stores them in the C struct atomo_window. Checks the
-- options of F.interpolate.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local ffi, raise = f.ffi, f.raise

local M = {}
local ctype = ffi.typeof "atomo_window"
local known = {stride = true, padding = true, dilation = true, groups = true}

local function whole(v, least) return number.whole(v, least, 2 ^ 24 - 1) end

--- Returns height, width of v: a number or {height, width}. Raises unless both are whole numbers >= least.
local function pair(layer, name, v, default, least)
  if v == nil then v = default end
  local h, w = v, v
  if type(v) == "table" then h, w = v[1], v[2] end
  local rows, columns = whole(h, least), whole(w, least)
  if not (rows and columns) then
    raise(("%s: %s is %s, expected a whole number >= %d or {height, width}"):format(layer, name,
      type(v) == "table" and ("{%s, %s}"):format(brief(h), brief(w)) or brief(v), least))
  end
  return rows, columns
end
M.pair = pair

M.check_options = O.check

--- The names of a convolution's options, as a set.
M.options = known

--- Padding "same" of a kernel of `size`. Returns the padding for both sides, and the number of first results to leave
--- out: 1 if the total padding is odd, since PyTorch then pads one element less before than after.
local function same(size, dilation)
  local reach = dilation * (size - 1)
  return math.ceil(reach / 2), reach % 2
end

--- Sets w's padding by name. Returns {rows, columns} to leave out at the start of the result, nil for none.
local function named_padding(layer, w, name, size)
  if name == "valid" then return nil end
  if name ~= "same" then
    raise(("%s: padding is '%s', expected same, valid, a whole number >= 0 or {height, width}"):format(layer, name))
  end
  if w.stride[0] ~= 1 or w.stride[1] ~= 1 then
    raise(("%s: padding 'same' wants stride 1, got {%d,%d}"):format(layer, w.stride[0], w.stride[1]))
  end
  local skip = {0, 0}
  for i = 0, 1 do w.padding[i], skip[i + 1] = same(size[i + 1], w.dilation[i]) end
  return skip[1] + skip[2] > 0 and skip or nil
end

local function fill(layer, opts, kernel, size)
  local w, by_name, skip = ctype(), size and type(opts.padding) == "string", nil
  w.kernel[0], w.kernel[1] = pair(layer, "kernel", kernel or 1, nil, 1)
  w.stride[0], w.stride[1] = pair(layer, "stride", opts.stride, kernel or 1, 1)
  w.dilation[0], w.dilation[1] = pair(layer, "dilation", opts.dilation, 1, 1)
  if by_name then
    skip = named_padding(layer, w, opts.padding, size)
  else
    w.padding[0], w.padding[1] = pair(layer, "padding", opts.padding, 0, 0)
  end
  local groups = whole(opts.groups or 1, 1)
  if not groups then
    raise(("%s: groups is %s, expected a whole number >= 1"):format(layer, brief(opts.groups)))
  end
  w.groups = groups
  return w, skip
end

local plain = fill("conv2d", {})

--- Returns the window of a convolution. opts: options, nil, or a window, which is returned. extra: rules of further
--- options. With `size`, the kernel's {height, width}, padding may be "same" or "valid"; the second result is then
--- {rows, columns} to leave out at the start of the convolution's result, or nil.
function M.of(layer, opts, extra, size)
  if opts == nil then return plain end
  if ffi.istype(ctype, opts) then return opts end
  M.check_options(layer, opts, known, extra or {})
  return fill(layer, opts, nil, size)
end

--- Returns y [N,H,W,C] without the first rows and columns that M.of said to leave out.
function M.without(y, skip)
  if not skip then return y end
  return y:narrow(2, 1 + skip[1], y:size(2) - skip[1]):narrow(3, 1 + skip[2], y:size(3) - skip[2])
end

local pool_names = {stride = true, padding = true, ceil_mode = true}
local pool_extra = {
  max_pool2d = {dilation = true, return_indices = true},
  avg_pool2d = {count_include_pad = true, divisor_override = true},
}
--- Returns a set of the names of the options of max_pool2d or avg_pool2d, and kernel_size.
function M.pooling_options(layer) return O.names(pool_names, pool_extra[layer], {kernel_size = true}) end

local flags = {"ceil_mode", "return_indices", "count_include_pad"}

local function check_pooling(layer, opts)
  M.check_options(layer, opts, pool_names, pool_extra[layer])
  for _, name in ipairs(flags) do
    if opts[name] ~= nil and type(opts[name]) ~= "boolean" then
      raise(("%s: %s is %s, expected true or false"):format(layer, name, brief(opts[name])))
    end
  end
  if opts.divisor_override ~= nil and not (whole(opts.divisor_override, 1)) then
    raise(("%s: divisor_override is %s, expected a whole number >= 1"):format(layer, brief(opts.divisor_override)))
  end
end

--- Returns the window of max_pool2d or avg_pool2d, after checking opts. Default stride: the kernel's size. If kernel is
--- a window, it is returned.
function M.pooling(layer, kernel, opts)
  if ffi.istype(ctype, kernel) then return kernel end
  opts = opts == nil and {} or opts
  check_pooling(layer, opts)
  if kernel == nil then raise(layer .. ": kernel is missing, expected a number or {height, width}") end
  local w = fill(layer, opts, kernel)
  for i = 0, 1 do
    if 2 * w.padding[i] > w.kernel[i] then
      raise(("%s: padding %d is more than half of kernel %d"):format(layer, w.padding[i], w.kernel[i]))
    end
  end
  w.ceil_mode = opts.ceil_mode and 1 or 0
  return w
end

local resize_options = {size = true, scale_factor = true, mode = O.one_of("nearest", "bilinear"),
  align_corners = O.flag}

--- Reads the options of F.interpolate: returns size or scale_factor for height and for width, and whether it is the
--- latter.
function M.resizing(who, opts)
  O.check(who, opts, resize_options)
  if opts.align_corners ~= nil and opts.mode ~= "bilinear" then raise(who .. ": align_corners is of mode bilinear") end
  if (opts.size == nil) == (opts.scale_factor == nil) then
    raise(who .. ": expected one of the options size and scale_factor")
  end
  if opts.size ~= nil then
    local h, w = pair(who, "size", opts.size, nil, 1)
    return h, w, false
  end
  local s = opts.scale_factor
  local sh, sw = s, s
  if type(s) == "table" then sh, sw = s[1], s[2] end
  for _, v in ipairs {sh or false, sw or false} do
    if type(v) ~= "number" or not (v > 0 and v < math.huge) then
      raise(("%s: scale_factor is %s, expected a number above 0, or {height, width}"):format(who, brief(v)))
    end
  end
  return sh, sw, true
end

return M
