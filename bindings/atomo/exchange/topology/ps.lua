--- Topology ps, the ATOMO paper's parameter server (a star): every rank sends its messages to rank 0, which averages
-- them and sends the averages back, dense (downlink = "dense") or encoded again (downlink = "compress"). In the second
-- case rank 0, too, uses the decoded averages, so that replicas are bit-identical. Encoding again keeps the result
-- unbiased: E[Q'(avg Q(g))] = avg g. Buckets are sent while backward continues, rank 0's answer to a bucket after the
-- next bucket. Rank 0's link carries 2 (P - 1) messages per step, the others' links two.
local messages = require "atomo.exchange.messages"

local M = {}

function M.refuses(o)
  if o.size < 2 then return "wants a server and at least one worker, there is one rank" end
  if o.downlink == "compress" then return messages.refuses_again(o, "with downlink = compress") end
end

--- Rank 0 averages every message.
function M.owner() return 0 end

function M.program(settings)
  if settings.downlink ~= "compress" then return {"encode", "alltoall", "average", "broadcast_tensor"} end
  return {"encode", "alltoall", "average", "encode_again", "broadcast", "decode"}
end

return M
