--- Fills, copies and conversions. As in PyTorch, a method whose name ends in _ changes the tensor itself.
local f = require "atomo.ffi"
local T = require "atomo.tensor.core"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local Tensor, wrap, out = T.Tensor, T.wrap, T.out

--- Begins a change of t's elements in place, by the method `what`. Raises if t.requires_grad is true while operations
--- are recorded, because backward could not follow the change. Otherwise counts the change (atomo_tensor_touch), so
--- that a backward that has saved the old elements refuses the new ones.
local function begin_change(t, what)
  if type(t) == "table" and t.requires_grad and T.recording() then
    raise(what .. ": a tensor that requires a gradient cannot be changed in place while recording; use atomo.no_grad")
  end
  C.atomo_tensor_touch(T.self_handle(t))
end
T.begin_change = begin_change
-- autograd replaces these functions: are operations recorded? does t require a gradient, by its base as well?
T.recording = function() return false end
T.tracked = function(t) return t.requires_grad end

--- Raises if t requires a gradient, operations are being recorded, and its elements are to become `dtype`, f16 or bf16,
--- through which no gradient flows.
function T.refuse_half(dtype, what, t)
  if (dtype == "f16" or dtype == "bf16") and T.recording() and T.tracked(t) then
    raise(("%s: no gradient flows through %s; use t:detach(), or atomo.autocast for products in bf16"):format(what,
      dtype))
  end
end

--- Sets every element to v. Raises if v does not fit the dtype.
---@param v number
---@return atomo.Tensor self
---@usage atomo.zeros(2):fill_(3):get(2) --> 3
function Tensor:fill_(v)
  local value = number.element(v, Tensor.dtype(self), "fill_")
  begin_change(self, "fill_")
  check(C.atomo_fill(self.h, value))
  return self
end
--- Sets every element to 0.
---@return atomo.Tensor self
---@usage t:clone():zero_():sum():item() --> 0
function Tensor:zero_() return Tensor.fill_(self, 0) end

--- Copies tensor u into this one; u is broadcast and converted to this tensor's dtype. A number fills the tensor.
---@param u atomo.Tensor|number
---@return atomo.Tensor self
---@usage atomo.zeros(2, 2):copy_(t):get(2, 2) --> 4
function Tensor:copy_(u)
  if type(u) == "number" or type(u) == "cdata" then return self:fill_(u) end
  T.expect(u, "copy_: source")
  begin_change(self, "copy_")
  check(C.atomo_copy(self.h, u.h))
  return self
end

--- self += alpha * x
---@param alpha number
---@param x atomo.Tensor
---@return atomo.Tensor self
---@usage t:clone():axpy_(2, t):get(1, 1) --> 3
function Tensor:axpy_(alpha, x)
  T.expect(x, "axpy_: x")
  alpha = number.expect(alpha, "axpy_: alpha")
  begin_change(self, "axpy_")
  check(C.atomo_axpy(self.h, alpha, x.h))
  return self
end

--- Raises for a third operand: add(number, tensor) of Torch and add(tensor, alpha) of PyTorch are not supported.
function T.no_third(name)
  raise(("%s: got a third operand, expected one or two; a + s * b is t:axpy_(s, b), or a + b * s"):format(name))
end

local function in_place(name, op)
  Tensor[name] = function(self, u, more)
    if more ~= nil then T.no_third(name) end
    begin_change(self, name)
    local o = out()
    o[0] = self.h
    local scalar = number.of(u)
    if scalar then
      check(C.atomo_scalar(op, self.h, scalar, 0, o))
    else
      T.expect(u, name .. ": operand")
      check(C.atomo_binary(op, self.h, u.h, o))
    end
    return self
  end
end
in_place("add_", C.ATOMO_ADD)
in_place("sub_", C.ATOMO_SUB)
in_place("mul_", C.ATOMO_MUL)
in_place("div_", C.ATOMO_DIV)
in_place("pow_", C.ATOMO_POW)
in_place("maximum_", C.ATOMO_MAXIMUM)
in_place("minimum_", C.ATOMO_MINIMUM)

local largest = 3.4028234663852886e38

