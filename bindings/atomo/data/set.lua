--- Sets and data (stage 1). A set of images is {images = u8 or f32 [n,h,w,c], labels = i32 [n] from 0, n=, classes=};
-- a set of samples of any shape {x = tensor [n,...], y = tensor [n,...], n=, classes=?}; a user's set has the methods
-- size() and get(i). Data are {name=, train = set, test = set?, classes=?, names=?, shape=, mean=?, std=?}.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

local function channel_dtype(images, what)
  if T.is_tensor(images) and images:dtype() == "f32" then return images end
  return T.expect(images, what, "u8")
end

--- Makes a set from tensors: images u8 or f32 [n,h,w,c], labels i32 [n] with 0 <= label < classes. Raises if they do
--- not fit.
---@param images atomo.Tensor
---@param labels atomo.Tensor
---@param classes integer?  default: one more than the largest label
---@return {images: atomo.Tensor, labels: atomo.Tensor, n: integer, classes: integer}
---@usage atomo.data.set(atomo.zeros(2, 4, 4, 1, "u8"), atomo.tensor({0, 1}, "i32")).classes --> 2
function M.set(images, labels, classes)
  channel_dtype(images, "set: images")
  T.expect(labels, "set: labels", "i32")
  if images:dim() ~= 4 or labels:dim() ~= 1 or images:size(1) ~= labels:size(1) then
    raise(("set: images %s, labels %s, expected [n,h,w,c] and [n]"):format(T.shape_text(images), T.shape_text(labels)))
  end
  if classes ~= nil then classes = number.expect_whole(classes, "set: classes", 1, 2 ^ 31 - 1) end
  local p, n, most = labels:data(), labels:numel(), -1
  for i = 0, n - 1 do
    if p[i] < 0 or (classes and p[i] >= classes) then
      raise(("set: label %d of image %d, expected 0 to %s"):format(
        p[i], i + 1, classes and classes - 1 or "classes - 1"))
    end
    most = math.max(most, p[i])
  end
  return {images = images, labels = labels, n = n, classes = classes or most + 1}
end

--- Returns mean and standard deviation of each channel (the last dimension, at most 8): of u8 images divided by 255, of
--- f32 images as they are.
---@return number[] mean
---@return number[] std
---@param images atomo.Tensor [..., channels]
---@usage atomo.data.channel_stats(atomo.zeros(1, 2, 2, 3))[1] --> 0
function M.channel_stats(images)
  channel_dtype(images, "channel_stats: images")
  local mean, std, m, s = ffi.new "double[8]", ffi.new "double[8]", {}, {}
  check(C.atomo_channel_stats(images:contiguous().h, mean, std))
  for i = 1, images:size(-1) do m[i], s[i] = mean[i - 1], std[i - 1] end
  return m, s
end

--- Returns the kind of a set: "images" (a table with images and labels), "tensors" (with x and y) or "own" (with get);
--- nil for any other value.
function M.kind(set)
  if type(set) ~= "table" or T.is_tensor(set) or type(set.epoch) == "function" then return nil end
  if T.is_tensor(set.images) and T.is_tensor(set.labels) then return "images" end
  if T.is_tensor(set.x) and T.is_tensor(set.y) then return "tensors" end
  return type(set.get) == "function" and "own" or nil
end

--- Returns copies of the samples of a set whose numbers (from 0) are in index, an i32 tensor.
local function part(set, kind, index)
  local small = {}
  for key, value in pairs(set) do small[key] = value end
  local fields = kind == "images" and {"images", "labels", "coarse"} or {"x", "y"}
  for _, key in ipairs(fields) do
    if small[key] then
      local out = T.out()
      check(C.atomo_index_select(set[key]:contiguous().h, 0, index.h, out))
      small[key] = T.wrap(out[0])
    end
  end
  small.n = index:numel()
  return small
end

--- Splits a set of tensors at random; returns the training part and the test part. The same seed gives the same parts
--- on every rank.
---@param set table
---@param fraction number  of the samples in the second set, above 0 and below 1; each set has one sample or more
---@param seed integer?  default 0
---@return table training part
---@return table test part
---@usage atomo.data.split(set, 0.5).n --> 4
function M.split(set, fraction, seed)
  local kind = M.kind(set)
  if kind ~= "images" and kind ~= "tensors" then
    raise "split: the set is not one of tensors, expected {images=, labels=} or {x=, y=}"
  end
  local n, share = (set.images or set.x):size(1), number.of(fraction)
  if not share or not (share > 0 and share < 1) then
    raise(("split: fraction is %s, expected a number above 0 and below 1"):format(number.text(fraction)))
  end
  if n < 2 then raise(("split: a set of %d samples cannot be split"):format(n)) end
  local count = math.max(1, math.min(n - 1, math.floor(n * share + 0.5)))
  return T.outside_scope(function()
    local out = T.out()
    check(C.atomo_loader_order(number.expect_whole(seed == nil and 0 or seed, "split: seed", 0), 0, 1, n, out))
    local order = T.wrap(out[0])
    return part(set, kind, order:narrow(1, count + 1, n - count)), part(set, kind, order:narrow(1, 1, count))
  end)
end

--- Makes data from sets: finds classes, shape, mean and std that are not given.
---@param d table  {name=, train=, test=, ...}; changed and returned
function M.describe(d)
  local first = d.train or d.test
  local kind = M.kind(first)
  d.classes = d.classes or first.classes
  for _, set in ipairs {d.train or false, d.test or false} do
    if set and set.classes and d.classes and set.classes ~= d.classes then
      d.classes = math.max(d.classes, set.classes)
    end
  end
  for _, set in ipairs {d.train or false, d.test or false} do
    if set and kind ~= "own" then set.classes = d.classes end
  end
  if kind == "own" then
    local x = not d.shape and first:get(1)
    d.shape = d.shape or T.is_tensor(x) and x:shape() or {}
    return d
  end
  local samples = first.images or first.x
  if not d.shape then
    d.shape = {}
    for i = 2, samples:dim() do d.shape[i - 1] = samples:size(i) end
  end
  if kind == "images" and not d.mean and samples:size(-1) <= 8 and samples:numel() > 0 then
    d.mean, d.std = M.channel_stats(samples)
    for i, s in ipairs(d.std) do d.std[i] = s > 0 and s or 1 end -- a channel that is constant
  end
  return d
end

return M
