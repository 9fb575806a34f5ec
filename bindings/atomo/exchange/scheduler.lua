--- The order in which a step's buckets start. All ranks must start the same buckets in the same order, but their
-- gradients may come in different ones (a rank without images pushes zeros): so a full bucket waits for those before
-- it. The order is backward's, the last tensor first. C puts each second way behind the next bucket's first.
local M = {}

--- Orders the buckets by the tensor that completes them.
function M.sort(buckets)
  table.sort(buckets, function(a, b) return a.closing > b.closing end)
  return buckets
end

local function start(step, bucket, void)
  step:mark(step.plan.comms)
  bucket:start(step, void)
  step.at = step.at + 1
end

--- Starts full buckets that have nothing before them.
function M.advance(step)
  local buckets = step.plan.buckets
  while buckets[step.at] and step.missing[buckets[step.at]] == 0 do start(step, buckets[step.at]) end
end

--- Starts the rest of a step that is given up, empty: other ranks may have started it.
function M.start_remaining(step)
  local buckets = step.plan.buckets
  while buckets[step.at] do start(step, buckets[step.at], true) end
end

--- When all are started: answers of compressors in Lua, and the end of every bucket.
function M.settle(step)
  for _, bucket in ipairs(step.plan.buckets) do bucket:answer(step) end
  for _, bucket in ipairs(step.plan.buckets) do bucket:wait(step) end
  local topology = step.plan.topology
  if topology.settle then topology.settle(step) end
end

return M
