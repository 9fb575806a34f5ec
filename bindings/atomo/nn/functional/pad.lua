--- pad and interpolate: tensors made larger or smaller along dimensions; one_hot: class ids as vectors.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local S = require "atomo.nn.functional.support"
local window = require "atomo.nn.functional.window"
local cat = require("atomo.autograd.ops").cat
local raise = f.raise

local F = {}

-- ---- pad -----------------------------------------------------------------------------------------------------------

--- mode -> function(i, n): the element (1 to n) that stands at place i of a padded dimension; i may be below 1 or
--- above n.
local modes = {
  reflect = function(i, n)
    if i < 1 then return 2 - i end
    return i > n and 2 * n - i or i
  end,
  replicate = function(i, n) return math.max(1, math.min(n, i)) end,
  circular = function(i, n) return (i - 1) % n + 1 end,
}

--- Raises if a dimension of n elements cannot be padded by before and after in this mode.
local function check_room(mode, d, n, before, after)
  local most = mode == "reflect" and n - 1 or mode == "circular" and n or n > 0 and math.huge or 0
  if before > most or after > most then
    raise(("pad: %d and %d beside the %d elements of dimension %d, mode '%s' allows at most %d"):format(before, after,
      n, d, mode, math.max(0, most)))
  end
end

local function filled(x, d, count, value)
  local sizes = x:shape()
  sizes[d] = count
  return T.full(sizes, value, x:dtype())
end

