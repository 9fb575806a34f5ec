--- ResNets for small images [He et al. 2016]; the shortcut has a 1x1 convolution if the shape changes.
--   require("models.resnet").resnet18{classes = 10}
-- resnet20, 32, 44, 56, 110: three stages of 16, 32, 64 channels. resnet18, 34, 50, 101, 152: four stages of 64 to 512
-- with a CIFAR stem; from 50 on with bottleneck blocks, whose outputs have four times as many channels.
local nn = require("atomo").nn
local conv = require "models.conv"
local input = require "models.input"

--- Returns a 1x1 convolution if the block changes the shape, else nil (x itself is added).
local function shortcut(cin, cout, stride)
  if stride == 1 and cin == cout then return nil end
  return nn.Sequential {conv(cin, cout, 1, {stride = stride, bias = false}), nn.BatchNorm2d(cout)}
end

local Block = nn.Module:extend "BasicBlock"
Block.torch_names = {shortcut = "downsample"} -- torchvision's name

function Block:init(cin, cout, stride)
  self.conv1 = conv(cin, cout, 3, {stride = stride, padding = 1, bias = false})
  self.bn1 = nn.BatchNorm2d(cout, {relu = true})
  self.conv2 = conv(cout, cout, 3, {padding = 1, bias = false})
  self.bn2 = nn.BatchNorm2d(cout, {relu = true})
  self.shortcut = shortcut(cin, cout, stride)
end

function Block:forward(x)
  local y = self.bn1(self.conv1(x))
  return self.bn2(self.conv2(y), self.shortcut and self.shortcut(x) or x) -- relu(bn(..) + shortcut)
end

local Bottleneck = nn.Module:extend "Bottleneck"
Bottleneck.torch_names = {shortcut = "downsample"}

function Bottleneck:init(cin, cout, stride)
  local inner = cout / 4
  self.conv1 = conv(cin, inner, 1, {bias = false})
  self.bn1 = nn.BatchNorm2d(inner, {relu = true})
  self.conv2 = conv(inner, inner, 3, {stride = stride, padding = 1, bias = false})
  self.bn2 = nn.BatchNorm2d(inner, {relu = true})
  self.conv3 = conv(inner, cout, 1, {bias = false})
  self.bn3 = nn.BatchNorm2d(cout, {relu = true})
  self.shortcut = shortcut(cin, cout, stride)
end

function Bottleneck:forward(x)
  local y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
  return self.bn3(self.conv3(y), self.shortcut and self.shortcut(x) or x)
end

local ResNet = nn.Module:extend "ResNet"

--- name: for error texts; stages: a list of {channels, number of blocks}; Unit: class of the blocks. Every stage except
--- the first starts with stride 2.
function ResNet:init(name, stem, stages, Unit, opts)
  local channels = stem
  self.conv1 = conv((input.image(name, opts)), channels, 3, {padding = 1, bias = false})
  self.bn1 = nn.BatchNorm2d(channels, {relu = true})
  for s, stage in ipairs(stages) do
    local blocks = nn.Sequential {}
    for b = 1, stage[2] do
      blocks:add(Unit(channels, stage[1], s > 1 and b == 1 and 2 or 1))
      channels = stage[1]
    end
    self["layer" .. s] = blocks
  end
  self.stages = #stages
  self.pool = nn.GlobalAvgPool()
  self.fc = nn.Linear(channels, opts.classes or 10)
end

function ResNet:forward(x)
  x = self.bn1(self.conv1(x))
  for s = 1, self.stages do x = self["layer" .. s](x) end
  return self.fc(self.pool(x))
end

local M = {}

--- depth = 6 n + 2: three stages of n blocks.
for _, depth in ipairs {20, 32, 44, 56, 110} do
  local n = (depth - 2) / 6
  local name = "resnet" .. depth
  M[name] = function(opts) return ResNet(name, 16, {{16, n}, {32, n}, {64, n}}, Block, opts or {}) end
end

--- Number of blocks in each of the four stages.
local plans = {
  resnet18 = {2, 2, 2, 2}, resnet34 = {3, 4, 6, 3},
  resnet50 = {3, 4, 6, 3}, resnet101 = {3, 4, 23, 3}, resnet152 = {3, 8, 36, 3},
}
for name, plan in pairs(plans) do
  local deep = tonumber(name:match "%d+") >= 50
  local unit, wide = deep and Bottleneck or Block, deep and 4 or 1
  M[name] = function(opts)
    local stages = {}
    for s, blocks in ipairs(plan) do stages[s] = {wide * 64 * 2 ^ (s - 1), blocks} end
    return ResNet(name, 64, stages, unit, opts or {})
  end
end

return M
