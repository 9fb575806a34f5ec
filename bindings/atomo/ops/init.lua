--- The differentiable operators of tensors, each one autograd.func; they are methods of Tensor.
for _, part in ipairs {"arithmetic", "functions", "reduce", "products"} do require("atomo.ops." .. part) end
return require "atomo.ops.views" -- cat, stack
