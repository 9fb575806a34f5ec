--- AlexNet for 32x32 images [Krizhevsky et al. 2012], in the form usual for CIFAR: five convolutions, one linear layer.
--   require("models.alexnet").alexnet{classes = 10}
local nn = require("atomo").nn
local conv = require "models.conv"

local M = {}

function M.alexnet(opts)
  opts = opts or {}
  return nn.Sequential {
    conv(opts.channels or 3, 64, 11, {stride = 4, padding = 5}), nn.ReLU(), nn.MaxPool2d(2),
    conv(64, 192, 5, {padding = 2}), nn.ReLU(), nn.MaxPool2d(2),
    conv(192, 384, 3, {padding = 1}), nn.ReLU(),
    conv(384, 256, 3, {padding = 1}), nn.ReLU(),
    conv(256, 256, 3, {padding = 1}), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(256, opts.classes or 10),
  }
end

return M
