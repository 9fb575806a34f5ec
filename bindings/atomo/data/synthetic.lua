--- The built-in synthetic set of images (stage 1).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local sets = require "atomo.data.set"
local C, check, raise = f.C, f.check, f.raise

local M = {}

local synthetic_names = {
  "striped disc", "checked disc", "striped ring", "checked ring", "striped square", "checked square",
  "striped triangle", "checked triangle", "striped cross", "checked cross",
}

local function synthetic_set(seed, split, n)
  return T.outside_scope(function()
    local images, labels = T.out(), T.out()
    check(C.atomo_synthetic(seed, split, 0, n, images, labels))
    return {images = T.wrap(images[0]), labels = T.wrap(labels[0]), n = n, classes = 10}
  end)
end

local function count_option(options, key, default)
  local v = options[key] == nil and default or options[key]
  if not number.of(v) then raise(("synthetic: %s is a %s, expected a number"):format(key, type(v))) end
  return number.of(v)
end

--- Makes the built-in set: generated 32x32x3 images of ten classes. The same seed gives bit-identical images on every
--- machine.
---@param options table?  train=5000, test=1000 (numbers of images), seed=0
---@return table data, as of cifar10
---@usage atomo.data.synthetic({train = 8, test = 8}).classes --> 10
function M.synthetic(options)
  options = options or {}
  for key in pairs(options) do
    if key ~= "train" and key ~= "test" and key ~= "seed" then
      raise(("synthetic: unknown option '%s', expected train, test or seed"):format(brief(key)))
    end
  end
  local seed = count_option(options, "seed", 0)
  local train = synthetic_set(seed, 0, count_option(options, "train", 5000))
  local test = synthetic_set(seed, 1, count_option(options, "test", 1000))
  local mean, std = sets.channel_stats(train.images)
  return {name = "synthetic", train = train, test = test, classes = 10, names = synthetic_names, shape = {32, 32, 3},
    mean = mean, std = std}
end

return M
