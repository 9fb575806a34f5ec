--- Topology allreduce: every gradient dense, in buckets, summed on the way. The baseline.
local buckets = require "atomo.exchange.buckets"
local queue = require "atomo.exchange.queue"
local messages = require "atomo.exchange.messages"
local raise = require("atomo.ffi").raise

local M = {ready = messages.ready, drop = messages.drop, finish = messages.finish_buckets}

--- Only what adds up on the way.
function M.check(self)
  if self.compressor.name ~= "none" then
    raise(("exchange: topology allreduce adds gradients on the way, '%s' sends messages that cannot be added; " ..
      "use topology allgather, ps, sharded or hierarchical, or compress none"):format(self.compressor.name))
  end
end

function M.plan(self)
  local order = {}
  for i = #self.shapes, 1, -1 do order[#order + 1] = i end
  self.messages = {}
  self.buckets = buckets.plan(order, self.pushed)
  self.queue = queue.new {unpack(self.buckets.list)}
end

return M
