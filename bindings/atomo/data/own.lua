--- The loader of a user's set, a table with two methods (stage 2):
--   size()   the number of samples
--   get(i)   sample i from 1: x, a tensor or number, and y, a class (a whole number from 0), a number or a tensor
-- All samples have the shapes and dtypes of the first one. Images, u8 or f32 [h,w,c], can be normalised and augmented
-- like those of a set in memory. A rank gets only the samples of its share. If the set has a field `classes`, every
-- class must be below it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local samples = require "atomo.data.samples"
local transforms = require "atomo.data.transforms"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local function describe(v)
  if T.is_tensor(v) then return ("%s %s"):format(v:dtype(), T.shape_text(v)) end
  return v == nil and "nothing" or number.text(v)
end

--- Returns the form of x or y: {dtype=, shape = without the batch}.
local function form_of(v, name, what)
  if T.is_tensor(v) then return {dtype = v:dtype(), shape = v:shape()} end
  if type(v) ~= "number" then
    raise(("loader: %s of sample 1 is %s, expected a tensor or a number"):format(name, describe(v)))
  end
  return {dtype = what == "y" and v % 1 == 0 and "i32" or "f32", shape = {}}
end

local function fits(form, v)
  if not T.is_tensor(v) then
    return type(v) == "number" and #form.shape == 0 and (form.dtype == "f32" or number.whole(v, -2 ^ 31, 2 ^ 31 - 1))
  end
  return v:dtype() == form.dtype and T.shape_text(v) == T.shape_text(form.shape)
end

local function refuse(i, name, v, form, first)
  local hint = ""
  if form.dtype == "i32" and type(v) == "number" then
    hint = ": a target that is no class is a tensor, atomo.tensor{0.5}, in every sample"
  end
  raise(("loader: %s of sample %d is %s, expected %s as in sample 1%s"):format(name, i, describe(v), first, hint))
end

--- Puts v at row k (from 1) of t.
local function set_row(t, k, v)
  if T.is_tensor(v) then return t:select(1, k):copy_(v:detach()) end
  t:data()[k - 1] = v
end

local function check_class(set, i, y)
  if set.classes and type(y) == "number" and y % 1 == 0 and (y < 0 or y >= set.classes) then
    raise(("loader: sample %d has the class %d, expected 0 to %d"):format(i, y, set.classes - 1))
  end
end

local function sample_of(set, i)
  local x, y = set:get(i)
  if y == nil then raise(("loader: get(%d) returned %s and nothing, expected x and y"):format(i, describe(x))) end
  return x, y
end

--- Returns the tensors x and y for n samples. They are made once per n and reused.
local function buffers_of(cache, n, forms)
  local pair = cache[n]
  if not pair then
    pair = {}
    for name, form in pairs(forms) do
      local shape = {n, unpack(form.shape)}
      shape[#shape + 1] = form.dtype
      pair[name] = T.zeros(unpack(shape))
    end
    cache[n] = pair
  end
  return pair
end

--- Returns C's options for the images of the set; nil if x is no image and no option is for images.
local function image_options(o, form, seed)
  local image = #form.shape == 3 and form.dtype ~= "i32"
  local asked = o.augment or o.mean or o.std
  if not image and asked then
    raise(("loader: augment, mean and std are for images, u8 or f32 [h,w,c]; x is %s %s"):format(form.dtype,
      T.shape_text(form.shape)))
  end
  if not image or not (asked or form.dtype == "u8") then return nil end
  local c = ffi.new "atomo_loader_options"
  c.seed, c.classes = seed, o.set.classes or 0
  transforms.set(c, o, form.shape[3])
  for i = 0, c.transforms - 1 do
    if c.transform[i].kind == C.ATOMO_MIXUP then
      raise "loader: mixup needs a set that holds its images, {images=, labels=}; this one has get(i)"
    end
  end
  return c
end

local function augmented(cache, images, ids, c, epoch)
  local n, out = ids:numel(), T.out()
  if n == 0 then return T.zeros(unpack(images:shape())) end
  if cache[n] then out[0] = cache[n].h end
  check(C.atomo_augment(images.h, ids:contiguous().h, c, epoch, out))
  cache[n] = cache[n] or T.wrap(out[0])
  return cache[n]
end

local function size_of(set)
  if type(set.size) ~= "function" then
    raise(("loader: set.size is %s, expected a method that returns the number of samples"):format(
      number.text(set.size)))
  end
  return number.expect_whole(set:size(), "loader: set:size()", 1, 2 ^ 31 - 1)
end

--- Makes a loader from the options of atomo.data.loader, whose set has size() and get(i).
return function(o)
  local set = o.set
  local n = size_of(set)
  local x1, y1 = sample_of(set, 1)
  local forms = {x = form_of(x1, "x", "x"), y = form_of(y1, "y", "y")}
  local first = {x = describe(x1), y = describe(y1)}
  local buffers, images, c = {}, {}, nil
  local self
  self = samples.new("loader", n, o, function(_, rows, ids, epoch)
    local pair, p = buffers_of(buffers, rows, forms), ids:data()
    for k = 1, rows do
      local i = p[k - 1] + 1
      local x, y = sample_of(set, i)
      if not fits(forms.x, x) then refuse(i, "x", x, forms.x, first.x) end
      if not fits(forms.y, y) then refuse(i, "y", y, forms.y, first.y) end
      check_class(set, i, y)
      set_row(pair.x, k, x)
      set_row(pair.y, k, y)
    end
    return c and augmented(images, pair.x, ids, c, epoch) or pair.x, pair.y
  end, function()
    return {{"x", forms.x.dtype .. " " .. T.shape_text(forms.x.shape)},
      {"y", forms.y.dtype .. " " .. T.shape_text(forms.y.shape)}, {"augment", transforms.text(o.augment)}}
  end)
  c = image_options(o, forms.x, self.seed)
  rawset(self, "given", o)
  if #forms.x.shape == 3 and forms.x.dtype ~= "i32" then rawset(self, "image_shape", forms.x.shape) end
  return self
end
