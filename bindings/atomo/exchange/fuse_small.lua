--- Small tensors joined into one (fuse_small = "compress"): biases, norms and what is below min_size are copied back to
-- back into a flat tensor, which is tensor 1 of the plan and coded within the step's budget. One frame serves all, and
-- none of them is too short for its coder. Without it the plan has every gradient under its own number. An override of
-- the compressor ("^fc" -> none) goes before both: such a tensor travels by itself, or dense.
local memories = require "atomo.exchange.memories"
local T = require "atomo.tensor"

local M = {}

--- An empty tensor is small too: no compressor takes one.
local function is_small(shape, n, min_size) return #shape < 2 or n < min_size or n == 0 end

--- The small ones of these gradients: their numbers, and how many entries they have together.
local function small_ones(grads, names, compressor, min_size)
  local small, total = {}, 0
  for i, g in ipairs(grads) do
    if is_small(g:shape(), g:numel(), min_size) and not compressor:override_of(names[i]) then
      small[#small + 1], total = i, total + g:numel()
    end
  end
  return small, total
end

--- Fixes the plan's numbers. Returns tensors {label=, shape=, n=, members= (the user's numbers)}, the
--- joined one with crc= (of its members' names); places by the user's
--- number, {index = the tensor's, slice = where the gradient goes in it, or false}; and the joined tensor, or false.
---@param names string[]  of the gradients
---@param joins boolean
function M.plan(grads, names, compressor, min_size, joins)
  local tensors, places, joined = {}, {}, false
  local small, total = {}, 0
  if joins then small, total = small_ones(grads, names, compressor, min_size) end
  if total > 0 then
    local at, members = 1, {}
    joined = T.zeros(total)
    for k, i in ipairs(small) do
      local n = grads[i]:numel()
      members[k] = names[i]
      places[i] = {index = 1, slice = joined:narrow(1, at, n):view(grads[i]:shape())}
      at = at + n
    end
    tensors[1] = {label = ("of %d small gradients"):format(#small), shape = {total}, n = total, members = small,
      crc = memories.names_crc(members)}
  end
  for i, g in ipairs(grads) do
    if not places[i] then
      tensors[#tensors + 1] = {label = names[i], shape = g:shape(), n = g:numel(), members = {i}}
      places[i] = {index = #tensors, slice = false}
    end
  end
  return tensors, places, joined
end

--- Whether tensor t of the plan, the joined one or another, travels as a message.
function M.is_message(t, is_joined, compressor, min_size)
  if is_joined then return true end
  local other = compressor:override_of(t.label)
  if other then return other ~= "none" end
  return not is_small(t.shape, t.n, min_size)
end

--- Writes the average of the small ones back.
function M.write_back(step)
  for i, place in ipairs(step.plan.places) do
    if place.slice then step.given[i]:copy_(place.slice) end
  end
end

return M
