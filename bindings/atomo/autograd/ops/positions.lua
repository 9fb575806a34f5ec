--- Positions of elements in row-major order, as 1-based i32 indices of the flattened tensor: for gather, scatter_add
-- and masked_select.
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise

local M = {}

local function check_count(t, who)
  if t.h.numel >= 2 ^ 31 then raise(("%s: tensor of %d elements, at most 2^31 - 1"):format(who, t.h.numel)) end
end

--- Raises unless index fits t: equal numbers of dimensions, no size above t's except along d (0-based).
function M.check_index(t, d, index, who)
  local h, k = t.h, T.expect(index, who .. ": index", "i32").h
  local fits = h.ndim == k.ndim
  for i = 0, h.ndim - 1 do fits = fits and (i == d or k.shape[i] <= h.shape[i]) end
  if not fits then
    raise(("%s: index %s of tensor %s along dimension %d, expected as many dimensions and no size above the " ..
      "tensor's elsewhere"):format(who, T.shape_text(index), T.shape_text(t), d + 1))
  end
  check_count(t, who)
end

--- Returns the positions in t of the elements that index (contiguous) names along d (0-based).
function M.of_index(t, d, index, who)
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
      raise(("%s: index %d at position %d is outside 1 to %d"):format(who, v, r + 1, most))
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

--- Returns the positions of the elements of a mask (f32 of 0 and 1, contiguous) that are 1.
function M.of_ones(mask, who)
  check_count(mask, who)
  local from, n = mask:data(), mask.h.numel
  local count = 0
  for i = 0, n - 1 do count = count + from[i] end
  local result = T.empty(count, "i32")
  local to, at = result:data(), 0
  for i = 0, n - 1 do
    if from[i] ~= 0 then
      to[at] = i + 1
      at = at + 1
    end
  end
  return result
end

return M
