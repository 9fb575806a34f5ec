--- Tensors: strided views of native memory. f32 by default, i32 for labels and indices, u8 for images and bytes.
-- Row-major; indices and dimensions are 1-based; images are N,H,W,C. Operators with gradients are in
-- atomo.autograd.ops.
local f = require "atomo.ffi"
local T = require "atomo.tensor.core"
local number = require "atomo.core.number"
for _, part in ipairs {"make", "sequences", "inspect", "order", "fill", "print", "index"} do
  require("atomo.tensor." .. part)
end

--- Sets the number of OpenMP threads that the kernels of this process use.
---@param n integer at least 1
---@usage atomo.set_num_threads(1)
function T.set_num_threads(n)
  f.check(f.C.atomo_set_num_threads(number.expect_whole(n, "set_num_threads: number", 1, 2 ^ 31 - 1)))
end
--- Returns the number of OpenMP threads that the kernels of this process use.
---@return integer
---@usage atomo.num_threads() >= 1 --> true
function T.num_threads() return f.C.atomo_num_threads() end

return T
