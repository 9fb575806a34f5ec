--- The order in which a step's buckets start: that of backward, the last tensor first. All ranks must start buckets in
-- the same order, but gradients may become ready in another one (a rank without images pushes zeros), so a full bucket
-- waits for those before it. C runs the way back of a bucket after the first operations of the next one.
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

--- Starts full buckets up to the first one that is not full.
function M.advance(step)
  local buckets = step.plan.buckets
  while buckets[step.at] and step.missing[buckets[step.at]] == 0 do start(step, buckets[step.at]) end
end

--- Starts the remaining buckets of a step that is given up, with empty messages: other ranks may have started them.
function M.start_remaining(step)
  local buckets = step.plan.buckets
  while buckets[step.at] do start(step, buckets[step.at], true) end
end

--- Called when all buckets have started: sends answers of scripted compressors and waits for every bucket.
function M.settle(step)
  for _, bucket in ipairs(step.plan.buckets) do bucket:answer(step) end
  for _, bucket in ipairs(step.plan.buckets) do bucket:wait(step) end
  local topology = step.plan.topology
  if topology.settle then topology.settle(step) end
end

return M
