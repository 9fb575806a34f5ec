--- Views of a contiguous tensor's elements in a row, of one dimension and outside autograd's records.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, check, ffi = f.C, f.check, f.ffi

local size, stride = ffi.new "double[1]", ffi.new("double[1]", 1)

--- Returns a view of t's elements first + 1 .. first + n.
---@param t atomo.Tensor  contiguous
---@param first integer
---@param n integer
---@return atomo.Tensor
return function(t, first, n)
  local out = T.out()
  size[0] = n
  check(C.atomo_tensor_view(t.h, 1, size, stride, first, out))
  return T.wrap(out[0])
end
