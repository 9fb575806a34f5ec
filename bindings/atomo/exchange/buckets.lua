--- Dense buckets: tensors copied back to back, summed over the ranks by one non-blocking all-reduce a bucket, averaged
-- and copied back. Tensors enter in the order in which backward produces them (the last first), so that early buckets
-- are on their way while backward goes on.
local T = require "atomo.tensor"

local MAX_BYTES = 4 * 2 ^ 20

local M = {}

---@param indices integer[]  tensors, in the order in which they become ready
---@param grads atomo.Tensor[]
function M.plan(indices, grads)
  local self = {list = {}, of = {}}
  local bucket
  for _, i in ipairs(indices) do
    local n = grads[i]:numel()
    if not bucket or (bucket.n + n) * 4 > MAX_BYTES then
      bucket = {n = 0, members = {}, waiting = 0}
      self.list[#self.list + 1] = bucket
    end
    bucket.members[#bucket.members + 1] = {index = i, offset = bucket.n, n = n}
    bucket.n = bucket.n + n
    self.of[i] = bucket
  end
  for _, b in ipairs(self.list) do
    b.buffer = T.zeros(b.n)
    b.waiting = #b.members
    for _, m in ipairs(b.members) do
      m.slice = b.buffer:narrow(1, m.offset + 1, m.n):view(grads[m.index]:shape())
      b[m.index] = m
    end
  end
  return self
end

--- Tensor i is ready; posts its bucket when that is full.
function M.ready(self, exchange, i, grad)
  local b = self.of[i]
  b[i].slice:copy_(grad)
  b.waiting = b.waiting - 1
  if b.waiting == 0 then
    exchange:mark()
    b.request = exchange.comm:iallreduce(b.buffer, "sum")
  end
end

--- Waits for what was posted and forgets it.
function M.drop(self)
  for _, b in ipairs(self.list) do
    if b.request then b.request:wait() end
    b.request = nil
    b.waiting = #b.members
  end
end

--- Waits for every bucket and writes the averages back.
function M.finish(self, exchange)
  local scale = 1 / exchange.comm.size
  for _, b in ipairs(self.list) do
    b.request:wait()
    b.request = nil
    b.waiting = #b.members
    if scale ~= 1 then b.buffer:mul_(scale) end
    for _, m in ipairs(b.members) do exchange.pushed[m.index]:copy_(m.slice) end
  end
end

return M
