--- Reads single images for a trained network (scripts/predict.lua): PNG, JPEG and PNM files, and .npy of one image or
-- several.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local npy = require "atomo.tensor.npy"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

local function starts_as_npy(path)
  local file, why = io.open(path, "rb")
  if not file then raise("image: " .. why) end
  local head = file:read(6)
  file:close()
  return head == "\147NUMPY"
end

--- Returns the images of an .npy file, u8 [h,w], [h,w,c] or [n,h,w,c], as [n,h,w,c]; they must have the shape.
local function from_npy(path, shape)
  local t = npy.from_npy(path)
  local given = t
  if t:dim() == 2 then t = t:unsqueeze(-1) end
  if t:dim() == 3 then t = t:unsqueeze(1) end
  if t:dtype() ~= "u8" or t:dim() ~= 4 or t:size(2) ~= shape[1] or t:size(3) ~= shape[2] or t:size(4) ~= shape[3] then
    raise(("image: %s holds %s %s, expected u8 %s, or [n,%d,%d,%d]"):format(path, given:dtype(), T.shape_text(given),
      T.shape_text(shape), unpack(shape)))
  end
  return t
end

--- Reads the images of a file as u8 [n,h,w,c], n = 1 except for .npy. PNG, JPEG and PNM images of another size are
--- scaled to cover h x w and keep their centre; they are made grey or coloured as c, 1 or 3, says.
---@param path string
---@param shape integer[]  {h, w, c}
---@return atomo.Tensor
function M.read(path, shape)
  if starts_as_npy(path) then return from_npy(path, shape) end
  return T.outside_scope(function()
    local images = T.zeros(1, shape[1], shape[2], shape[3], "u8")
    check(C.atomo_images_read(ffi.new("const char *[1]", {path}), 1, 1, images.h))
    return images
  end)
end

return M
