--- Topology sharded: tensors are owned by ranks, in balance by bytes. Every rank's messages go to the owners
-- (all-to-all), an owner averages its tensors and encodes the averages again with a random stream of its own, and these
-- are all-gathered. A rank receives (P - 1)/P of a step's messages twice, whatever P: the choice for many ranks.
-- Both drawings are unbiased, so the result is; its variance is the mean's (1/P of one rank's) plus the second draw's.
local T = require "atomo.tensor"
local messages = require "atomo.exchange.messages"
local ffi = require("atomo.ffi").ffi

local M = {ready = messages.ready, drop = messages.drop}

--- Owners: the largest tensor first, to the rank that has least; the same on all ranks. Lists of tensor numbers.
---@param sizes table<integer, number>  bytes by tensor number
---@param ranks integer
---@return integer[][] owned, number[] load
function M.balance(sizes, ranks)
  local order, owned, load = {}, {}, {}
  for i in pairs(sizes) do order[#order + 1] = i end
  table.sort(order, function(a, b) return sizes[a] > sizes[b] or (sizes[a] == sizes[b] and a < b) end)
  for r = 1, ranks do owned[r], load[r] = {}, 0 end
  for _, i in ipairs(order) do
    local least = 1
    for r = 2, ranks do if load[r] < load[least] then least = r end end
    table.insert(owned[least], i)
    load[least] = load[least] + sizes[i]
  end
  for r = 1, ranks do table.sort(owned[r]) end
  return owned, load
end

--- The owner's second encoder: planned on all ranks, since they decode with it. A budget in bytes is cut to its share.
local function shard(self, first, last, share)
  local codec = messages.second(self)
  messages.prepare(self, codec, first, last, share)
  codec.share = share
  local bytes = tonumber(tostring(codec):match "[:,]bytes=([^,;]+)")
  if bytes then codec:set_budget {bytes = bytes * share} end
  return {first = first, last = last, codec = codec, grads = {}}
end

function M.plan(self)
  messages.split(self)
  if #self.messages == 0 then return end
  local sizes, total = {}, 0
  for _, i in ipairs(self.messages) do
    sizes[i] = 4 * self.pushed[i]:numel()
    total = total + sizes[i]
  end
  local owned, load = M.balance(sizes, self.comm.size)
  self.messages, self.shards, self.lengths = {}, {}, {}
  for r, list in ipairs(owned) do -- messages in the order of their owners
    local first = #self.messages + 1
    for _, i in ipairs(list) do self.messages[#self.messages + 1] = i end
    self.shards[r] = #list > 0 and shard(self, first, #self.messages, load[r] / total) or
      {first = first, last = first - 1, grads = {}}
  end
  messages.prepare(self, self.compressor, 1, #self.messages, 1)
  self.send = T.empty({self.compressor:wire_max()}, "u8")
  self.sizes = ffi.new("double[?]", self.comm.size)
  self.inbox, self.averages = messages.inbox(self), messages.inbox(self)
end

--- Messages to the owners; afterwards an owner's gradients hold the average.
local function to_owners(self)
  messages.encode(self, self.compressor, messages.collect(self), self.comm.rank, self.lengths)
  for r, s in ipairs(self.shards) do
    self.sizes[r - 1] = 0
    for k = s.first, s.last do
      self.sizes[r - 1] = self.sizes[r - 1] + self.lengths[k]
      s.grads[k - s.first + 1] = self.grads[k]
    end
  end
  messages.scatter(self, self.inbox, self.sizes)
  local mine = self.shards[self.comm.rank + 1]
  messages.decode(self, self.compressor, messages.open(self.inbox), mine.first, mine.grads, 1 / self.comm.size)
end

--- The owners' averages, encoded again with the stream of rank `size`, which nobody is, to all.
local function from_owners(self)
  local mine, inbox, nbytes = self.shards[self.comm.rank + 1], self.averages, 0
  if mine.codec then nbytes = messages.encode(self, mine.codec, mine.grads, self.comm.size) end
  messages.allgather(self, inbox, self.send.h.data, nbytes)
  local sources = messages.open(inbox)
  for r, s in ipairs(self.shards) do
    if s.codec then messages.decode(self, s.codec, {sources[r]}, 1, s.grads, 1) end
  end
end

function M.finish(self)
  if #self.messages > 0 then
    to_owners(self)
    from_owners(self)
  end
  messages.finish_buckets(self)
end

return M
