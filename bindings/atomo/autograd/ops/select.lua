--- Selecting elements: where, gather, sort, argsort, topk; and lists of views: split, chunk.
-- Dimensions and indices count from 1; negative dimensions from the end.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local C, raise = f.C, f.raise
local Tensor, is_tensor, dimension = T.Tensor, T.is_tensor, T.dimension
local binary, scalar, sum_to = K.binary, K.scalar, K.sum_to

local M = {}

-- ---- where ---------------------------------------------------------------------------------------------------------

local where = func {
  name = "where",
  forward = function(ctx, mask, a, b)
    ctx:save(mask)
    return binary(C.ATOMO_EITHER, binary(C.ATOMO_WHERE, a, mask), binary(C.ATOMO_UNLESS, b, mask))
  end,
  backward = function(ctx, g)
    local mask = ctx:saved()
    return nil, ctx:needs(2) and sum_to(binary(C.ATOMO_WHERE, g, mask), ctx.inputs[2]) or nil,
      ctx:needs(3) and sum_to(binary(C.ATOMO_UNLESS, g, mask), ctx.inputs[3]) or nil
  end,
}

--- where for i32 and u8: a mask + b (1 - mask), which is exact.
local function where_whole(mask, a, b)
  if T.is_half(a) then
    raise(("where: does not compute with %s, convert it first (t:to \"f32\")"):format(a:dtype()))
  end
  mask = mask:to "i32"
  local y = a:to "i32" * mask + b:to "i32" * (1 - mask)
  return y:to(a:dtype())
end

--- Returns an operand of where as a tensor. A number takes the other operand's dtype.
local function operand(v, other, name)
  if is_tensor(v) then return v end
  T.refuse_freed(v, name)
  if not number.of(v) then raise(("%s is %s, expected a tensor or a number"):format(name, number.text(v))) end
  local dtype = is_tensor(other) and other:dtype() or "f32"
  return T.full({}, number.element(v, dtype, name), dtype)
end

--- Returns a where condition is not 0 (NaN included), b elsewhere; all three broadcast. The gradient of an element goes
--- to the operand that it came from.
---@param condition atomo.Tensor           of any dtype, as x:gt(0) makes it
---@param a atomo.Tensor|number
---@param b atomo.Tensor|number            of a's dtype
---@return atomo.Tensor
---@usage atomo.where(atomo.tensor {1, 0}, 5, atomo.zeros(2)):get(1) --> 5
function M.where(condition, a, b)
  T.expect(condition, "where: condition")
  a, b = operand(a, b, "where: a"), operand(b, a, "where: b")
  if a:dtype() ~= b:dtype() then
    raise(("where: a is %s, b is %s, convert one (t:to \"f32\")"):format(a:dtype(), b:dtype()))
  end
  local mask = scalar(C.ATOMO_NE, condition:dtype() == "f32" and condition or condition:to "f32", 0)
  if a:dtype() ~= "f32" then return where_whole(mask, a, b) end
  return where(mask, a, b)
end

--- Returns this tensor where condition is not 0, other elsewhere.
---@param condition atomo.Tensor
---@param other atomo.Tensor|number
---@return atomo.Tensor
---@usage t:where(t:gt(2), 0):get(1, 1) --> 0
function Tensor:where(condition, other) return M.where(condition, self, other) end

-- ---- gather --------------------------------------------------------------------------------------------------------

--- Raises unless index fits t: equal numbers of dimensions, no size above t's except along d (0-based).
local function check_index(t, d, index)
  local h, k = t.h, T.expect(index, "gather: index", "i32").h
  local fits = h.ndim == k.ndim
  for i = 0, h.ndim - 1 do fits = fits and (i == d or k.shape[i] <= h.shape[i]) end
  if not fits then
    raise(("gather: index %s of tensor %s along dimension %d, expected as many dimensions and no size above the " ..
      "tensor's elsewhere"):format(T.shape_text(index), T.shape_text(t), d + 1))
  end
  if h.numel >= 2 ^ 31 then raise(("gather: tensor of %d elements, at most 2^31 - 1"):format(h.numel)) end
end

--- Returns the 1-based positions in t, read in row-major order, of the elements that index names along d (0-based).
local function positions(t, d, index)
  local h, k, n = t.h, index.h, t.h.ndim
  local step, at, size = {}, {}, {} -- step: elements of t from one index of a dimension to the next
  local stride = 1
  for i = n, 1, -1 do
    step[i], at[i], size[i] = i == d + 1 and 0 or stride, 0, k.shape[i - 1]
    stride = stride * h.shape[i - 1]
  end
  local inner, most = 1, n > 0 and h.shape[d] or 1
  for i = d + 1, n - 1 do inner = inner * h.shape[i] end
  local result = T.empty(k.numel, "i32")
  local from, to, base = index:data(), result:data(), 1
  for r = 0, k.numel - 1 do
    local v = from[r]
    if v < 1 or v > most then
      raise(("gather: index %d at position %d is outside 1 to %d"):format(v, r + 1, most))
    end
    to[r] = base + (v - 1) * inner
    local i = n
    while i > 0 do -- the next element of index in row-major order
      at[i], base = at[i] + 1, base + step[i]
      if at[i] < size[i] then break end
      base, at[i] = base - size[i] * step[i], 0
      i = i - 1
    end
  end
  return result
end

