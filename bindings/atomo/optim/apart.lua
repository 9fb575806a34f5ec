--- Refuses parameters that share memory: a step or an average of one would change the other, too.
local f = require "atomo.ffi"
local raise = f.raise

--- Returns the address of t's first element, and the address after its last one, in bytes.
local function extent(t)
  local first, length, size = tonumber(f.ffi.cast("uintptr_t", t.h.data)), 0, 4
  for d = 0, t:dim() - 1 do length = length + (f.number(t.h.shape, d) - 1) * f.number(t.h.stride, d) end
  return first, first + size * (length + 1)
end

--- Calls fn(offset) for every element of t, in floats from the first, until fn returns a true value, which is returned.
local function each_offset(t, fn, d, at)
  d, at = d or 0, at or 0
  if d == t:dim() then return fn(at) end
  for i = 0, f.number(t.h.shape, d) - 1 do
    local found = each_offset(t, fn, d + 1, at + i * f.number(t.h.stride, d))
    if found then return found end
  end
end

--- Returns whether two tensors whose extents overlap have an element in common; interleaved views have none.
--- distance: from a's first element to b's, in floats.
local function share(a, b, distance)
  local taken = {}
  each_offset(a, function(at) taken[at] = true end)
  return each_offset(b, function(at) return taken[at + distance] end) or false
end

--- Raises if two parameters of the list share memory.
---@param who string  the caller, for errors
---@param params atomo.Tensor[]
return function(who, params)
  local list = {}
  for i, p in ipairs(params) do
    local first, last = extent(p)
    if p:numel() > 0 then list[#list + 1] = {i = i, tensor = p, first = first, last = last} end
  end
  table.sort(list, function(a, b) return a.first < b.first or a.first == b.first and a.i < b.i end)
  local open = {} -- earlier tensors whose extents may overlap the next one's
  for _, item in ipairs(list) do
    local still = {item}
    for _, other in ipairs(open) do
      if other.last > item.first then
        still[#still + 1] = other
        if share(other.tensor, item.tensor, (item.first - other.first) / 4) then
          raise(("%s: parameters %d and %d share memory: list the one that the other is a view of"):format(who,
            math.min(item.i, other.i), math.max(item.i, other.i)))
        end
      end
    end
    open = still
  end
end
