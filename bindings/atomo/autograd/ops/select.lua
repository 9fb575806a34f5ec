--- Selecting elements: where, masked_fill, gather, sort, argsort, topk; and lists of views: split, chunk, unbind.
-- Dimensions and indices count from 1; negative dimensions from the end.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local K = require "atomo.autograd.ops.kernels"
local positions = require "atomo.autograd.ops.positions"
local func = require("atomo.autograd").operator
local C, raise = f.C, f.raise
local Tensor, is_tensor, dimension = T.Tensor, T.is_tensor, T.dimension
local binary, sum_to = K.binary, K.sum_to

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
  T.expect_numbers(a, "where")
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
  local mask = K.truth(condition)
  if a:dtype() ~= "f32" then return where_whole(mask, a, b) end
  return where(mask, a, b)
end

--- Returns this tensor where condition is not 0, other elsewhere.
---@param condition atomo.Tensor
---@param other atomo.Tensor|number
---@return atomo.Tensor
---@usage t:where(t:gt(2), 0):get(1, 1) --> 0
function Tensor:where(condition, other) return M.where(condition, self, other) end

--- Returns value where mask is not 0, this tensor elsewhere.
---@param mask atomo.Tensor   of any dtype, as t:gt(0) makes it; broadcasts
---@param value number|atomo.Tensor  a tensor broadcasts, and has this tensor's dtype
---@return atomo.Tensor
---@usage t:masked_fill(t:gt(2), 0):sum():item() --> 3
function Tensor:masked_fill(mask, value)
  T.expect(self, "masked_fill: tensor")
  T.expect(mask, "masked_fill: mask")
  if not is_tensor(value) then number.expect(value, "masked_fill: value") end
  return M.where(mask, value, self)
end

-- ---- gather --------------------------------------------------------------------------------------------------------

local function gather(t, d, index)
  return t:reshape(t.h.numel):index_select(1, positions.of_index(t, d, index, "gather")):reshape(index:shape())
end

--- Returns y in index's shape: y[i, j] = t[index[i, j], j] for dim = 1, t[i, index[i, j]] for dim = 2, and so on.
---@param dim integer
---@param index atomo.Tensor  i32, 1-based, as many dimensions as t
---@return atomo.Tensor
---@usage t:gather(2, atomo.tensor({{2}, {1}}, "i32")):get(1, 1) --> 2
function Tensor:gather(dim, index)
  local d = T.self_handle(self).ndim == 0 and 0 or dimension(self, dim, "gather")
  positions.check_index(self, d, index, "gather")
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

local function last_or(t, dim, who)
  return T.self_handle(t).ndim == 0 and 0 or dimension(t, dim == nil and -1 or dim, who)
end

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

--- Returns a list of the slices along dim, views with one dimension less.
---@param dim integer?  default 1
---@return atomo.Tensor[]
---@usage t:unbind()[2]:get(1) --> 3
function Tensor:unbind(dim)
  local d, list = dimension(self, dim == nil and 1 or dim, "unbind") + 1, {}
  for i = 1, self:size(d) do list[i] = self:select(d, i) end
  return list
end

return M
