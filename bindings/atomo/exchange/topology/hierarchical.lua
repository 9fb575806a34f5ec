--- Topology hierarchical: dense inside a node, where ranks share memory; any other topology between the nodes' leaders
-- (inner =, default allreduce for "none", else allgather); the result is broadcast inside. Only one rank a node uses
-- the network, and what it sends is compressed once a node, not once a rank. The communication thread adds up the node
-- while backward goes on; where the leaders all-reduce dense sums, it does that and the broadcast too.
local buckets = require "atomo.exchange.bucket.dense"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local queue = require "atomo.exchange.scheduler"
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local M = {ready = messages.ready, whole = true} -- every gradient by itself: the leaders' exchange joins small ones

function M.refuses(o)
  if o.inner == "auto" then return end
  local why = require("atomo.exchange.topology." .. o.inner).refuses
  -- how many leaders there are is known when the communicators are (check)
  why = why and why {compressor = o.compressor, feedback = o.feedback, size = math.huge, down = o.down}
  return why and ("with inner = %s: %s"):format(o.inner, why)
end

--- The communicators, and the leaders' own exchange. [collective]
function M.check(self)
  self.node = self.comm:split_shared()
  self.leads = self.node.rank == 0
  self.leaders = self.comm:split(self.leads and 0 or nil)
  local size = require("atomo.tensor").full({1}, self.leads and self.leaders.size or 0)
  self.node:bcast(size, 0)
  self.nodes = size:item()
  self.comms = {self.comm, self.node, self.leaders}
  if self.inner == "ps" and self.nodes < 2 then
    raise("exchange: hierarchical with inner = ps wants two nodes, all ranks are on one; inner can be allreduce, " ..
      "allgather, sharded")
  end
  self.dense = self.compressor.name == "none" and (self.inner == "auto" or self.inner == "allreduce")
  if self.leads and not self.dense then
    -- inner = "auto" is the standard one, not a measured choice: the leaders are not all ranks
    self.between = require("atomo.exchange").exchange {comm = self.leaders, compress = self.compress,
      topology = self.inner == "auto" and "standard" or self.inner, down = self.down, min_size = self.min_size,
      seed = self.seed, overlap = self.overlap, nested = true, small = self.small}
  end
end

--- A bucket that is full: added up in the node, and dense ones between the nodes.
local function post(bucket, self)
  local tensor = bucket.buffer.h
  bucket.ticket = carry.out(self, "reduce", self.node, tensor, 0)
  if not self.dense then return end
  if self.leads then bucket.ticket = carry.out(self, "allreduce", self.leaders, tensor, bucket.grains, bucket.count) end
  bucket.ticket = carry.out(self, "bcast", self.node, tensor, 0)
end

function M.plan(self)
  local order = {}
  for i = #self.pushed, 1, -1 do order[#order + 1] = i end
  self.messages = {}
  self.buckets = buckets.plan(order, self.pushed, self.comm.size)
  for _, b in ipairs(self.buckets.list) do b.post = post end
  self.queue = queue.new {unpack(self.buckets.list)} -- fixed: what MPI adds up in a node may depend on the bucket
end

--- The nodes' sums through the leaders' exchange, weighted so that its average is the average over all ranks, also
-- where nodes have different numbers of ranks.
local function exchange(self)
  local scale = self.nodes / self.comm.size
  for _, b in ipairs(self.buckets.list) do
    if scale ~= 1 then b.buffer:mul_(scale) end
    for _, m in ipairs(self.between.closed and {} or b.members) do self.between:push(m.index, m.slice) end
  end
  local ok, why = pcall(self.between.average_or_why, self.between)
  if not ok then -- before anything was encoded: all leaders refuse it alike, and the other ranks must hear of it
    if self.between.begun then error(why, 0) end
    return failure.note(self, failure.ENCODING, why)
  end
  if why then
    local own = self.between.broken -- the leader that was the cause says so by its rank here
    return failure.note(self, own and own.kind or failure.DECODING, own and own.text or why)
  end
  local inner = self.between:stats()
  self.ms.encode, self.ms.decode, self.variance = inner.ms.encode, inner.ms.decode, inner.variance
  self.ms.exchange = self.ms.exchange + inner.ms.exchange
end

function M.settle(self)
  buckets.settle(self.buckets, self)
  if self.dense then return end
  if self.leads and self.broken then -- given up
    self.between:drop()
  elseif self.leads then
    exchange(self)
  end
  for _, b in ipairs(self.buckets.list) do
    C.atomo_flight_note(b.name)
    b.ticket = carry.out(self, "bcast", self.node, b.buffer.h, 0)
  end
  buckets.settle(self.buckets, self)
end

function M.give(self)
  if self.dense then return buckets.give(self.buckets, self) end
  buckets.give_back(self.buckets, self)
end

return M
