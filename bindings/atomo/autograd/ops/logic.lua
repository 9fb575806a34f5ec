--- Questions about elements, answered by f32 tensors of 1 (yes) and 0: isnan, isinf, isfinite; logic on such answers;
-- count_nonzero and nonzero; equal and allclose of whole tensors, which answer true or false.
-- Operands may have any dtype; every value except 0, NaN included, counts as true. Nothing has a gradient.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local K = require "atomo.autograd.ops.kernels"
local positions = require "atomo.autograd.ops.positions"
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

-- ---- counting ------------------------------------------------------------------------------------------------------

--- Returns how many elements are not 0 (NaN included).
---@param dim integer? default: over all elements
---@return atomo.Tensor i32
---@usage t:gt(2):count_nonzero():item() --> 2
function Tensor:count_nonzero(dim)
  return truth(T.expect(self, "count_nonzero: tensor")):to("i32"):sum(dim)
end

--- Returns the indices of the elements that are not 0 (NaN included), in row-major order: [n, dim], i32, 1-based. Row k
--- is what t:get takes for element k of them.
---@return atomo.Tensor i32
---@usage t:gt(2):nonzero():get(1, 1) --> 2
function Tensor:nonzero()
  local at = positions.of_ones(truth(T.expect(self, "nonzero: tensor")):contiguous(), "nonzero")
  local sizes, n = self:shape(), self:dim()
  local result = T.empty(at:numel(), n, "i32")
  local from, to = at:data(), result:data()
  for k = 0, at:numel() - 1 do
    local rest = from[k] - 1
    for d = n, 1, -1 do
      to[k * n + d - 1] = rest % sizes[d] + 1
      rest = math.floor(rest / sizes[d])
    end
  end
  return result
end

-- ---- whole tensors -------------------------------------------------------------------------------------------------

local function same_shape(a, b)
  local same = a.h.ndim == b.h.ndim
  for d = 0, a.h.ndim - 1 do same = same and a.h.shape[d] == b.h.shape[d] end
  return same
end

--- Have both tensors the same shape and equal elements? NaN equals nothing.
---@param other atomo.Tensor  of this tensor's dtype
---@return boolean
---@usage t:equal(t:clone()) --> true
function Tensor:equal(other)
  T.expect(self, "equal: tensor")
  T.expect(other, "equal: operand", self:dtype())
  if not same_shape(self, other) then return false end
  local a, b = self:detach(), other:detach()
  if T.is_half(a) then a, b = a:to "f32", b:to "f32" end
  if a:dtype() == "u8" then a, b = a:to "i32", b:to "i32" end
  return binary(C.ATOMO_NE, a, b):count_nonzero():item() == 0
end

local closeness = {rtol = O.number(0), atol = O.number(0), equal_nan = O.flag}

--- Is |t - other| <= atol + rtol |other| for all elements? Equal infinities are close. The shapes broadcast.
---@param other atomo.Tensor
---@param opts {rtol: number?, atol: number?, equal_nan: boolean?}?  defaults 1e-5, 1e-8, false: NaN is close to nothing
---@return boolean
---@usage t:allclose(t + 1e-6) --> true
function Tensor:allclose(other, opts)
  opts = opts == nil and {} or opts
  O.check("allclose", opts, closeness)
  local a = T.expect(self, "allclose: tensor"):detach():to "f32"
  local b = T.expect(other, "allclose: operand"):detach():to "f32"
  local far = (a - b):abs():gt(scalar(C.ATOMO_MUL, b:abs(), opts.rtol or 1e-5) + (opts.atol or 1e-8))
  local nan = a:isnan():logical_or(b:isnan())
  local unequal = a:isinf():logical_or(b:isinf()):logical_and(a:ne(b))
  if opts.equal_nan then nan = a:isnan():logical_xor(b:isnan()) end
  return far:logical_or(unequal):logical_or(nan):count_nonzero():item() == 0
end

return {}
