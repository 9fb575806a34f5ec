--- Reading tensors: shapes, elements, pointers.
-- Indices and dimensions are 1-based, negative dimensions count from the end.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local T = require "atomo.tensor.core"
local number = require "atomo.core.number"
local ffi, C, raise = f.ffi, f.C, f.raise
local Tensor, is_tensor, pointer_types, self_handle = T.Tensor, T.is_tensor, T.pointer_types, T.self_handle

--- Returns the number of dimensions.
---@return integer
---@usage t:dim() --> 2
function Tensor:dim() return self_handle(self).ndim end
--- Returns the number of elements.
---@return integer
---@usage t:numel() --> 4
function Tensor:numel() return self_handle(self).numel end
--- Returns the name of the element type.
---@return "f32"|"i32"|"u8"|"f16"|"bf16"
---@usage t:dtype() --> f32
function Tensor:dtype() return T.dtype_names[self_handle(self).dtype] end
--- Returns the bytes of one element.
---@return integer
---@usage t:element_size() --> 4
function Tensor:element_size() return T.element_sizes[Tensor.dtype(self)] end
--- Are the elements in row-major order without gaps?
---@return boolean
---@usage t:t():is_contiguous() --> false
function Tensor:is_contiguous() return C.atomo_tensor_is_contiguous(T.self_handle(self)) == 1 end

--- Returns the sizes of all dimensions as a list.
---@return number[]
---@usage #t:shape() --> 2
function Tensor:shape()
  local s, h = {}, self_handle(self)
  for i = 1, h.ndim do s[i] = h.shape[i - 1] end
  return s
end

--- Converts a dimension from 1-based (or negative) to 0-based; raises if t has no such dimension.
local function dimension(t, d, what)
  local n = T.self_handle(t).ndim
  local i = number.whole(d, -n, n)
  if not i or i == 0 then
    raise(("%s: dimension %s of a tensor with %d (1 to %d, or -%d to -1)"):format(what,
      type(d) == "table" and "{...} (one at a time)" or brief(d), n, n, n))
  end
  return i < 0 and n + i or i - 1
end
T.dimension = dimension

--- Returns the size of dimension i; without i all sizes, as t:shape().
---@param i integer dimension
---@return I|number[]
---@usage t:size(-1) --> 2
function Tensor:size(i)
  if i == nil then return Tensor.shape(self) end
  return self.h.shape[dimension(self, i, "size")]
end

--- "[2,3]"
function T.shape_text(t)
  local sizes = {}
  for i, n in ipairs(is_tensor(t) and t:shape() or t) do sizes[i] = brief(n) end
  return "[" .. table.concat(sizes, ",") .. "]"
end
local shape_text = T.shape_text

local function pointer(t) return ffi.cast(pointer_types[t:dtype()], t.h.data) end

local words = ffi.typeof "const uint32_t *"

--- Returns whether t's elements are codes of 16 bits (f16, bf16), whose values are read by a conversion to f32.
local function is_half(t) return t.h.dtype == C.ATOMO_F16 or t.h.dtype == C.ATOMO_BF16 end
T.is_half = is_half

--- Raises for a tensor of f16 or bf16, which stores numbers only.
---@param t atomo.Tensor
---@param who string  the function in the error
function T.expect_numbers(t, who)
  if not is_half(t) then return end
  f.raise(("%s: does not compute with %s, convert it first (t:to \"f32\")"):format(who, t:dtype()))
end

--- Returns element `at` of t (0-based offset in memory), which is not f16 or bf16. LuaJIT represents its other types as
--- NaNs, so a foreign NaN (from a file or uninitialised memory) could be read as nil or a string: it is replaced by the
--- usual NaN.
function T.element(t, at)
  if t.h.dtype == C.ATOMO_F32 then
    local bits = ffi.cast(words, t.h.data)[at]
    if bits % 2 ^ 31 > 0x7f800000 and bits % 2 ^ 31 ~= 0x7fc00000 then return -(0 / 0) end
  end
  return f.number(pointer(t), at)
end
local element = T.element

