--- What the networks of this folder take: option shape, {height, width, channels} of an image, as data.shape of
-- atomo.data.open. Without it: 32x32 images with opts.channels (default 3).
local raise = require("atomo.ffi").raise

local M = {}

--- Returns channels, height and width of the images that a network is made for.
---@param name string   the network, for error texts
---@param opts table
---@param least integer?  the smallest height and width, which its strides and pooling layers need
---@return integer channels
---@return integer height
---@return integer width
function M.image(name, opts, least)
  local shape = opts.shape or {32, 32, opts.channels or 3}
  if type(shape) ~= "table" or #shape ~= 3 then
    raise(("%s: takes images, shape = {height, width, channels}; the data have the shape {%s}"):format(name,
      type(shape) == "table" and table.concat(shape, ", ") or tostring(shape)))
  end
  if least and (shape[1] < least or shape[2] < least) then
    raise(("%s: its strides and pooling layers leave nothing of images of %d x %d, expected %d x %d or larger"):format(
      name, shape[1], shape[2], least, least))
  end
  return shape[3], shape[1], shape[2]
end

return M
