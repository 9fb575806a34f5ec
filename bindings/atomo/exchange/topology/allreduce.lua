--- Topology allreduce: gradients added up on the way. Dense ("none"): in buckets, the baseline. Compressed: by linear
-- compressors, whose messages add up before they are decoded (fp16 and bf16, rounded wherever a sum is sent on; randk
-- at places that all ranks share; powersgd as in its paper, two all-reduces a step). A rank receives 2 (P - 1)/P of one
-- message, whatever P.
local adapt = require "atomo.exchange.auto.bucket_size"
local buckets = require "atomo.exchange.bucket.dense"
local messages = require "atomo.exchange.messages"
local sums = require "atomo.exchange.bucket.linear"

local M = {}

--- Only what adds up on the way.
function M.refuses(o)
  if o.compressor.linear then return end
  local names = {}
  for _, entry in ipairs(require("atomo.compress").compressors()) do
    if entry.linear then names[#names + 1] = entry.name end
  end
  return ("adds gradients on the way, and messages of '%s' cannot be added; those of %s can"):format(o.compressor.name,
    table.concat(names, ", "))
end

function M.plan(self)
  self.sums = {of = {}}
  if self.compressor.name == "none" then
    local order = {}
    for i = #self.pushed, 1, -1 do order[#order + 1] = i end
    self.messages = {}
    self.buckets = buckets.plan(order, self.pushed, self.comm.size)
    adapt.plan(self)
    return
  end
  messages.split(self)
  if #self.messages == 0 then return end
  messages.prepare(self, self.compressor)
  self.sums = sums.plan(self)
  messages.enqueue(self, self.sums)
end

function M.ready(self, i, grad)
  local sum = self.sums.of[i]
  if sum then messages.complete(self, sum) else messages.ready(self, i, grad) end
end

function M.settle(self)
  sums.settle(self.sums, self)
  buckets.settle(self.buckets, self)
end

function M.give(self)
  sums.give(self.sums, self)
  buckets.give(self.buckets, self)
end

return M
