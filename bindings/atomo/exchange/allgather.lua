--- Topology allgather: every rank's compressed messages to every rank, each decodes all of them in the order of ranks,
-- so the averages are the same bits everywhere. Messages travel in batches while backward goes on (batches.lua), small
-- tensors in dense buckets. A rank receives P - 1 messages a step: the choice for few ranks.
local T = require "atomo.tensor"
local batches = require "atomo.exchange.batches"
local messages = require "atomo.exchange.messages"
local queue = require "atomo.exchange.queue"

local M = {}

function M.plan(self)
  messages.split(self)
  self.batches = {of = {}}
  if #self.messages == 0 then return end
  messages.prepare(self, self.compressor, 1, #self.messages, 1)
  self.send = T.empty({self.compressor:wire_max()}, "u8")
  self.batches = batches.plan(self)
  local units = {unpack(self.buckets.list)}
  for _, batch in ipairs(self.batches) do units[#units + 1] = batch end
  self.queue = queue.new(units)
end

function M.ready(self, i, grad)
  local batch = self.batches.of[i]
  if batch then queue.ready(self.queue, self, batch) else messages.ready(self, i, grad) end
end

function M.drop(self)
  batches.close(self, true)
  messages.drop(self)
end

function M.finish(self)
  batches.finish(self.batches, self)
  messages.finish_buckets(self)
end

return M
