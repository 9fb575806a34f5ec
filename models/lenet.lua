--- LeNet for images of 16x16 or more: two 5x5 convolutions with pooling, two linear layers.
--   require("models.lenet").lenet{classes = 10, shape = {32, 32, 3}}
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local M = {}

function M.lenet(opts)
  opts = opts or {}
  local channels, h, w = input.image("lenet", opts, 16)
  local function left(size) return math.floor((math.floor((size - 4) / 2) - 4) / 2) end
  return nn.Sequential {
    conv(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
    conv(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(),
    nn.Flatten(), nn.Linear(50 * left(h) * left(w), 500), nn.ReLU(), nn.Linear(500, opts.classes or 10),
  }
end

return M
