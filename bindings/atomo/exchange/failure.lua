--- What goes wrong in a step, and how all ranks learn of it. A rank that cannot encode or decode continues with empty
-- messages, so that the ranks still meet; it notes why, and when everything has travelled the ranks agree: where one
-- has failed, or has given the step up, all of them raise, with the words of the rank that was the cause. The step can
-- then be given up by drop(). Dense exchanges, which neither encode nor decode, have nothing to agree on.
local M = {}

-- What ranks compare; where they differ the largest is the cause. A rank that decodes the empty message of another one
-- fails too, but only because of that one. The first two are C's (atomo_bucket_wait).
M.DECODING, M.ENCODING, M.GIVEN_UP = 1, 2, 3

--- The first failure of a kind in this step; one that is more of a cause goes before.
function M.note(step, kind, text)
  local known = step.broken
  if not known or kind > known.kind then step.broken = {kind = kind, text = tostring(text)} end
end

--- The words of the ranks that were the cause.
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

--- After everything has travelled: false, or on all ranks why the step has failed. verdict: a tensor of one number.
--- [collective]
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
