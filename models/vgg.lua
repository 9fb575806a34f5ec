--- VGG with batch norm for images of 32x32 or more [Simonyan & Zisserman 2015].
--   require("models.vgg").vgg11{classes = 10, shape = {32, 32, 3}}
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local M = {}

local function vgg(name, plan, opts)
  opts = opts or {}
  local channels, h, w = input.image(name, opts, 32)
  local net = nn.Sequential {}
  for _, v in ipairs(plan) do
    if v == "M" then
      net:add(nn.MaxPool2d(2))
    else
      net:add(conv(channels, v, 3, {padding = 1})):add(nn.BatchNorm2d(v, {relu = true}))
      channels = v
    end
  end
  net:add(nn.Flatten())
  local inputs = 512 * math.floor(h / 32) * math.floor(w / 32)
  for i = 1, 2 do net:add(nn.Dropout()):add(nn.Linear(i == 1 and inputs or 512, 512)):add(nn.ReLU()) end
  return net:add(nn.Linear(512, opts.classes or 10))
end

local plans = {
  vgg11 = {64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"},
  vgg13 = {64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"},
  vgg16 = {64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"},
  vgg19 = {64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"},
}
for name, plan in pairs(plans) do
  M[name] = function(opts) return vgg(name, plan, opts) end
end

return M
