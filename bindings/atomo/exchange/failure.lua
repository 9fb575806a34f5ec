--- Failures in a step, and how all ranks learn of them. A rank that cannot encode or decode notes the error and
-- continues with empty messages, so that all ranks still do the same operations. At the end of the step the ranks
-- compare: if one has failed or given the step up, all raise the error of the rank that was the cause, and the step is
-- given up by drop(). Dense exchanges do not encode or decode and have nothing to compare.
local M = {}

-- Kinds of failure; of several ranks' kinds the largest is the cause. A rank that decodes another one's empty message
-- fails too, but as a consequence. C has the first two numbers, too (atomo_bucket_wait).
M.DECODING, M.ENCODING, M.GIVEN_UP = 1, 2, 3

--- Notes a failure on this rank. Of several in a step, the first one of the largest kind is kept.
function M.note(step, kind, text)
  local known = step.broken
  if not known or kind > known.kind then step.broken = {kind = kind, text = tostring(text)} end
end

--- Returns the ranks with a failure of that kind, and the text of the first one. [collective]
local function cause(comm, mine, kind)
  local texts = comm:allgatherv(mine and mine.kind == kind and mine.text or "")
  local ranks, first = {}, nil
  for r, text in ipairs(texts) do
    if text ~= "" then
      ranks[#ranks + 1] = tostring(r - 1)
      first = first or text
    end
  end
  return ("rank%s %s: %s"):format(#ranks > 1 and "s" or "", table.concat(ranks, ", "), first)
end

--- Compares failures at the end of a step. Returns false, or on all ranks the reason why the step has failed. verdict:
--- an f32 tensor [1]. [collective]
---@return string|false
function M.share(comm, step, verdict)
  local kind = step.broken and step.broken.kind or 0
  if comm.size > 1 then
    verdict:data()[0] = kind
    comm:allreduce(verdict, "max")
    kind = verdict:data()[0]
  end
  return kind > 0 and cause(comm, step.broken, kind)
end

return M
