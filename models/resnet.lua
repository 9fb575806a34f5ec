--- ResNets for 32x32 images [He et al. 2016], blocks with a 1x1 convolution where the shape changes.
--   require("models.resnet").resnet18{classes = 10}
-- resnet20, 32, 44, 56, 110: three stages of 16, 32, 64 channels; resnet18, 34: four stages of 64 to 512, CIFAR stem.
local nn = require("atomo").nn

local Block = nn.Module:extend "BasicBlock"

function Block:init(cin, cout, stride)
  self.conv1 = nn.Conv2d(cin, cout, 3, {stride = stride, padding = 1, bias = false})
  self.bn1 = nn.BatchNorm2d(cout, {relu = true})
  self.conv2 = nn.Conv2d(cout, cout, 3, {padding = 1, bias = false})
  self.bn2 = nn.BatchNorm2d(cout, {relu = true})
  if stride ~= 1 or cin ~= cout then
    self.shortcut = nn.Sequential {
      nn.Conv2d(cin, cout, 1, {stride = stride, bias = false}),
      nn.BatchNorm2d(cout),
    }
  end
end

function Block:forward(x)
  local y = self.bn1(self.conv1(x))
  return self.bn2(self.conv2(y), self.shortcut and self.shortcut(x) or x) -- relu(bn(..) + shortcut)
end

local ResNet = nn.Module:extend "ResNet"

--- stages: a list of {channels, blocks}; every stage but the first starts with stride 2.
function ResNet:init(stages, opts)
  local channels = stages[1][1]
  self.conv1 = nn.Conv2d(opts.channels or 3, channels, 3, {padding = 1, bias = false})
  self.bn1 = nn.BatchNorm2d(channels, {relu = true})
  for s, stage in ipairs(stages) do
    local blocks = nn.Sequential {}
    for b = 1, stage[2] do
      blocks:add(Block(channels, stage[1], s > 1 and b == 1 and 2 or 1))
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
  M["resnet" .. depth] = function(opts) return ResNet({{16, n}, {32, n}, {64, n}}, opts or {}) end
end

for name, plan in pairs {resnet18 = {2, 2, 2, 2}, resnet34 = {3, 4, 6, 3}} do
  M[name] = function(opts)
    return ResNet({{64, plan[1]}, {128, plan[2]}, {256, plan[3]}, {512, plan[4]}}, opts or {})
  end
end

return M
