--- The order in which a step's units (dense buckets, batches of messages) go to the communication thread. All ranks
-- must post the same units in the same order, but their tensors may become ready in different ones (a rank without
-- images pushes zeros): so a full unit waits for those before it. The order is backward's, the last tensor first.
--
-- A unit has: members (its tensors: {index=, ...}), waiting (how many are not ready), post(exchange, void), where void
-- is true in a step that is given up: the unit travels as it is, or empty.
local M = {}

--- Orders the units by the tensor that completes them.
function M.new(units)
  local queue = {units = units, next = 1}
  for _, u in ipairs(units) do
    u.closing, u.waiting = math.huge, #u.members
    for _, m in ipairs(u.members) do u.closing = math.min(u.closing, m.index) end
  end
  table.sort(units, function(a, b) return a.closing > b.closing end)
  return queue
end

--- One more tensor of unit u is ready: posts what is full and has nothing unposted before it.
function M.ready(queue, exchange, u)
  u.waiting = u.waiting - 1
  local units = queue.units
  while units[queue.next] and units[queue.next].waiting == 0 do
    exchange:mark()
    units[queue.next]:post(exchange)
    queue.next = queue.next + 1
  end
end

--- Posts what has not been posted in a step that is given up: other ranks may have posted it.
function M.post_rest(queue, exchange)
  for k = queue.next, #queue.units do
    exchange:mark()
    queue.units[k]:post(exchange, true)
  end
  queue.next = #queue.units + 1
end

--- The step is over.
function M.reset(queue)
  queue.next = 1
  for _, u in ipairs(queue.units) do u.waiting = #u.members end
end

return M
