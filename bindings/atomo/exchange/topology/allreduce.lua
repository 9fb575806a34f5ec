--- Topology allreduce: gradients added up on the way. Dense ("none"): in buckets, the baseline. Compressed: by linear
-- compressors, whose messages add up before they are decoded (fp16 and bf16, rounded wherever a sum is sent on; randk
-- at places that all ranks share; powersgd as in its paper, two all-reduces a step). A rank receives 2 (P - 1)/P of one
-- message, whatever P.
local M = {tries_sizes = true} -- of dense buckets (auto/bucket_size.lua)

--- Only what adds up on the way.
function M.refuses(o)
  if o.compressor.linear then return end
  local names = {}
  for _, entry in ipairs(require("atomo.compress").compressors()) do
    if entry.linear then names[#names + 1] = entry.name end
  end
  return ("adds gradients on the way, and messages of '%s' cannot be added; those of %s can"):format(o.compressor.name,
    table.concat(names, ", "))
end

--- Whether nothing is compressed: every tensor travels in dense buckets.
function M.all_dense(compressor) return compressor.name == "none" end

function M.program() return {"encode", "allreduce", "decode"} end

return M
