--- The format of a model's input images, which manifests record for programs that use the model after training
-- (scripts/predict.lua).
local T = require "atomo.tensor"
local transforms = require "atomo.data.transforms"

--- Returns {shape = {h, w, c}, mean=, std=, classes=, names=} of a loader of images, with the fields that it has; nil
--- for other loaders.
---@param loader table
---@param names string[]?  of the classes
---@return table?
return function(loader, names)
  local given = rawget(loader, "given")
  local set = type(given) == "table" and given.set
  if type(set) ~= "table" or not T.is_tensor(set.images) or set.images:dim() ~= 4 then return nil end
  local images = set.images
  local mean, std = transforms.normalisation(given)
  return {shape = {images:size(2), images:size(3), images:size(4)}, mean = mean, std = std, classes = set.classes,
    names = names}
end
