--- Topology allgather: every rank's compressed messages to every rank, each decodes all of them in the order of ranks,
-- so the averages are the same bits everywhere. Messages travel in batches while backward goes on
-- (exchange/bucket/compressed.lua), small tensors in dense buckets. A rank receives P - 1 messages a step: the choice
-- for few ranks.
local batches = require "atomo.exchange.bucket.compressed"
local class_of = require "atomo.exchange.bucket.class"
local messages = require "atomo.exchange.messages"

local M = {ready = batches.ready, settle = batches.settle, give = batches.give}

function M.plan(self)
  messages.split(self)
  batches.plan(self, class_of(self))
  batches.plan_results(self, {from = "inbox"})
end

--- A batch's messages to all.
function M.send(exchange, batch) return batch:out(exchange, "allgather") end

return M
