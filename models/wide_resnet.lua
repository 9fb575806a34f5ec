--- Wide ResNets for small images [Zagoruyko & Komodakis 2016]: pre-activation blocks, `widen` times as many channels.
--   require("models.wide_resnet").wide_resnet28_10{classes = 10, dropout = 0.3}
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

local Block = nn.Module:extend "WideBlock"

function Block:init(cin, cout, stride, dropout)
  self.bn1 = nn.BatchNorm2d(cin, {relu = true})
  self.conv1 = conv(cin, cout, 3, {stride = stride, padding = 1, bias = false})
  self.bn2 = nn.BatchNorm2d(cout, {relu = true})
  self.dropout = nn.Dropout(dropout)
  self.conv2 = conv(cout, cout, 3, {padding = 1, bias = false})
  if stride ~= 1 or cin ~= cout then
    self.shortcut = conv(cin, cout, 1, {stride = stride, bias = false})
  end
end

function Block:forward(x)
  local y = self.bn1(x)
  local shortcut = self.shortcut and self.shortcut(y) or x
  return self.conv2(self.dropout(self.bn2(self.conv1(y)))) + shortcut
end

--- depth = 6 n + 4: three stages of n blocks.
local function wide_resnet(name, depth, widen, opts)
  opts = opts or {}
  local net = nn.Sequential {conv((input.image(name, opts)), 16, 3, {padding = 1, bias = false})}
  local channels = 16
  for stage = 1, 3 do
    for block = 1, (depth - 4) / 6 do
      local cout = widen * 16 * 2 ^ (stage - 1)
      net:add(Block(channels, cout, stage > 1 and block == 1 and 2 or 1, opts.dropout or 0))
      channels = cout
    end
  end
  net:add(nn.BatchNorm2d(channels, {relu = true}))
  return net:add(nn.GlobalAvgPool()):add(nn.Linear(channels, opts.classes or 10))
end

local M = {}

for _, plan in ipairs {{16, 4}, {16, 8}, {28, 10}, {40, 2}, {40, 4}} do
  local name = ("wide_resnet%d_%d"):format(unpack(plan))
  M[name] = function(opts) return wide_resnet(name, plan[1], plan[2], opts) end
end

return M
