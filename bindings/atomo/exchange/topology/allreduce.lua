--- Topology allreduce: gradients or messages are added by an all-reduce. With "none", dense gradients in buckets, the
-- usual baseline. With linear compressors, messages are added before decoding: fp16 and bf16 (partial sums are
-- rounded), randk (all ranks send the same positions), powersgd (as in its paper, two all-reduces per step). A rank
-- receives 2 (P - 1)/P times one message.
local M = {tries_sizes = true} -- several sizes of dense buckets are tried (auto/bucket_size.lua)

--- Refuses compressors that are not linear.
function M.refuses(o)
  if o.compressor.linear then return end
  local names = {}
  for _, entry in ipairs(require("atomo.compress").compressors()) do
    if entry.linear then names[#names + 1] = entry.name end
  end
  return ("adds gradients on the way, and messages of '%s' cannot be added; those of %s can"):format(o.compressor.name,
    table.concat(names, ", "))
end

--- Are all tensors sent in dense buckets?
function M.all_dense(compressor) return compressor.name == "none" end

function M.program() return {"encode", "allreduce", "decode"} end

return M
