--- AlexNet for images of 29x29 or more [Krizhevsky et al. 2012], in the form usual for CIFAR: five convolutions, one
-- linear layer.
--   require("models.alexnet").alexnet{classes = 10, shape = {32, 32, 3}}
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local M = {}

function M.alexnet(opts)
  opts = opts or {}
  local channels, h, w = input.image("alexnet", opts, 29)
  local function left(size) return math.floor((math.floor((size - 1) / 4) + 1) / 8) end
  return nn.Sequential {
    conv(channels, 64, 11, {stride = 4, padding = 5}), nn.ReLU(), nn.MaxPool2d(2),
    conv(64, 192, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
    conv(192, 384, 3, {padding = 1}), nn.ReLU(),
    conv(384, 256, 3, {padding = 1}), nn.ReLU(),
    conv(256, 256, 3, {padding = 1}), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(256 * left(h) * left(w), opts.classes or 10),
  }
end

return M
