--- The order in which a step's buckets start. All ranks must start the same buckets in the same order, but their
-- gradients may come in different ones (a rank without images pushes zeros): so a full bucket waits for those before
-- it. The order is backward's, the last tensor first; each second way stands behind the next bucket's first way, those
-- of compressors in Lua behind everything.
local M = {}

--- Orders the buckets by the tensor that completes them.
function M.sort(buckets)
  table.sort(buckets, function(a, b) return a.closing > b.closing end)
  return buckets
end

--- The entries {bucket, "start" or "answer"} of a step in their order.
function M.order(buckets)
  local order, before, late = {}, nil, {}
  for _, bucket in ipairs(buckets) do
    order[#order + 1] = {bucket, "start"}
    if before then order[#order + 1] = {before, "answer"} end
    before = bucket.answers and not bucket.late and bucket or nil
    if bucket.answers and bucket.late then late[#late + 1] = {bucket, "answer"} end
  end
  if before then order[#order + 1] = {before, "answer"} end
  for _, entry in ipairs(late) do order[#order + 1] = entry end
  return order
end

--- Starts what can start: full buckets that have nothing before them, and answers; answers of compressors in Lua when
--- all gradients have come (`all`).
function M.advance(step, all)
  local order = step.plan.order
  while order[step.at] do
    local bucket, what = unpack(order[step.at])
    if step.missing[bucket] > 0 or what == "answer" and bucket.late and not all then return end
    step:mark(step.plan.comms)
    bucket[what](bucket, step)
    step.at = step.at + 1
  end
end

--- Starts the rest of a step that is given up, empty: other ranks may have started it.
function M.start_rest(step)
  local order = step.plan.order
  while order[step.at] do
    local bucket, what = unpack(order[step.at])
    step:mark(step.plan.comms)
    bucket[what](bucket, step, true)
    step.at = step.at + 1
  end
end

return M
