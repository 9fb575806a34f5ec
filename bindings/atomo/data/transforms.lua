--- Option augment of loaders (stage 2): {crop=4, flip=true}, or a list of transforms in their order, each a table of a
-- name and its numbers. Random numbers depend on (seed, epoch, image, transform) only.
--   {"normalise"}                 (x - mean) / std, with mean and std of the loader; or {"normalise", mean={}, std={}}
--   {"crop", 4}                   pads by 4 zeros and crops at random
--   {"flip"}                      mirrors left and right, with probability 0.5; or {"flip", 0.2}
--   {"cutout", 8}                 sets a square of 8 pixels, with its centre anywhere, to 0
--   {"colour_jitter", brightness=0.4, contrast=0.4, saturation=0.4}   random factors from 1 - v to 1 + v
--   {"mixup", 0.2}                mixes with another image, by a share from Beta(0.2, 0.2); batch.y: f32 [n,classes]
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local O = require "atomo.tensor.check_options"
local number = require "atomo.core.number"
local suggest = require "atomo.core.suggest"
local C, raise = f.C, f.raise

local M = {}

local function channel_values(into, from, given, key, channels, default)
  if given ~= nil and (type(given) ~= "table" or #given ~= channels) then
    raise(("loader: %s has %s values, the images have %d channels"):format(
      key, type(given) == "table" and #given or "no", channels))
  end
  for i = 1, channels do
    local v = given and given[i] or default
    if type(v) ~= "number" then raise(("loader: %s[%d] is a %s, expected a number"):format(key, i, type(v))) end
    into[from + i - 1] = v
  end
end

--- The number of a transform, in place 2.
local function amount(name, t, default, least, most)
  local v = t[2]
  if v == nil then v = default end
  local ok = type(v) == "number" and v >= least and v <= most
  if not ok then
    raise(("loader: %s: got %s, expected a number from %g to %g: {\"%s\", %g}"):format(name, number.text(v), least,
      most, name, default or least))
  end
  return v
end

local function pixels(name, t, most)
  local v = amount(name, t, nil, 1, most)
  return number.expect_whole(v, "loader: " .. name, 1, most)
end

-- name -> {kind=, fields = names of further fields, set = function(p, t, o, channels), which checks t and sets p}
local known = {
  normalise = {kind = C.ATOMO_NORMALISE, fields = {mean = true, std = true}, set = function(p, t, o, channels)
    channel_values(p, 0, t.mean or o.mean, "mean", channels, 0)
    channel_values(p, 8, t.std or o.std, "std", channels, 1)
  end},
  crop = {kind = C.ATOMO_CROP, set = function(p, t) p[0] = pixels("crop", t, 4095) end},
  flip = {kind = C.ATOMO_FLIP, set = function(p, t) p[0] = amount("flip", t, 0.5, 0, 1) end},
  cutout = {kind = C.ATOMO_CUTOUT, set = function(p, t) p[0] = pixels("cutout", t, 65535) end},
  colour_jitter = {kind = C.ATOMO_COLOUR_JITTER, fields = {brightness = O.number(0, 100), contrast = O.number(0, 100),
    saturation = O.number(0, 100)}, set = function(p, t)
    p[0], p[1], p[2] = t.brightness or 0, t.contrast or 0, t.saturation or 0
  end},
  mixup = {kind = C.ATOMO_MIXUP, set = function(p, t) p[0] = amount("mixup", t, 0.2, 1e-3, 4) end},
}
known.normalize, known.color_jitter = known.normalise, known.colour_jitter

local function check_fields(name, t, kind)
  local named = {}
  for key, v in pairs(t) do
    if type(key) ~= "number" then named[key] = v
    elseif key > (kind.fields and 1 or 2) then raise(("loader: %s: one value too many"):format(name)) end
  end
  O.check("loader: " .. name, named, kind.fields or {})
end

local function set_one(into, t, o, channels, before)
  local name = type(t) == "table" and t[1] or t
  local kind = type(t) == "table" and known[name]
  if not kind then
    local near = suggest(brief(name), {"normalise", "crop", "flip", "cutout", "colour_jitter", "mixup"})
    raise(("loader: unknown transform %s%s, expected {\"normalise\"}, {\"crop\", 4}, {\"flip\"}, {\"cutout\", 8}, "
      .. "{\"colour_jitter\", brightness=0.4} or {\"mixup\", 0.2}"):format(number.text(name),
      near and (", did you mean {\"%s\"}?"):format(near) or ""))
  end
  check_fields(name, t, kind)
  if kind == known.colour_jitter and before.normalised then
    raise "loader: colour_jitter changes pixels from 0 to 1, so it must stand before normalise"
  end
  before.normalised = before.normalised or kind == known.normalise
  into.kind = kind.kind
  kind.set(into.p, t, o, channels)
end

local function set_list(c, o, channels)
  local most = tonumber(C.ATOMO_MOST_TRANSFORMS)
  if #o.augment > most then raise(("loader: augment has %d transforms, at most %d"):format(#o.augment, most)) end
  local before = {}
  for i, t in ipairs(o.augment) do set_one(c.transform[i - 1], t, o, channels, before) end
  if (o.mean or o.std) and not before.normalised then
    raise "loader: mean and std would have no effect: augment has no {\"normalise\"}"
  end
  c.transforms = #o.augment
end

--- Sets mean, std and augment of C's options from those of a loader.
---@param c ffi.cdata*  atomo_loader_options
---@param o table
---@param channels integer
function M.set(c, o, channels)
  local augment = o.augment
  if augment and type(augment) ~= "table" then
    raise(("loader: augment is %s, expected false, {crop=4, flip=true} or a list of transforms"):format(
      brief(augment)))
  end
  channels = math.min(channels, 8) -- C refuses more
  if augment and #augment > 0 then
    for key in pairs(augment) do
      if type(key) ~= "number" then
        raise(("loader: augment is a list, and has the field '%s', expected {\"crop\", 4} in the list"):format(
          brief(key)))
      end
    end
    return set_list(c, o, channels)
  end
  channel_values(c.mean, 0, o.mean, "mean", channels, 0)
  channel_values(c.std, 0, o.std, "std", channels, 1)
  if not augment then return end
  O.check("loader: augment", augment, {crop = O.whole(0), flip = O.flag})
  c.crop = number.expect_whole(augment.crop == nil and 0 or augment.crop, "loader: augment.crop", 0, 2 ^ 31 - 1)
  c.flip = augment.flip and 1 or 0
end

--- Returns the mean and std by which a loader with these options normalises: options mean and std, or those of the last
--- {"normalise"}.
---@param o table
---@return number[]? mean
---@return number[]? std
function M.normalisation(o)
  local mean, std = o.mean, o.std
  for _, t in ipairs(o.augment or {}) do
    if known[t[1]] == known.normalise then mean, std = t.mean or o.mean, t.std or o.std end
  end
  return mean, std
end

local function text_of(v)
  if type(v) ~= "table" then return type(v) == "number" and ("%.17g"):format(v) or tostring(v) end
  local parts, keys = {}, {}
  for _, each in ipairs(v) do parts[#parts + 1] = text_of(each) end
  for key in pairs(v) do
    if type(key) ~= "number" then keys[#keys + 1] = tostring(key) end
  end
  table.sort(keys)
  for _, key in ipairs(keys) do parts[#parts + 1] = key .. "=" .. text_of(v[key]) end
  return "{" .. table.concat(parts, " ") .. "}"
end

--- Returns augment as text: equal texts mean equal transforms.
function M.text(augment) return augment and text_of(augment) or "none" end

return M
