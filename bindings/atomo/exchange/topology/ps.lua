--- Topology ps, the ATOMO paper's parameter server (a star): every rank's messages to rank 0, which averages them; the
-- average goes back down dense (down = "dense"), or encoded again (down = "compress"), where rank 0 too takes what it
-- sent, so that all replicas hold the same bits. Encoding again is unbiased: E[Q'(avg Q(g))] = avg g.
-- Messages travel up in batches while backward goes on, and rank 0's answers come down behind the next batch.
-- Rank 0's link carries 2 (P - 1) messages, the others' two.
local batches = require "atomo.exchange.bucket.compressed"
local class_of = require "atomo.exchange.bucket.class"
local messages = require "atomo.exchange.messages"

local M = {ready = batches.ready, settle = batches.settle, give = batches.give}

function M.refuses(o)
  if o.size < 2 then return "wants a server and at least one worker, there is one rank" end
  if o.down == "compress" then return messages.refuses_again(o, "with down = compress") end
end

local function to_server() return 0 end

function M.plan(self)
  messages.split(self)
  batches.plan(self, class_of(self), to_server)
  local again = self.down == "compress"
  local idle = again and self.comm.rank > 0 -- averages nothing and takes none as they are
  batches.plan_answers(self, function(batch) return batch.first, idle and batch.first - 1 or batch.last end, again)
  batches.plan_results(self, again and {from = "answer", block = to_server, blocks = 1, rank = self.comm.size} or {})
end

--- A batch's messages to rank 0.
function M.send(self, batch) return batch:out(self, "alltoall") end

--- Rank 0 averages the batch, and sends the average down.
function M.answer(self, batch)
  if self.comm.rank == 0 then batch:reply_with(self) end
  return batch:back(self, self.second and "bcast" or "bcast_tensor")
end

return M
