--- Topology ps, the ATOMO paper's parameter server (a star): every rank's messages to rank 0, which averages them; the
-- average goes back down dense (downlink = "dense"), or encoded again (downlink = "compress"), where rank 0 too takes
-- what it sent, so that all replicas hold the same bits. Encoding again is unbiased: E[Q'(avg Q(g))] = avg g.
-- Messages travel up in buckets while backward continues, and rank 0's answers come down behind the next bucket.
-- Rank 0's link carries 2 (P - 1) messages, the others' two.
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
