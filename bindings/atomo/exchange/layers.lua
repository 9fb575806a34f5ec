--- Figures of the last step by tensor, for logs: what each took of the bytes, and what it has of the variance.
local M = {}

--- Adds a message's figures to the entry of its tensor; a tensor that is cut into pieces has several messages.
local function add(entry, stats)
  entry.bytes, entry.variance = entry.bytes + stats.nbytes, entry.variance + stats.variance
  entry.square, entry.family = entry.square + stats.square, entry.family or stats.family
end

--- Returns a list, in the plan's order: {name=, dense_bytes= (in f32), bytes= (of this rank's messages), variance=
--- (E||ghat - g||^2), square= (||g||^2), family= (atoms that `auto` chose)} of each tensor that is sent as messages,
--- and {name = "dense tensors", dense_bytes=, bytes=} for all others. Nil before the first step, and where this rank
--- encodes nothing by a native compressor.
---@param exchange atomo.Exchange
---@return table[]?
function M.of(exchange)
  local plan, compressor = exchange.plan, exchange.compressor
  if not plan or #plan.messages == 0 or not compressor.h then return nil end
  local list, by_tensor, coded = {}, {}, 0
  for k, message in ipairs(plan.messages) do
    local tensor = plan.tensors[message.index]
    local entry = by_tensor[message.index]
    if not entry then
      entry = {name = tensor.label, dense_bytes = 4 * tensor.n, bytes = 0, variance = 0, square = 0}
      by_tensor[message.index], list[#list + 1] = entry, entry
      coded = coded + entry.dense_bytes
    end
    add(entry, compressor:stats(k))
  end
  local rest = plan.dense_bytes - coded
  if rest > 0 then list[#list + 1] = {name = "dense tensors", dense_bytes = rest, bytes = rest} end
  return list
end

return M
