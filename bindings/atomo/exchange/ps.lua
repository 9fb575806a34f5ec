--- Topology ps, the ATOMO paper's parameter server (a star): every rank's messages to rank 0, which averages them; the
-- average goes back down dense (down = "dense"), or encoded again (down = "compress"), where rank 0 too takes what it
-- sent, so that all replicas hold the same bits. Encoding again is unbiased: E[Q'(avg Q(g))] = avg g.
-- Messages travel up in batches while backward goes on; rank 0's answers to the first ones overlap with the later ones.
-- Rank 0's link carries 2 (P - 1) messages, the others' two.
local batches = require "atomo.exchange.batches"
local carry = require "atomo.exchange.carry"
local messages = require "atomo.exchange.messages"
local ffi = require("atomo.ffi").ffi

local M = {ready = batches.ready, drop = batches.drop}

function M.refuses(o)
  if o.size < 2 then return "wants a server and at least one worker, there is one rank" end
  if o.down == "compress" then return messages.refuses_again(o, "with down = compress") end
end

function M.plan(self)
  messages.split(self)
  batches.plan(self)
  for _, batch in ipairs(self.batches) do batch.sizes = ffi.new("double[?]", self.comm.size) end
  if self.down == "compress" then batches.plan_again(self) end
end

--- A batch's messages to rank 0.
function M.send(self, batch, data, n)
  batch.sizes[0] = n
  return carry.out(self, "alltoall", nil, data, batch.sizes, batch.inbox)
end

--- Rank 0 averages the batch, and sends the average down.
local function answer(self, batch)
  local server = self.comm.rank == 0
  if server then
    messages.decode(self, messages.open(batch.inbox), batch, batch.first, batch.last, 1 / self.comm.size)
  end
  if self.down == "compress" then
    local data, n = nil, 0
    if server then data, n = batches.again(self, batch, batch.first, batch.last) end
    batch.ticket = carry.out(self, "bcast_bytes", nil, data, n, 0, batch.answer)
  else
    for _, g in ipairs(batch.grads) do batch.ticket = carry.out(self, "bcast", nil, g.h, 0) end
  end
end

function M.finish(self)
  batches.close(self)
  local again = self.down == "compress" and #self.batches > 0
  if again then batches.begin_again(self) end
  for _, batch in ipairs(self.batches) do
    batch:wait(self)
    answer(self, batch)
  end
  for _, batch in ipairs(self.batches) do
    batch:wait(self)
    if again then
      local source = messages.open(batch.answer, 1, self.comm.size)[1]
      messages.decode(self, {source}, batch, batch.first, batch.last, 1)
    end
  end
  if again then self.second:end_step() end
  messages.finish_buckets(self)
end

return M
