--- Topology allgather: every rank's compressed messages to every rank, each decodes all of them in the order of ranks,
-- so the averages are the same bits everywhere. Messages travel in batches while backward goes on (batches.lua), small
-- tensors in dense buckets. A rank receives P - 1 messages a step: the choice for few ranks.
local batches = require "atomo.exchange.batches"
local carry = require "atomo.exchange.carry"
local messages = require "atomo.exchange.messages"

local M = {ready = batches.ready, drop = batches.drop}

function M.plan(self)
  messages.split(self)
  batches.plan(self)
end

--- A batch's messages to all.
function M.send(self, batch, data, n) return carry.out(self, "allgather", nil, data, n, batch.inbox) end

function M.finish(self)
  batches.close(self)
  for _, batch in ipairs(self.batches) do
    batch:wait(self)
    messages.decode(self, messages.open(batch.inbox), batch, batch.first, batch.last, 1 / self.comm.size)
  end
  messages.finish_buckets(self)
end

return M
