--- The format of a model's input images, which manifests record for programs that use the model after training
-- (scripts/predict.lua).
local T = require "atomo.tensor"
local transforms = require "atomo.data.transforms"

--- Returns {h, w, c} of a loader's images, which its set holds or (own.lua) returns one by one; nil for other loaders.
local function shape_of(loader, set)
  local images = set.images
  if T.is_tensor(images) and images:dim() == 4 then return {images:size(2), images:size(3), images:size(4)} end
  return rawget(loader, "image_shape")
end

--- Returns {shape = {h, w, c}, mean=, std=, classes=, names=} of a loader of images, with the fields that it has; nil
--- for other loaders.
---@param loader table
---@param names string[]?  of the classes
---@return table?
return function(loader, names)
  local given = rawget(loader, "given")
  local set = type(given) == "table" and given.set
  local shape = type(set) == "table" and shape_of(loader, set)
  if not shape then return nil end
  local mean, std = transforms.normalisation(given)
  return {shape = shape, mean = mean, std = std, classes = set.classes,
    names = names}
end
