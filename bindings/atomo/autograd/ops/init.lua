--- The differentiable operators of tensors, each one autograd.func; they are methods of Tensor.
for _, part in ipairs {"arithmetic", "functions", "reduce", "products"} do require("atomo.autograd.ops." .. part) end
local views = require "atomo.autograd.ops.views" -- cat, stack
require "atomo.autograd.ops.in_place"
return views
