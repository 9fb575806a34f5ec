--- Topology allreduce: every gradient dense, in buckets, summed on the way. The baseline.
local buckets = require "atomo.exchange.buckets"
local C = require("atomo.ffi").C

local M = {}

function M.plan(self)
  local order = {}
  for i = #self.shapes, 1, -1 do order[#order + 1] = i end
  self.messages = {}
  self.buckets = buckets.plan(order, self.pushed)
end

function M.ready(self, i, grad) buckets.ready(self.buckets, self, i, grad) end

function M.drop(self) buckets.drop(self.buckets) end

function M.finish(self)
  local start = C.atomo_time()
  buckets.finish(self.buckets, self)
  self.ms.exchange = 1e3 * (C.atomo_time() - start)
end

return M
