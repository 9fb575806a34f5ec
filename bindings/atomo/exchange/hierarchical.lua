--- Topology hierarchical: dense inside a node, where ranks share memory; any other topology between the nodes' leaders
-- (inner =, default allreduce for "none", else allgather); the result is broadcast inside. Only one rank a node uses
-- the network, and what it sends is compressed once a node, not once a rank.
local buckets = require "atomo.exchange.buckets"
local messages = require "atomo.exchange.messages"
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local M = {whole = true} -- every gradient by itself: the leaders' exchange joins the small ones

--- The communicators, and the leaders' own exchange. [collective]
function M.check(self)
  self.node = self.comm:split_shared()
  self.leads = self.node.rank == 0
  self.leaders = self.comm:split(self.leads and 0 or nil)
  local size = require("atomo.tensor").full({1}, self.leads and self.leaders.size or 0)
  self.node:bcast(size, 0)
  self.nodes = size:item()
  self.comms = {self.comm, self.node, self.leaders}
  if self.inner == "allreduce" then require("atomo.exchange.allreduce").check(self) end
  if self.inner == "ps" and self.nodes < 2 then
    raise("exchange: hierarchical with inner = ps wants two nodes, all ranks are on one; inner can be allreduce, " ..
      "allgather, sharded")
  end
  if self.leads then
    self.between = require("atomo.exchange").exchange {comm = self.leaders, compress = self.compress,
      topology = self.inner, down = self.down, min_size = self.min_size, seed = self.seed, overlap = false,
      nested = true, small = self.small}
  end
end

function M.plan(self)
  local order = {}
  for i = #self.pushed, 1, -1 do order[#order + 1] = i end
  self.messages = {}
  self.buckets = buckets.plan(order, self.pushed)
end

--- Gradients are copied out as they come; the node adds them in finish.
function M.ready(self, i, grad) buckets.fill(self.buckets, i, grad) end

function M.drop(self)
  if self.between then self.between:drop() end
end

--- Sum over the node, weighted so that the leaders' average is the average over all ranks, also where nodes have
-- different numbers of ranks.
local function gather(self)
  local scale = self.nodes / self.comm.size
  for _, b in ipairs(self.buckets.list) do
    C.atomo_flight_note(b.name)
    self.node:reduce(b.buffer, "sum", 0)
    if self.leads and scale ~= 1 then b.buffer:mul_(scale) end
  end
end

local function exchange(self)
  for _, b in ipairs(self.buckets.list) do
    for _, m in ipairs(b.members) do self.between:push(m.index, m.slice) end
  end
  self.between:finish()
  local inner = self.between:stats()
  self.ms.encode, self.ms.decode, self.variance = inner.ms.encode, inner.ms.decode, inner.variance
end

function M.finish(self)
  local t = C.atomo_time()
  self:mark()
  gather(self)
  if self.leads then exchange(self) end
  for _, b in ipairs(self.buckets.list) do
    C.atomo_flight_note(b.name)
    self.node:bcast(b.buffer, 0)
  end
  buckets.give_back(self.buckets, self)
  messages.lap(self, "exchange", t)
  self.ms.exchange = self.ms.exchange - self.ms.encode - self.ms.decode
end

return M
