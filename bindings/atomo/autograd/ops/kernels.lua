--- The raw kernels that operators and their backward passes are made of: no recording, results owned by the caller.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, C, check = f.ffi, f.C, f.check
local wrap, out = T.wrap, T.out

local K = {}

function K.unary(op, a)
  local o = out()
  check(C.atomo_unary(op, a.h, o))
  return wrap(o[0])
end

function K.binary(op, a, b)
  local o = out()
  check(C.atomo_binary(op, a.h, b.h, o))
  return wrap(o[0])
end

function K.scalar(op, a, s, reverse)
  local o = out()
  check(C.atomo_scalar(op, a.h, s, reverse and 1 or 0, o))
  return wrap(o[0])
end

--- g summed over what broadcasting had repeated; g itself where shapes agree.
function K.sum_to(g, like)
  local same = g.h.ndim == like.h.ndim
  for d = 0, like.h.ndim - 1 do same = same and g.h.shape[d] == like.h.shape[d] end
  if same then return g end
  local o = out()
  check(C.atomo_sum_to(g.h, like.h, o))
  return wrap(o[0])
end

--- a * b summed to like's shape; the product is freed.
function K.mul_to(a, b, like)
  local p = K.binary(C.ATOMO_MUL, a, b)
  local s = K.sum_to(p, like)
  if s ~= p then p:free() end
  return s
end

local doubles8 = ffi.typeof "double[8]"

--- Room for the sizes or strides of n dimensions (8 unless given): what is written beyond it would be other memory.
local function dims8(n)
  if n and n > 8 then f.raise(("tensor: %d dimensions, at most 8"):format(n)) end
  return doubles8()
end
K.dims8 = dims8

--- Sizes as C takes them.
function K.dims(sizes)
  local c = dims8()
  for i = 1, #sizes do c[i - 1] = sizes[i] end
  return c
end

--- A view of t's storage; stride and offset (from t's first element) in elements.
function K.make_view(t, shape, stride, offset, n)
  local o = out()
  check(C.atomo_tensor_view(t.h, n, shape, stride, offset, o))
  return wrap(o[0])
end

--- Strides with which the elements of t are seen in other sizes; false where only a copy can be. Dimensions that lie in
--- memory as one are taken together, and as many of the new sizes as fill them are laid over them.
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

--- A view of the elements of t with other sizes, as many; nil where their strides allow none.
function K.view_as(t, sizes)
  local shape, stride, s = dims8(#sizes), dims8(), 1
  for i = #sizes, 1, -1 do
    shape[i - 1], stride[i - 1] = sizes[i], s
    s = s * sizes[i]
  end
  if C.atomo_tensor_is_contiguous(t.h) == 0 and not strides_over(t, sizes, stride) then return nil end
  return K.make_view(t, shape, stride, 0, #sizes)
end

--- length elements of dimension d (0-based) from start; drop leaves the dimension out.
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

function K.product(a, b)
  local o = out()
  check(C.atomo_matmul(a.h, b.h, 0, o))
  return wrap(o[0])
end

--- Last two dimensions swapped, as a view.
function K.flipped(t)
  local h, shape, stride = t.h, dims8(), dims8()
  for d = 0, h.ndim - 1 do shape[d], stride[d] = h.shape[d], h.stride[d] end
  local m, n = h.ndim - 2, h.ndim - 1
  shape[m], shape[n], stride[m], stride[n] = shape[n], shape[m], stride[n], stride[m]
  return K.make_view(t, shape, stride, 0, h.ndim)
end

return K