--- Returns a 0-based pointer to the elements (float *, int32_t *, uint8_t *; uint16_t * to the codes of f16 and bf16),
--- for tight loops. Raises unless the tensor is contiguous. The tensor must outlive the pointer.
---@return ffi.cdata* float *, int32_t *, uint8_t * or uint16_t *
---@usage t:data()[3] --> 4
function Tensor:data()
  if C.atomo_tensor_is_contiguous(self_handle(self)) == 0 then
    raise(("data: tensor %s is not contiguous, call :contiguous() first"):format(shape_text(self)))
  end
  C.atomo_tensor_expose(self.h)
  return pointer(self)
end

local function offset_of(t, what, ...)
  local h, n = self_handle(t), select("#", ...)
  if n ~= h.ndim then
    raise(("%s: %d indices for a tensor of %d dimensions"):format(what, n, h.ndim))
  end
  local at = 0
  for d = 0, n - 1 do
    local given = select(d + 1, ...)
    local i = number.whole(given, 1, h.shape[d])
    if not i then
      raise(("%s: index %s in dimension %d, expected 1 to %d"):format(what, brief(given), d + 1, h.shape[d]))
    end
    at = at + (i - 1) * h.stride[d]
  end
  return at
end

--- Returns a view of the one element `at`, an offset in elements.
local function one(t, at)
  local o = T.out()
  f.check(C.atomo_tensor_view(t.h, 0, t.h.shape, t.h.stride, at, o))
  return T.wrap(o[0])
end

--- Returns the element `at` of t, of any dtype.
local function value_at(t, at)
  if not is_half(t) then return element(t, at) end
  local scalar = T.create(t.h.shape, 0, C.ATOMO_F32)
  f.check(C.atomo_copy(scalar.h, one(t, at).h))
  return element(scalar, 0)
end

--- Returns one element. Indices are 1-based; raises for an index that is out of range.
---@param ... integer one index for each dimension
---@return number
---@usage t:get(2, 1) --> 3
function Tensor:get(...)
  local at = offset_of(self, "get", ...)
  return value_at(self, at)
end

--- Sets one element: t:set(i, j, value). Indices are 1-based; raises if the value does not fit the dtype.
---@param ... number indices, then the value
---@return atomo.Tensor self
---@usage t:set(1, 1, 9):get(1, 1) --> 9
function Tensor:set(...)
  local n = select("#", ...)
  self_handle(self)
  if n == 0 then raise "set: value is missing, expected indices and a number" end
  local value = number.element((select(n, ...)), self:dtype(), "set: value")
  local index = {...}
  local at = offset_of(self, "set", unpack(index, 1, n - 1))
  if is_half(self) then f.check(C.atomo_fill(one(self, at).h, value)) else pointer(self)[at] = value end
  C.atomo_tensor_touch(self.h)
  return self
end

--- Returns the element of a tensor with exactly one, as a number; raises for any other size.
---@return number
---@usage t:sum():item() --> 10
function Tensor:item()
  if self_handle(self).numel ~= 1 then
    raise(("item: tensor %s has %d elements, expected 1"):format(shape_text(self), self.h.numel))
  end
  return value_at(self, 0)
end

--- Returns the elements as nested lists; of a scalar, the number.
---@return table|number
---@usage t:totable()[2][1] --> 3
function Tensor:totable()
  self_handle(self)
  if is_half(self) then return self:detach():to("f32"):totable() end
  local c = self:is_contiguous() and self or self:detach():contiguous()
  local at, shape = 0, self:shape()
  local function level(d)
    if d > #shape then
      at = at + 1
      return element(c, at - 1)
    end
    local row = {}
    for i = 1, shape[d] do row[i] = level(d + 1) end
    return row
  end
  return level(1)
end

--- Returns the elements' bytes in row-major order as a Lua string.
---@return string
---@usage #t:bytes() --> 16
function Tensor:bytes()
  self_handle(self)
  local c = self:is_contiguous() and self or self:detach():contiguous()
  return ffi.string(c.h.data, c.h.numel * c:element_size())
end

return T
