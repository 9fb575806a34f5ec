--- LeNet for 32x32 images: two 5x5 convolutions with pooling, two linear layers.
--   require("models.lenet").lenet{classes = 10}
local nn = require("atomo").nn
local conv = require "models.conv"

local M = {}

function M.lenet(opts)
  opts = opts or {}
  return nn.Sequential {
    conv(opts.channels or 3, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
    conv(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(),
    nn.Flatten(), nn.Linear(1250, 500), nn.ReLU(), nn.Linear(500, opts.classes or 10),
  }
end

return M