local function gather(t, d, index)
  return t:reshape(t.h.numel):index_select(1, positions(t, d, index)):reshape(index:shape())
end

--- Returns y in index's shape: y[i, j] = t[index[i, j], j] for dim = 1, t[i, index[i, j]] for dim = 2, and so on.
---@param dim integer
---@param index atomo.Tensor  i32, 1-based, as many dimensions as t
---@return atomo.Tensor
---@usage t:gather(2, atomo.tensor({{2}, {1}}, "i32")):get(1, 1) --> 2
function Tensor:gather(dim, index)
  local d = self.h.ndim == 0 and 0 or dimension(self, dim, "gather")
  check_index(self, d, index)
  return gather(self, d, index:contiguous())
end

-- ---- sort ----------------------------------------------------------------------------------------------------------

local function check_flag(who, name, v)
  if v ~= nil and O.flag(v) then raise(("%s: %s is %s, expected true or false"):format(who, name, number.text(v))) end
end

--- Returns values and positions in order; d is 0-based.
local function sorted(t, d, descending)
  local index = T.order(t, d, descending)
  return gather(t, d, index), index
end

local function last_or(t, dim, who) return t.h.ndim == 0 and 0 or dimension(t, dim == nil and -1 or dim, who) end

--- Returns the elements along dim in order, and their 1-based positions (i32). NaN counts as the largest number; equal
--- elements keep their order. The gradient of a value goes to the element that it came from.
---@param dim integer?         default: the last
---@param descending boolean?
---@return atomo.Tensor values
---@return atomo.Tensor indices
---@usage t:sort(2, true):get(1, 1) --> 2
function Tensor:sort(dim, descending)
  check_flag("sort", "descending", descending)
  return sorted(self, last_or(self, dim, "sort"), descending)
end

--- Returns the positions that sort returns.
---@param dim integer?
---@param descending boolean?
---@return atomo.Tensor indices  i32, 1-based
---@usage t:argsort(2, true):get(1, 1) --> 2
function Tensor:argsort(dim, descending)
  check_flag("argsort", "descending", descending)
  return T.order(self, last_or(self, dim, "argsort"), descending)
end

--- Returns the k largest elements along dim in descending order (largest = false: the smallest, ascending), and their
--- 1-based positions (i32).
---@param k integer
---@param dim integer?       default: the last
---@param largest boolean?   default: true
---@return atomo.Tensor values
---@return atomo.Tensor indices
---@usage t:flatten():topk(2):get(1) --> 4
function Tensor:topk(k, dim, largest)
  check_flag("topk", "largest", largest)
  local d = last_or(self, dim, "topk")
  local size = self.h.ndim == 0 and 1 or self.h.shape[d]
  local count = number.expect_whole(k, "topk: k", 0)
  if count > size then raise(("topk: k is %d, dimension %d has %d elements"):format(count, d + 1, size)) end
  local index = T.order(self, d, largest ~= false)
  if self.h.ndim > 0 then index = index:narrow(d + 1, 1, count):contiguous() end
  return gather(self, d, index), index
end

-- ---- split and chunk -----------------------------------------------------------------------------------------------

--- Returns views of consecutive parts of dimension d (0-based), `sizes` elements each.
local function parts(t, d, sizes)
  local list, at = {}, 1
  for i, n in ipairs(sizes) do
    list[i] = t:narrow(d + 1, at, n)
    at = at + n
  end
  return list
end

--- Returns sizes of parts of n elements, the last one smaller if need be; one empty part for n = 0.
local function even(n, size)
  local sizes = {}
  repeat
    sizes[#sizes + 1] = math.min(size, n)
    n = n - size
  until n <= 0
  return sizes
end

--- Returns a list of views of consecutive parts of dimension dim: `size` elements each, the last one smaller if need
--- be; or of the sizes in a list, which must add up to the dimension's.
---@param size integer|integer[]
---@param dim integer?  default 1
---@return atomo.Tensor[]
---@usage #t:split(1) --> 2
function Tensor:split(size, dim)
  local d = dimension(self, dim == nil and 1 or dim, "split")
  local n = self.h.shape[d]
  if type(size) ~= "table" then return parts(self, d, even(n, number.expect_whole(size, "split: size", 1))) end
  local sizes, total = {}, 0
  for i = 1, length(size, "split: sizes") do
    sizes[i] = number.expect_whole(size[i], ("split: size %d"):format(i), 0)
    total = total + sizes[i]
  end
  if total ~= n then
    raise(("split: sizes %s add up to %d, dimension %d has %d"):format(T.shape_text(sizes), total, d + 1, n))
  end
  return parts(self, d, sizes)
end

--- Returns a list of at most `chunks` views of consecutive parts of dimension dim, of equal size except the last one.
---@param chunks integer
---@param dim integer?  default 1
---@return atomo.Tensor[]
---@usage #t:chunk(2) --> 2
function Tensor:chunk(chunks, dim)
  local d = dimension(self, dim == nil and 1 or dim, "chunk")
  local count = number.expect_whole(chunks, "chunk: number of chunks", 1, 1e6)
  local n = self.h.shape[d]
  if n == 0 then -- as in PyTorch: as many empty parts as chunks
    local sizes = {}
    for i = 1, count do sizes[i] = 0 end
    return parts(self, d, sizes)
  end
  return parts(self, d, even(n, math.ceil(n / count)))
end

return M