--- Fills with uniform random numbers in [lo, hi), default [0, 1).
---@param lo number? default 0
---@param hi number? default 1
---@return atomo.Tensor self
---@usage atomo.zeros(3):uniform_(-1, 1)
function Tensor:uniform_(lo, hi)
  lo, hi = lo == nil and 0 or number.expect(lo, "uniform_: lo"), hi == nil and 1 or number.expect(hi, "uniform_: hi")
  if not (lo <= hi and lo >= -largest and hi <= largest and hi - lo <= largest) then
    raise(("uniform_: from %g to %g, expected finite bounds, the lower first"):format(lo, hi))
  end
  begin_change(self, "uniform_")
  check(C.atomo_fill_uniform(self.h, lo, hi))
  return self
end

--- Fills with normal random numbers, by default of mean 0 and standard deviation 1.
---@param mean number? default 0
---@param std number? default 1
---@return atomo.Tensor self
---@usage atomo.zeros(3):normal_(0, 0.1)
function Tensor:normal_(mean, std)
  mean = mean == nil and 0 or number.expect(mean, "normal_: mean")
  std = std == nil and 1 or number.expect(std, "normal_: std")
  if not (math.abs(mean) <= largest and std >= 0 and std <= largest) then
    raise(("normal_: mean %g, std %g, expected finite numbers, std at least 0"):format(mean, std))
  end
  begin_change(self, "normal_")
  check(C.atomo_fill_normal(self.h, mean, std))
  return self
end

--- Returns the elements converted to dtype; self if it already has that dtype and not `always`. f16 and bf16 round to
--- nearest, ties to even; they are for storage, and gradients do not flow through them: while recording, a tensor that
--- requires a gradient is refused.
---@param dtype "f32"|"i32"|"u8"|"f16"|"bf16"
---@param always boolean? true: a copy even if the dtype is the same
---@return atomo.Tensor
---@usage t:to("u8"):dtype() --> u8
function Tensor:to(dtype, always)
  T.self_handle(self)
  local d = T.dtype_of(dtype, "to")
  if d == self.h.dtype and not always then return self end
  T.refuse_half(T.dtype_names[d], "to", self)
  local t = T.create(self.h.shape, self.h.ndim, d)
  check(C.atomo_copy(t.h, self.h))
  return t
end
--- Returns the elements as f32; self if they are.
---@return atomo.Tensor
---@usage atomo.ones(2, "i32"):float():dtype() --> f32
function Tensor:float() return Tensor.to(self, "f32") end
--- Returns the elements as i32; self if they are.
---@return atomo.Tensor
---@usage t:int():dtype() --> i32
function Tensor:int() return Tensor.to(self, "i32") end

--- A view of the same elements outside the graph.
---@return atomo.Tensor
---@usage t:detach():numel() --> 4
function Tensor:detach()
  local h, o = T.self_handle(self), out()
  check(C.atomo_tensor_view(h, h.ndim, h.shape, h.stride, 0, o))
  return wrap(o[0])
end

--- Number of NaN and Inf entries.
---@return integer
---@usage t:count_nonfinite() --> 0
function Tensor:count_nonfinite()
  local count, first = ffi.new "double[1]", ffi.new "double[1]"
  check(C.atomo_count_nonfinite(T.self_handle(self), count, first))
  local at = f.number(first)
  return f.number(count), at >= 0 and at + 1 or nil
end

local crc = ffi.new "double[1]"

--- CRC-32 of t's elements in row-major order, whatever its strides.
---@return number
function T.crc(t)
  local whole = t:is_contiguous() and t or t:detach():contiguous()
  check(C.atomo_tensor_crc(whole.h, crc))
  if whole ~= t then whole:free() end
  return f.number(crc)
end

local list_type, most = ffi.typeof "const atomo_tensor *[?]", 16
local handles, which = list_type(most), ffi.new "int[1]"

--- Returns the index of the first tensor in list with a NaN or Inf element; nil if all are finite.
---@param list atomo.Tensor[]  with n given, an entry may be false (skipped)
---@param n integer?           length of list
---@return integer?
---@usage atomo.find_nonfinite {atomo.ones(2), atomo.full({2}, 0 / 0)} --> 2
function T.find_nonfinite(list, n)
  local holes = n ~= nil
  if holes and type(list) == "table" then
    n = number.expect_whole(n, "find_nonfinite: n", 0)
  else
    n = length(list, "find_nonfinite")
  end
  if n > most then
    most = 2 * n
    handles = list_type(most)
  end
  for i = 1, n do
    handles[i - 1] = (not holes or list[i]) and T.expect(list[i], "find_nonfinite: tensor").h or nil
  end
  check(C.atomo_find_nonfinite(handles, n, which))
  local at = f.number(which)
  return at >= 0 and at + 1 or nil
end

return T
