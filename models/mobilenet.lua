--- MobileNet for small images [Howard et al. 2017]: pairs of a depthwise convolution (3x3, each channel separately) and
-- a 1x1 convolution.
--   require("models.mobilenet").mobilenet{classes = 10}
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local M = {}

-- plan: output channels of the pairs; halves: pairs that halve height and width
local plan = {64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024}
local halves = {[2] = true, [4] = true, [6] = true, [12] = true}

function M.mobilenet(opts)
  opts = opts or {}
  local net, channels = nn.Sequential {}, 32
  local function block(cin, cout, kernel, o)
    o.bias = false
    net:add(conv(cin, cout, kernel, o)):add(nn.BatchNorm2d(cout, {relu = true}))
  end
  block((input.image("mobilenet", opts)), channels, 3, {padding = 1})
  for i, cout in ipairs(plan) do
    block(channels, channels, 3, {padding = 1, stride = halves[i] and 2 or 1, groups = channels})
    block(channels, cout, 1, {})
    channels = cout
  end
  return net:add(nn.GlobalAvgPool()):add(nn.Linear(channels, opts.classes or 10))
end

return M
