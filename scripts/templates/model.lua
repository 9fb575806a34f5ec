--- NAME: a network for train_cifar.lua --model NAME.lua. A model file returns a function of {classes=, shape=} that
-- returns a module.
--   atomo-lua NAME.lua    prints the network and runs it once
local atomo = require "atomo"
local nn = atomo.nn

--- A convolution whose result is added to its input.
local Block = nn.Module:extend "Block"

function Block:init(channels) -- layers that are assigned to fields are registered
  self.conv = nn.Conv2d(channels, channels, 3, {padding = 1, bias = false})
  self.norm = nn.BatchNorm2d(channels)
end

function Block:forward(x) -- x [N,H,W,channels]
  return (self.norm(self.conv(x)) + x):relu()
end

--- Makes the network for images of a shape {height, width, channels}.
local function make(opts)
  local channels = opts.shape and opts.shape[3] or 3
  return nn.Sequential {
    nn.Conv2d(channels, 16, 3, {stride = 2, padding = 1}), nn.ReLU(),
    Block(16), nn.MaxPool2d(2), Block(16),
    nn.GlobalAvgPool(), nn.Linear(16, opts.classes or 10),
  }
end

if arg and arg[0] and arg[0]:find("NAME%.lua$") then -- run as a script
  local model = make {classes = 10, shape = {32, 32, 3}}
  print(model)
  print(("%d parameters; 2 images give logits [%s]"):format(model:num_parameters(),
    table.concat(model(atomo.randn(2, 32, 32, 3)):shape(), ",")))
end

return make
