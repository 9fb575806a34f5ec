--- A folder of class folders: FOLDER/CLASS/*.png, .jpg, .jpeg, .pnm, .ppm, .pgm or .pbm, at any depth (stage 1).
-- Classes are the folders' names, sorted by bytes.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local number = require "atomo.core.number"
local files = require "atomo.data.files"
local sets = require "atomo.data.set"
local by_file = require "atomo.data.by_file"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

local endings = {png = true, jpg = true, jpeg = true, pnm = true, ppm = true, pgm = true, pbm = true}

local function is_image(name) return endings[(name:match "%.(%w+)$" or ""):lower()] == true end

--- Appends the paths of the images in a folder and those in it, in the order of their names.
local function images_in(path, list)
  for _, name in ipairs(files.list(path)) do
    local inner = path .. "/" .. name
    if files.is_folder(inner) then images_in(inner, list)
    elseif is_image(name) then list[#list + 1] = inner end
  end
  return list
end

local function has_image(path)
  for _, name in ipairs(files.list(path)) do
    local inner = path .. "/" .. name
    if is_image(name) or files.is_folder(inner) and has_image(inner) then return true end
  end
  return false
end

--- Does the folder contain a folder with an image in it?
function M.recognise(path)
  for _, name in ipairs(files.list(path)) do
    local inner = path .. "/" .. name
    if files.is_folder(inner) and has_image(inner) then return true end
  end
  return false
end

M.options = {size = true, channels = O.one_of(1, 3)}

--- Returns height and width of option size: 32 or {h, w}; nil if absent.
local function wanted_size(size)
  if size == nil then return nil end
  local pair = type(size) == "table" and size or {size, size}
  if #pair ~= 2 then raise "data: size is a list, expected a number of pixels or {height, width}" end
  return number.expect_whole(pair[1], "data: size", 1, 65535), number.expect_whole(pair[2], "data: size", 1, 65535)
end

--- Returns paths, labels (from 0) and class names.
local function find(path, like)
  local names, paths, labels, known = {}, {}, {}, nil
  if like then
    known = {}
    for i, name in ipairs(like.names) do known[name] = i - 1 end
  end
  for _, name in ipairs(files.list(path)) do
    local inner = path .. "/" .. name
    if files.is_folder(inner) then
      local images = images_in(inner, {})
      if #images == 0 then raise(("data: class folder %s has no image (.png, .jpg, .pnm, ...)"):format(inner)) end
      local label = #names
      if known then
        label = known[name] or raise(("data: %s: the training set has no class '%s'"):format(inner, name))
      end
      names[#names + 1] = name
      for _, image in ipairs(images) do paths[#paths + 1], labels[#labels + 1] = image, label end
    end
  end
  return paths, labels, like and like.names or names
end

--- Returns height, width and channels of the set: from the options, else from the images, which must then have one
--- size.
local function common_shape(paths, options, like)
  local h, w = wanted_size(options.size)
  local c, first = options.channels, nil
  if like then h, w, c, first = like.shape[1], like.shape[2], like.shape[3], "the training set's" end
  if h and c then return h, w, c end
  local size, colour = ffi.new "double[3]", 1
  for _, path in ipairs(paths) do
    check(C.atomo_image_size(path, size))
    if not h then h, w, first = tonumber(size[0]), tonumber(size[1]), path end
    if not options.size and (size[0] ~= h or size[1] ~= w) then
      raise(("data: %s is %d x %d pixels, %s is %d x %d: size = {h, w} scales and crops all images to one " ..
        "size (%s)"):format(path, size[0], size[1], first, h, w, by_file "size = {32, 32}"))
    end
    colour = math.max(colour, tonumber(size[2]))
  end
  return h, w, c or colour
end

--- Reads the folder. like: the part (of the training set) whose classes and shape it must have.
---@return table part  {set=, names=, shape=}
function M.read(path, options, like)
  local paths, labels, names = find(path, like)
  local h, w, c = common_shape(paths, options, like)
  return T.outside_scope(function()
    local images = T.zeros(#paths, h, w, c, "u8")
    local list = ffi.new("const char *[?]", #paths, paths)
    check(C.atomo_images_read(list, #paths, options.size and 1 or 0, images.h))
    return {set = sets.set(images, T.tensor(labels, "i32"), #names), names = names, shape = {h, w, c}}
  end)
end

return M
