--- Topology ps, the ATOMO paper's parameter server (a star): every rank's messages to rank 0, which averages them; the
-- average goes back down dense (down = "dense"), or encoded again (down = "compress"), where rank 0 too takes what it
-- sent, so that all replicas hold the same bits. Encoding again is unbiased: E[Q'(avg Q(g))] = avg g.
-- Rank 0's link carries 2 (P - 1) messages, the others' two.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local messages = require "atomo.exchange.messages"
local ffi, C, raise = f.ffi, f.C, f.raise

local M = {ready = messages.ready, drop = messages.drop}

--- Refuses what cannot work, before anything is sent.
function M.check(self)
  if self.comm.size < 2 then
    raise("exchange: topology ps wants a server and at least one worker, this job has one rank; " ..
      "topologies for one rank are allreduce, allgather, sharded, hierarchical")
  end
end

function M.plan(self)
  messages.split(self)
  if #self.messages == 0 then return end
  messages.prepare(self, self.compressor, 1, #self.messages, 1)
  self.send = T.empty({self.compressor:wire_max()}, "u8")
  self.inbox = messages.inbox(self)
  self.sizes = ffi.new("double[?]", self.comm.size)
  if self.down == "compress" then
    self.downward = messages.second(self)
    messages.prepare(self, self.downward, 1, #self.messages, 1)
  end
end

--- Messages to rank 0; there the average is in self.grads afterwards.
local function up(self)
  local inbox = self.inbox
  self.sizes[0] = messages.encode(self, self.compressor, messages.collect(self), self.comm.rank)
  messages.scatter(self, inbox, self.sizes)
  if self.comm.rank == 0 then
    messages.decode(self, self.compressor, messages.open(inbox), 1, self.grads, 1 / self.comm.size)
  end
end

local function down_dense(self)
  local t = C.atomo_time()
  for _, g in ipairs(self.grads) do
    C.atomo_flight_note "averages from the server"
    self.comm:bcast(g, 0)
  end
  messages.lap(self, "exchange", t)
end

--- The stream of rank `size`, which nobody is: the second draw does not depend on the first.
local function down_compressed(self)
  local inbox, nbytes = self.inbox, 0
  if self.comm.rank == 0 then nbytes = messages.encode(self, self.downward, self.grads, self.comm.size) end
  local t = C.atomo_time()
  C.atomo_flight_note "averages from the server"
  f.check(C.atomo_comm_bcast_bytes(self.comm.h, self.send.h.data, nbytes, 0, inbox.slot, inbox.counts))
  messages.lap(self, "exchange", t)
  messages.decode(self, self.downward, {messages.open(inbox, 1)[1]}, 1, self.grads, 1)
end

function M.finish(self)
  if #self.messages > 0 then
    up(self)
    if self.down == "compress" then down_compressed(self) else down_dense(self) end
  end
  messages.finish_buckets(self)
end

return M
