--- fuse_small = "compress" joins small tensors: biases, norms and tensors below min_size are copied one behind the
-- other into a flat tensor, which is tensor 1 of the plan and is encoded under the step's budget, as one message.
-- Otherwise every gradient keeps its own number in the plan. A tensor with an override of the compressor ("^fc" ->
-- none) is never joined.
local memories = require "atomo.exchange.memories"
local T = require "atomo.tensor"

local M = {}

--- Is a tensor of that shape and n elements small? An empty one is, since no compressor accepts it.
local function is_small(shape, n, min_size) return #shape < 2 or n < min_size or n == 0 end

--- Returns the numbers of the small gradients, and the sum of their elements.
local function small_ones(grads, names, compressor, min_size)
  local small, total = {}, 0
  for i, g in ipairs(grads) do
    if is_small(g:shape(), g:numel(), min_size) and not compressor:override_of(names[i]) then
      small[#small + 1], total = i, total + g:numel()
    end
  end
  return small, total
end

--- Numbers the tensors of a plan. Returns: the tensors, {label=, shape=, n=, members= (numbers of the gradients)}, the
--- joined one with crc= (of its members' names); the places by gradient number, {index = the tensor's number, slice =
--- the gradient's view of the joined tensor, or false}; and the joined tensor, or false.
---@param names string[]  names of the gradients
---@param joins boolean   join small tensors?
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

--- Is tensor t of the plan sent as a message (and not in a dense bucket)?
function M.is_message(t, is_joined, compressor, min_size)
  if is_joined then return true end
  local other = compressor:override_of(t.label)
  if other then return other ~= "none" end
  return not is_small(t.shape, t.n, min_size)
end

--- Writes the averages of the joined tensor into the small gradients.
function M.write_back(step)
  for i, place in ipairs(step.plan.places) do
    if place.slice then step.given[i]:copy_(place.slice) end
  end
end

return M
