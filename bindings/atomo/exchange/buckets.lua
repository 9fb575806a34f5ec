--- Dense buckets: tensors copied back to back, summed over the ranks by one all-reduce a bucket, averaged and copied
-- back. Tensors enter in the order in which backward produces them (the last first); with overlap the communication
-- thread (runtime/comm/engine.c) has the early buckets on their way while backward goes on. The same bits without.
local T = require "atomo.tensor"
local carry = require "atomo.exchange.carry"

local MAX_BYTES = 4 * 2 ^ 20

local M = {}

local Bucket = {}
Bucket.__index = Bucket

---@param indices integer[]  tensors, in the order in which they become ready
---@param grads atomo.Tensor[]
function M.plan(indices, grads)
  local self = {list = {}, of = {}}
  local bucket
  for _, i in ipairs(indices) do
    local n = grads[i]:numel()
    if not bucket or (bucket.n + n) * 4 > MAX_BYTES then
      bucket = setmetatable({n = 0, members = {}}, Bucket)
      self.list[#self.list + 1] = bucket
    end
    bucket.members[#bucket.members + 1] = {index = i, offset = bucket.n, n = n}
    bucket.n = bucket.n + n
    self.of[i] = bucket
  end
  for _, b in ipairs(self.list) do
    b.buffer = T.zeros(b.n)
    for _, m in ipairs(b.members) do
      m.slice = b.buffer:narrow(1, m.offset + 1, m.n):view(grads[m.index]:shape())
      b[m.index] = m
    end
  end
  return self
end

--- Copies tensor i into its bucket; returns the bucket.
function M.fill(self, i, grad)
  local b = self.of[i]
  b[i].slice:copy_(grad)
  return b
end

--- The full bucket goes out to be summed.
function Bucket:post(exchange) self.ticket = carry.out(exchange, "allreduce", nil, self.buffer.h) end

function Bucket:wait(exchange)
  carry.wait(exchange, self.ticket)
  self.ticket = nil
end

--- Writes the buckets' contents back into the gradients.
function M.give_back(self, exchange)
  for _, b in ipairs(self.list) do
    for _, m in ipairs(b.members) do exchange.pushed[m.index]:copy_(m.slice) end
  end
end

--- Waits for every bucket and writes the averages back.
function M.finish(self, exchange)
  local scale = 1 / exchange.comm.size
  for _, b in ipairs(self.list) do
    b:wait(exchange)
    if scale ~= 1 then b.buffer:mul_(scale) end
  end
  M.give_back(self, exchange)
end

return M
