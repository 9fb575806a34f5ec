--- The differentiable operators of tensors, each one autograd.func; they are methods of Tensor.
for _, part in ipairs {"arithmetic", "functions", "reduce", "norm", "scan", "products"} do
  require("atomo.autograd.ops." .. part)
end
local M = require "atomo.autograd.ops.views" -- cat, stack
require "atomo.autograd.ops.statistics"
for _, part in ipairs {"select", "einsum", "rearrange", "scatter", "logic", "diagonals"} do
  for name, fn in pairs(require("atomo.autograd.ops." .. part)) do M[name] = fn end
end
require "atomo.autograd.ops.linalg"
require "atomo.autograd.ops.in_place"
return M
