--- DenseNets with bottlenecks and compression ("BC") for images of 4x4 or more [Huang et al. 2017]: the input of
-- every layer is the output of all layers before it in its block.
--   require("models.densenet").densenet100_12{classes = 10}        -- depth 100, growth 12
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local function identity(x) return x end

--- A layer: 1x1 convolution to 4 * growth channels, 3x3 to growth channels, joined to the input.
local function layer(channels, growth, dropout)
  return nn.Concat {identity, nn.Sequential {
    nn.BatchNorm2d(channels, {relu = true}), conv(channels, 4 * growth, 1, {bias = false}),
    nn.BatchNorm2d(4 * growth, {relu = true}), conv(4 * growth, growth, 3, {padding = 1, bias = false}),
    nn.Dropout(dropout),
  }}
end

--- depth = 6 n + 4: three blocks of n layers. Between blocks the channels are halved, and height and width, too.
local function densenet(name, depth, growth, opts)
  opts = opts or {}
  local channels = 2 * growth
  local net = nn.Sequential {conv((input.image(name, opts, 4)), channels, 3, {padding = 1, bias = false})}
  for block = 1, 3 do
    for _ = 1, (depth - 4) / 6 do
      net:add(layer(channels, growth, opts.dropout or 0))
      channels = channels + growth
    end
    net:add(nn.BatchNorm2d(channels, {relu = true}))
    if block < 3 then
      local half = math.floor(channels / 2)
      net:add(conv(channels, half, 1, {bias = false})):add(nn.AvgPool2d(2))
      channels = half
    end
  end
  return net:add(nn.GlobalAvgPool()):add(nn.Linear(channels, opts.classes or 10))
end

local M = {}

for _, plan in ipairs {{40, 12}, {100, 12}, {190, 40}} do
  local name = ("densenet%d_%d"):format(unpack(plan))
  M[name] = function(opts) return densenet(name, plan[1], plan[2], opts) end
end

return M
