--- Brings an image to the size and the channels that a network was trained on.
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise

--- Returns image u8 [h,w,k] with c channels: gray as three equal ones, colours as their luma (ITU-R BT.601), without
--- alpha.
local function with_channels(image, c)
  local h, w, k = image:size(1), image:size(2), image:size(3)
  if k == c then return image end
  if c ~= 1 and c ~= 3 or k < 1 or k > 4 then
    raise(("image: it has %d channels, the network takes %d"):format(k, c))
  end
  local out, from = T.empty({h, w, c}, "u8"), image:data()
  local to = out:data()
  for i = 0, h * w - 1 do
    local p = from + i * k
    if k < 3 then
      for j = 0, c - 1 do to[i * c + j] = p[0] end
    elseif c == 3 then
      for j = 0, 2 do to[i * 3 + j] = p[j] end
    else
      to[i] = math.floor(0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2] + 0.5)
    end
  end
  return out
end

--- Returns, for each of n output positions, the first input position and the weights of those from there on: a triangle
--- as wide as the output's pixels, so that an image that shrinks is averaged.
local function weights_of(n, first, scale, from_size)
  local reach, list = math.max(scale, 1), {}
  for i = 0, n - 1 do
    local centre = first + (i + 0.5) * scale
    local low = math.max(0, math.floor(centre - reach))
    local high = math.min(from_size - 1, math.ceil(centre + reach) - 1)
    local entry, sum = {low}, 0
    for j = low, high do
      local weight = math.max(0, 1 - math.abs(j + 0.5 - centre) / reach)
      entry[#entry + 1], sum = weight, sum + weight
    end
    for j = 2, #entry do entry[j] = entry[j] / sum end
    list[i + 1] = entry
  end
  return list
end

--- Returns f32 [n, rest] of x [h, rest]: sums of rows by weights.
local function mix_rows(x, weights)
  local rest = x:size(2)
  local out, from = T.zeros(#weights, rest), x:data()
  local to = out:data()
  for i, entry in ipairs(weights) do
    for j = 2, #entry do
      local weight, row = entry[j], from + (entry[1] + j - 2) * rest
      for k = 0, rest - 1 do to[k] = to[k] + weight * row[k] end
    end
    to = to + rest
  end
  return out
end

--- Returns an image u8 [h,w,c] of any size as u8 of `shape` = {h, w, c}: scaled so that it covers that size, and the
--- middle of it. An image of that shape is returned as it is.
---@param image atomo.Tensor
---@param shape integer[]
---@return atomo.Tensor
return function(image, shape)
  local h, w, c = unpack(shape)
  image = with_channels(image, c)
  local from_h, from_w = image:size(1), image:size(2)
  if from_h == h and from_w == w then return image end
  local scale = math.min(from_h / h, from_w / w) -- input pixels per output pixel
  local rows = weights_of(h, (from_h - scale * h) / 2, scale, from_h)
  local columns = weights_of(w, (from_w - scale * w) / 2, scale, from_w)
  local mixed = mix_rows(image:float():view(from_h, from_w * c), rows)
  local turned = mixed:view(h, from_w, c):transpose(1, 2):contiguous():view(from_w, h * c)
  local both = mix_rows(turned, columns):view(w, h, c):transpose(1, 2):contiguous()
  return (both + 0.5):floor():clamp(0, 255):to "u8"
end
