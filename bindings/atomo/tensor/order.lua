--- Sorting along a dimension: positions of the elements in ascending or descending order.
-- NaN counts as the largest number, as in PyTorch. The sort is stable: equal elements, 0 and -0 too, keep their order.
local f = require "atomo.ffi"
local T = require "atomo.tensor.core"
require "atomo.tensor.inspect"
local ffi, C, raise = f.ffi, f.C, f.raise

local words, doubles = ffi.typeof "const uint32_t *", ffi.typeof "double[?]"
local NAN_KEY, SIGN = 2 ^ 32, 2 ^ 31

--- Returns a function (i) of the key of element i (0-based) of a contiguous tensor: a number in the elements' order.
--- f32 is read as bits, because LuaJIT could take a foreign NaN for another type.
local function key_of(t)
  T.expect_numbers(t, "sort")
  if t.h.dtype ~= C.ATOMO_F32 then
    local p = t:data()
    return function(i) return p[i] end
  end
  local bits = ffi.cast(words, t.h.data)
  return function(i)
    local b = bits[i]
    local magnitude = b % SIGN
    if magnitude > 0x7f800000 then return NAN_KEY end
    return b >= SIGN and -magnitude or magnitude
  end
end

--- Merges the sorted runs [lo, mid) and [mid, hi) of keys and their places into another pair of buffers.
local function merge(keys, places, lo, mid, hi, to_keys, to_places)
  local a, b = lo, mid
  for k = lo, hi - 1 do
    if b >= hi or (a < mid and keys[a] <= keys[b]) then
      to_keys[k], to_places[k] = keys[a], places[a]
      a = a + 1
    else
      to_keys[k], to_places[k] = keys[b], places[b]
      b = b + 1
    end
  end
end

--- Sorts n keys with their places by merging runs of doubled length; returns the buffers with the result, and the
--- others.
local function merge_sort(n, keys, places, other_keys, other_places)
  local run = 1
  while run < n do
    for lo = 0, n - 1, 2 * run do
      merge(keys, places, lo, math.min(lo + run, n), math.min(lo + 2 * run, n), other_keys, other_places)
    end
    keys, places, other_keys, other_places = other_keys, other_places, keys, places
    run = 2 * run
  end
  return keys, places, other_keys, other_places
end

--- Returns an i32 tensor in t's shape: along dimension d (0-based), the 1-based positions of the elements in order.
---@param t atomo.Tensor  f32, i32 or u8
---@param d integer
---@param descending boolean
---@return atomo.Tensor
function T.order(t, d, descending)
  local c = t:is_contiguous() and t or t:detach():contiguous()
  local scalar = c.h.ndim == 0
  local n, inner = scalar and 1 or c.h.shape[d], 1
  for i = d + 1, c.h.ndim - 1 do inner = inner * c.h.shape[i] end
  if n >= 2 ^ 31 then raise(("sort: dimension of %d elements, at most 2^31 - 1"):format(n)) end
  local index = T.create(c.h.shape, c.h.ndim, C.ATOMO_I32)
  if c.h.numel == 0 then return index end
  local key, p, sign = key_of(c), index:data(), descending and -1 or 1
  local keys, places, other_keys, other_places = doubles(n), doubles(n), doubles(n), doubles(n)
  for outer = 0, c.h.numel / (n * inner) - 1 do
    for j = 0, inner - 1 do
      local first = outer * n * inner + j
      for i = 0, n - 1 do keys[i], places[i] = sign * key(first + i * inner), i + 1 end
      keys, places, other_keys, other_places = merge_sort(n, keys, places, other_keys, other_places)
      for i = 0, n - 1 do p[first + i * inner] = places[i] end
    end
  end
  return index
end

return T