--- Pads dimension d (1-based) with a value; negative counts cut elements off.
local function with_value(x, d, before, after, value)
  local n = x:size(d)
  local first, left = math.max(0, -before), n + math.min(0, before) + math.min(0, after)
  if left < 0 then raise(("pad: %d and %d of the %d elements of dimension %d"):format(before, after, n, d)) end
  if left < n then x = x:narrow(d, first + 1, left) end
  local parts = {x}
  if before > 0 then table.insert(parts, 1, filled(x, d, before, value)) end
  if after > 0 then parts[#parts + 1] = filled(x, d, after, value) end
  return #parts > 1 and cat(parts, d) or x
end

local function with_elements(x, d, before, after, mode)
  local n = x:size(d)
  if n + before + after < 0 then
    raise(("pad: %d and %d of the %d elements of dimension %d"):format(before, after, n, d))
  end
  check_room(mode, d, n, before, after)
  local index = T.empty(n + before + after, "i32")
  local p, at = index:data(), modes[mode]
  for i = 0, index:numel() - 1 do p[i] = at(i + 1 - before, n) end
  return x:index_select(d, index)
end

--- Returns a copy with elements added at the ends of dimensions, or cut off by negative numbers. pad lists two numbers
--- for each dimension, before and after, the last dimension first, as in PyTorch: {1, 2} pads the last dimension by 1
--- before and 2 after. Images [N,H,W,C] have the channels last: {0, 0, 1, 1, 1, 1} pads W and H. Mode "constant" adds
--- `value`, "reflect" mirrors at the end element, "replicate" repeats it, "circular" continues at the other end.
---@param x atomo.Tensor  of any dtype
---@param pad integer[]   an even number of them
---@param mode "constant"|"reflect"|"replicate"|"circular"|nil  default "constant"
---@param value number?   default 0
---@return atomo.Tensor
---@usage F.pad(atomo.tensor {1, 2, 3}, {1, 0}, "reflect"):get(1) --> 2
function F.pad(x, pad, mode, value)
  T.expect(x, "pad: input")
  if type(pad) ~= "table" or T.is_tensor(pad) then
    raise(("pad: pad is %s, expected a list of whole numbers, two for each dimension from the last one"):format(
      number.text(pad)))
  end
  mode = mode == nil and "constant" or mode
  if mode ~= "constant" and not modes[mode] then
    raise(("pad: mode is %s, expected constant, reflect, replicate or circular"):format(number.text(mode)))
  end
  if mode ~= "constant" and value ~= nil then raise(("pad: value is of mode constant, the mode is %s"):format(mode)) end
  local count, dims = length(pad, "pad"), x:dim()
  if count % 2 == 1 or count > 2 * dims then
    raise(("pad: %d numbers for a tensor of %d dimensions, expected an even number of at most %d"):format(count, dims,
      2 * dims))
  end
  value = value == nil and 0 or number.element(value, x:dtype(), "pad: value")
  local y = x
  for k = 1, count, 2 do
    local d = dims - (k - 1) / 2
    local before = number.expect_whole(pad[k], ("pad: number %d"):format(k))
    local after = number.expect_whole(pad[k + 1], ("pad: number %d"):format(k + 1))
    if before ~= 0 or after ~= 0 then
      if mode == "constant" then y = with_value(y, d, before, after, value)
      else y = with_elements(y, d, before, after, mode) end
    end
  end
  return y.h.storage == x.h.storage and y:clone() or y
end

-- ---- one_hot -------------------------------------------------------------------------------------------------------

--- Returns vectors of 0 with a 1 at the label: [...] -> [..., classes]. As for losses, class ids count from 0: subtract
--- 1 from the positions of argmax.
---@param labels atomo.Tensor   i32, from 0
---@param num_classes integer?  default: the largest label + 1
---@return atomo.Tensor f32, as F.cross_entropy takes class probabilities
---@usage F.one_hot(atomo.tensor({0, 2}, "i32"), 3):get(2, 3) --> 1
function F.one_hot(labels, num_classes)
  labels = S.indices(labels, "one_hot: labels")
  local n, from = labels:numel(), labels:data()
  local classes = num_classes
  if classes == nil then
    if n == 0 then raise "one_hot: no labels, expected the number of classes as the second argument" end
    classes = math.max(0, labels:max():item()) + 1
  end
  classes = number.expect_whole(classes, "one_hot: number of classes", 1)
  local sizes = labels:shape()
  sizes[#sizes + 1] = classes
  local y = T.zeros(sizes)
  local to = y:data()
  for i = 0, n - 1 do
    if from[i] < 0 or from[i] >= classes then
      raise(("one_hot: label %d at position %d is outside 0 to %d (class ids count from 0)"):format(from[i], i + 1,
        classes - 1))
    end
    to[i * classes + from[i]] = 1
  end
  return y
end

-- ---- interpolate ---------------------------------------------------------------------------------------------------

--- Returns the i32 tensor of at(0) + 1, ... at(n - 1) + 1.
local function places(n, at)
  local index = T.empty(n, "i32")
  local p = index:data()
  for i = 0, n - 1 do p[i] = at(i) + 1 end
  return index
end

--- Resizes dimension d to `size` by the nearest element. step: elements of x from one of the result to the next.
local function nearest(x, d, size, step)
  local last = x:size(d) - 1
  return x:index_select(d, places(size, function(i) return math.min(last, math.floor(i * step)) end))
end

--- Resizes dimension d by lines between the two nearest elements.
local function linear(x, d, size, step, align)
  local last, shape = x:size(d) - 1, {1, 1, 1, 1}
  if align then step = size > 1 and last / (size - 1) or 0 end
  local function source(i) return align and i * step or math.max(0, (i + 0.5) * step - 0.5) end
  local function below(i) return math.min(last, math.floor(source(i))) end
  shape[d] = size
  local share = T.empty(shape)
  local p = share:data()
  for i = 0, size - 1 do p[i] = math.min(1, source(i) - below(i)) end
  return x:index_select(d, places(size, below)) * (1 - share) +
    x:index_select(d, places(size, function(i) return math.min(last, below(i) + 1) end)) * share
end

--- Returns new height, new width, and the steps in x from one element of the result to the next.
local function target(x, opts)
  local h, w = x:size(2), x:size(3)
  local sh, sw, scaled = window.resizing("interpolate", opts)
  if not scaled then return sh, sw, h / sh, w / sw end
  local oh, ow = math.floor(h * sh), math.floor(w * sw)
  if oh < 1 or ow < 1 then raise(("interpolate: %s by %g, %g has no element"):format(T.shape_text(x), sh, sw)) end
  return oh, ow, 1 / sh, 1 / sw
end

--- Returns images x [N,H,W,C] in another size. opts: size (a number or {height, width}) or scale_factor (likewise);
--- mode "nearest" (default) or "bilinear"; align_corners = false (true: corners of both images lie on each other).
---@param x atomo.Tensor [N,H,W,C]
---@param opts {size: any, scale_factor: any, mode: "nearest"|"bilinear"|nil, align_corners: boolean?}
---@return atomo.Tensor
---@usage F.interpolate(x, {scale_factor = 2}):size(2) --> 16
function F.interpolate(x, opts)
  if T.expect(x, "interpolate: input", "f32"):dim() ~= 4 or x:size(2) * x:size(3) == 0 then
    raise(("interpolate: input is %s, expected [N,H,W,C]"):format(T.shape_text(x)))
  end
  local oh, ow, sh, sw = target(x, opts)
  if opts.mode == "bilinear" then
    return linear(linear(x, 2, oh, sh, opts.align_corners), 3, ow, sw, opts.align_corners)
  end
  return nearest(nearest(x, 2, oh, sh), 3, ow, sw)
end

return F
