--- Wrappers of C kernels for operators and their backward. Nothing is recorded; the caller owns the results.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local ffi, C, check = f.ffi, f.C, f.check
local wrap, out, self_handle = T.wrap, T.out, T.self_handle

local K = {}

function K.unary(op, a)
  local o = out()
  check(C.atomo_unary(op, self_handle(a), o))
  return wrap(o[0])
end

function K.binary(op, a, b)
  local o = out()
  check(C.atomo_binary(op, self_handle(a), b.h, o))
  return wrap(o[0])
end

function K.scalar(op, a, s, reverse)
  local o = out()
  check(C.atomo_scalar(op, self_handle(a), s, reverse and 1 or 0, o))
  return wrap(o[0])
end

--- Returns f32 in t's shape: 1 where an element of t, of any dtype, is not 0 (NaN included), else 0.
function K.truth(t)
  local compares = t.h.dtype == C.ATOMO_F32 or t.h.dtype == C.ATOMO_I32
  return K.scalar(C.ATOMO_NE, compares and t or t:detach():to "f32", 0)
end

--- Returns g summed over the dimensions that broadcasting repeated, in like's shape; g itself if shapes agree.
function K.sum_to(g, like)
  local same = g.h.ndim == like.h.ndim
  for d = 0, like.h.ndim - 1 do same = same and g.h.shape[d] == like.h.shape[d] end
  if same then return g end
  local o = out()
  check(C.atomo_sum_to(g.h, like.h, o))
  return wrap(o[0])
end

--- Returns a * b summed to like's shape; frees the full product.
function K.mul_to(a, b, like)
  local p = K.binary(C.ATOMO_MUL, a, b)
  local s = K.sum_to(p, like)
  if s ~= p then p:free() end
  return s
end

local doubles8 = ffi.typeof "double[8]"

--- Returns a C array for the sizes or strides of up to 8 dimensions; raises if n > 8.
local function dims8(n)
  if n and n > 8 then f.raise(("tensor: %d dimensions, at most 8"):format(n)) end
  return doubles8()
end
K.dims8 = dims8

--- Converts a table of sizes to a C array.
function K.dims(sizes)
  local c = dims8()
  for i = 1, #sizes do c[i - 1] = sizes[i] end
  return c
end

--- Makes a view of t's storage with n dimensions. stride and offset (from t's first element) are in elements.
function K.make_view(t, shape, stride, offset, n)
  local o = out()
  check(C.atomo_tensor_view(t.h, n, shape, stride, offset, o))
  return wrap(o[0])
end

--- Fills stride with the strides that view t's elements in other sizes; returns false if only a copy has these sizes.
--- Dimensions that are contiguous in memory are merged, and each merged block is split into the new sizes that fill it.
local function strides_over(t, sizes, stride)
  local h, n = t.h, #sizes
  local d = h.ndim - 1
  while n > 0 or d >= 0 do
    while d >= 0 and h.shape[d] == 1 do d = d - 1 end
    local step, room, taken = d >= 0 and h.stride[d] or 1, 1, 1
    if d >= 0 then
      repeat
        room = room * h.shape[d]
        d = d - 1
        while d >= 0 and h.shape[d] == 1 do d = d - 1 end
      until d < 0 or h.stride[d] ~= step * room
    end
    while n > 0 and (taken < room or sizes[n] == 1) do
      stride[n - 1] = step * taken
      taken = taken * sizes[n]
      n = n - 1
    end
    if taken ~= room then return false end
  end
  return true
end

--- Returns a view of t with other sizes of the same product; nil if t's strides do not allow one.
function K.view_as(t, sizes)
  local shape, stride, s = dims8(#sizes), dims8(), 1
  for i = #sizes, 1, -1 do
    shape[i - 1], stride[i - 1] = sizes[i], s
    s = s * sizes[i]
  end
  if C.atomo_tensor_is_contiguous(t.h) == 0 and not strides_over(t, sizes, stride) then return nil end
  return K.make_view(t, shape, stride, 0, #sizes)
end

--- Returns a view of `length` elements of dimension d from start (both 0-based). drop: without the dimension.
function K.narrow_view(t, d, start, length, drop)
  local h, shape, stride, n = t.h, dims8(), dims8(), 0
  for i = 0, h.ndim - 1 do
    if not (drop and i == d) then
      shape[n], stride[n] = i == d and length or h.shape[i], h.stride[i]
      n = n + 1
    end
  end
  return K.make_view(t, shape, stride, start * h.stride[d], n)
end

--- precision: of the operands, ATOMO_PRECISION_*.
function K.product(a, b, precision)
  local o = out()
  check(C.atomo_matmul(a.h, b.h, 0, precision, o))
  return wrap(o[0])
end

--- Returns a view with the last two dimensions swapped.
function K.flipped(t)
  local h, shape, stride = t.h, dims8(), dims8()
  for d = 0, h.ndim - 1 do shape[d], stride[d] = h.shape[d], h.stride[d] end
  local m, n = h.ndim - 2, h.ndim - 1
  shape[m], shape[n], stride[m], stride[n] = shape[n], shape[m], stride[n], stride[m]
  return K.make_view(t, shape, stride, 0, h.ndim)
end

--- Raises unless keepdim is nil or a boolean: in other libraries sum(1, 2) sums over two dimensions.
function K.check_flag(who, keepdim)
  if keepdim ~= nil and type(keepdim) ~= "boolean" then
    f.raise(("%s: keepdim is %s, expected true or false (one dimension at a time)"):format(who, number.text(keepdim)))
  end
end

--- Returns a list of n ones: the sizes of a tensor that broadcasts to any of n dimensions.
function K.ones(n)
  local sizes = {}
  for i = 1, n do sizes[i] = 1 end
  return sizes
end

return K
