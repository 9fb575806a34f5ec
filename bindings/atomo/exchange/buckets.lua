--- Dense buckets: tensors copied back to back, summed over the ranks by one all-reduce a bucket, averaged and copied
-- back. Tensors enter in the order in which backward produces them (the last first); with overlap the communication
-- thread (runtime/comm/engine.c) has the early buckets on their way while backward goes on. The same bits without.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, check = f.C, f.check

local ticket = f.ffi.new "double[1]"
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
  for k, b in ipairs(self.list) do
    b.name = ("bucket %d of %d"):format(k, #self.list)
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

--- Hands the full bucket to the communication thread; without overlap it is summed here and now.
function Bucket:post(exchange)
  C.atomo_flight_note(self.name)
  if exchange.overlap then
    check(C.atomo_engine_allreduce(exchange.comm.h, self.buffer.h, ticket))
    self.ticket = ticket[0]
  else
    exchange.comm:allreduce(self.buffer)
  end
end

function Bucket:wait()
  if self.ticket then check(C.atomo_engine_wait(self.ticket)) end
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
    b:wait()
    if scale ~= 1 then b.buffer:mul_(scale) end
  end
  M.give_back(self, exchange)
end

return M
