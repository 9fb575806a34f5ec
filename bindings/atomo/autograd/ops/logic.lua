--- Questions about elements, answered by f32 tensors of 1 (yes) and 0: isnan, isinf, isfinite; logic on such answers.
-- Operands may have any dtype; what is not 0, NaN included, counts as true. Nothing has a gradient.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local C = f.C
local Tensor = T.Tensor
local unary, binary, scalar, truth = K.unary, K.binary, K.scalar, K.truth

local largest = 3.4028234663852886e38

--- Makes a question about floats; i32 and u8 elements are all finite.
local function question(name, ask, of_integers)
  Tensor[name] = function(self)
    local dtype = T.expect(self, name .. ": tensor"):dtype()
    if dtype == "i32" or dtype == "u8" then return T.full(self:shape(), of_integers) end
    return ask(self:detach():to "f32")
  end
end
question("isnan", function(t) return binary(C.ATOMO_NE, t, t) end, 0)
question("isinf", function(t) return scalar(C.ATOMO_EQ, unary(C.ATOMO_ABS, t), math.huge) end, 0)
question("isfinite", function(t) return scalar(C.ATOMO_LE, unary(C.ATOMO_ABS, t), largest) end, 1)

--- Returns 1 where an element is 0, else 0.
---@return atomo.Tensor f32
---@usage t:gt(2):logical_not():sum():item() --> 2
function Tensor:logical_not()
  return scalar(C.ATOMO_EQ, truth(T.expect(self, "logical_not: tensor")), 0)
end

--- Makes a logical operator of two tensors, which broadcast. op: on 0 and 1.
local function logical(name, op)
  Tensor[name] = function(self, other)
    T.expect(self, name .. ": tensor")
    return binary(op, truth(self), truth(T.expect(other, name .. ": operand")))
  end
end
logical("logical_and", C.ATOMO_MUL)
logical("logical_or", C.ATOMO_MAXIMUM)
logical("logical_xor", C.ATOMO_NE)

return {}
