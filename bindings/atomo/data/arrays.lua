--- Sets from arrays: X.npy and y.npy, the members x and y of an .npz, X and y of a MAT-file (SVHN) (stage 1). X is u8
-- or f32; y has class ids (whole numbers from 0), or the numbers to predict (regression).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local npy = require "atomo.tensor.npy"
local files = require "atomo.data.files"
local sets = require "atomo.data.set"
local by_file = require "atomo.data.by_file"
local C, check, raise = f.C, f.check, f.raise

local M = {}

M.options = {layout = O.one_of("NHWC", "NCHW", "NHW")}

M.x_names, M.y_names = {"X", "x", "images"}, {"y", "Y", "labels"}

--- Returns y as class ids, i32 [n]; nil if it has several numbers per sample, or one that is not whole.
local function class_ids(y)
  if y:dim() == 2 and y:size(2) == 1 then y = y:contiguous():view(y:size(1)) end
  if y:dim() ~= 1 then return nil end
  if y:dtype() ~= "f32" then return y:to "i32" end
  local p = y:contiguous()
  local v = p:data()
  for i = 0, p:numel() - 1 do
    if not (v[i] % 1 == 0 and math.abs(v[i]) < 2 ^ 24) then return nil end
  end
  return p:to "i32"
end

--- Returns X as images [n,h,w,c]; nil if its shape is not that of images.
local function as_images(x, layout, from)
  if not layout then layout = x:dim() == 4 and "NHWC" or x:dim() == 3 and x:dtype() == "u8" and "NHW" or nil end
  if not layout or x:dtype() == "i32" then return nil end
  if x:dim() ~= #layout then
    raise(("data: %s: X is %s, expected %d dimensions by layout = '%s'"):format(from, T.shape_text(x), #layout, layout))
  end
  if layout == "NHW" then x = x:contiguous():view(x:size(1), x:size(2), x:size(3), 1) end
  if layout == "NCHW" then x = x:permute(1, 3, 4, 2):contiguous() end
  if x:size(4) > 8 then
    raise(("data: %s: X is %s, images of %d channels, at most 8: for [n,c,h,w] say layout = 'NCHW' (%s)"):format(
      from, T.shape_text(x), x:size(4), by_file "layout = 'NCHW'"))
  end
  return x
end

--- Raises if an array has NaN or Inf. name: "X" or "y".
local function check_finite(t, name, from)
  if t:dtype() ~= "f32" then return end
  local count, first = t:count_nonfinite()
  if count == 0 then return end
  raise(("data: %s: %s %s has %d entries that are NaN or Inf, the first in sample %d, expected none"):format(from, name,
    T.shape_text(t), count, math.floor((first - 1) / (t:numel() / t:size(1))) + 1))
end

--- Makes a part from X and y. from: names of their files, for error texts.
function M.part(x, y, options, from)
  if x:dim() == 0 or y:dim() == 0 or x:size(1) ~= y:size(1) or x:numel() == 0 then
    raise(("data: %s: X is %s, y is %s, expected as many samples in both, and not empty"):format(from, T.shape_text(x),
      T.shape_text(y)))
  end
  check_finite(x, "X", from)
  check_finite(y, "y", from)
  local images, ids = as_images(x, options.layout, from), class_ids(y)
  if not ids then return {set = {x = images or x, y = y, n = x:size(1)}} end
  local least, most = ids:min():item(), ids:max():item()
  if least < 0 then raise(("data: %s: y has the class %d, expected 0 or more"):format(from, least)) end
  if images then return {set = sets.set(images, ids)} end
  return {set = {x = x, y = ids, n = x:size(1), classes = most + 1}}
end

--- Reads X and y from two .npy files.
function M.from_npy(paths, options)
  return M.part(npy.from_npy(paths.x), npy.from_npy(paths.y), options, paths.x .. ", " .. paths.y)
end

local function member(tensors, unread, names, ending)
  for _, name in ipairs(names) do
    if rawget(tensors, name .. ending) then return tensors[name .. ending] end
    if unread[name .. ending] then return tensors[name .. ending] end -- raises why it could not be read
  end
end

--- Reads an .npz: x and y, or x_train, y_train, x_test, y_test. Returns {train = part, test = part?}.
function M.from_npz(path, options)
  local tensors, unread = npy.from_npz(path)
  local parts = {}
  for ending, split in pairs {[""] = "train", _train = "train", _test = "test"} do
    local x, y = member(tensors, unread, M.x_names, ending), member(tensors, unread, M.y_names, ending)
    if x and y then parts[split] = M.part(x, y, options, ("%s (x%s, y%s)"):format(path, ending, ending)) end
  end
  if not parts.train and not parts.test then
    local names = {}
    for name in pairs(tensors) do names[#names + 1] = name end
    table.sort(names)
    raise(("data: %s has the arrays %s, expected x and y, or x_train and y_train"):format(path,
      #names > 0 and table.concat(names, ", ") or "none"))
  end
  return parts
end

local function read_mat(path, name)
  local out = T.out()
  check(C.atomo_mat_read(path, name, out))
  return T.wrap(out[0])
end

--- Reads X [h,w,c,n] and y from a MAT-file. In SVHN's files, NAME_32x32.mat, label 10 is digit 0.
function M.from_mat(path, options)
  local x, y = read_mat(path, "X"), read_mat(path, "y")
  if x:dim() == 4 then x = x:permute(1, 4, 3, 2):contiguous() end -- from [n,c,w,h]
  local ids = class_ids(y:dim() == 2 and y:contiguous():view(y:numel()) or y)
  local svhn = path:find "_32x32%.mat$" ~= nil
  if svhn and ids then
    local p = ids:data()
    for i = 0, ids:numel() - 1 do
      if p[i] < 1 or p[i] > 10 then
        raise(("data: %s: label %d of image %d, expected 1 to 10"):format(path, p[i], i + 1))
      end
      p[i] = p[i] % 10
    end
  end
  local part = M.part(x, ids or y, options, path)
  if svhn then
    part.names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}
    part.name, part.set.classes = "SVHN", 10
  end
  return part
end

--- Returns the paths of X and y in a folder, {x=, y=}, with an ending such as "_train"; nil if they are not there.
function M.npy_files(dir, ending)
  local function of(names)
    local list = {}
    for i, name in ipairs(names) do list[i] = name .. ending .. ".npy" end
    return files.first(dir, list)
  end
  local x, y = of(M.x_names), of(M.y_names)
  if x and not y then raise(("data: %s has no y%s.npy beside it"):format(x, ending)) end
  if y and not x then raise(("data: %s has no X%s.npy beside it"):format(y, ending)) end
  return x and {x = x, y = y} or nil
end

return M
