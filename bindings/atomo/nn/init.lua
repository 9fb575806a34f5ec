--- atomo.nn: layers. Names and defaults are PyTorch's; a file or a small group of layers each, gathered here.
local base = require "atomo.nn.module"

local nn = {Module = base.Module, is_module = base.is_module, init = require "atomo.nn.initial"}

for _, name in ipairs {"container", "conv", "linear", "norm", "pool", "activation"} do
  for class_name, class in pairs(require("atomo.nn." .. name)) do nn[class_name] = class end
end

return nn
