--- Dense buckets: tensors copied back to back, summed over the ranks by one all-reduce a bucket, averaged and copied
-- back. Tensors enter in the order in which backward produces them (the last first); with overlap the communication
-- thread (runtime/exchange/engine.c) has the early buckets on their way while backward goes on. The same bits without.
--
-- The order in which an element is summed depends on its grain (neighbouring tensors of a megabyte or more, the same
-- for good), not on its bucket: so a bucket may be any number of grains, and exchange/auto/bucket_size.lua may choose
-- it by the clock.
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local carry = require "atomo.exchange.transport"
local C = f.C

local GRAIN, GRAIN_A_RANK = 2 ^ 20, 2 ^ 15 -- bytes; what a ring wants (runtime/comm/ring_allreduce.c)
local BUCKET = 4 * 2 ^ 20

local M = {}

local Bucket = {}
Bucket.__index = Bucket

--- Neighbouring tensors of at least `least` bytes together; a rest that is less goes to the last grain.
local function grains_of(indices, grads, least)
  local grains, grain, n = {}, nil, 0
  for _, i in ipairs(indices) do n = n + grads[i]:numel() end
  for _, i in ipairs(indices) do
    if not grain or 4 * grain.n >= least and 4 * n >= least then
      grain = {n = 0, members = {}}
      grains[#grains + 1] = grain
    end
    local size = grads[i]:numel()
    grain.members[#grain.members + 1] = {index = i, n = size}
    grain.n, n = grain.n + size, n - size
  end
  return grains
end

--- A bucket of grains first .. last.
local function bucket_of(self, first, last)
  local b = setmetatable({members = {}, n = 0, count = last - first + 1}, Bucket)
  b.grains = f.ffi.new("double[?]", b.count)
  for k = first, last do
    local grain = self.grains[k]
    b.grains[k - first], b.n = grain.n, b.n + grain.n
    for _, m in ipairs(grain.members) do b.members[#b.members + 1] = m end
  end
  b.buffer = self.buffer:narrow(1, self.grains[first].at + 1, b.n)
  return b
end

--- The buckets of at most `bytes` (one grain at least) as a list in order, and by their tensors.
function M.group(self, bytes)
  local list, of, first, n = {}, {}, 1, 0
  for k, grain in ipairs(self.grains) do
    n = n + 4 * grain.n
    local following = self.grains[k + 1]
    if not following or n + 4 * following.n > bytes then
      list[#list + 1] = bucket_of(self, first, k)
      first, n = k + 1, 0
    end
  end
  for k, b in ipairs(list) do
    b.name = ("bucket %d of %d"):format(k, #list)
    for _, m in ipairs(b.members) do of[m.index] = b end
  end
  return {list = list, of = of, bytes = bytes}
end

--- Takes a grouping (M.group).
function M.take(self, grouping) self.list, self.of = grouping.list, grouping.of end

---@param indices integer[]  tensors, in the order in which they become ready
---@param grads atomo.Tensor[]
---@param ranks integer
function M.plan(indices, grads, ranks)
  local self, total = {slices = {}}, 0
  self.grains = grains_of(indices, grads, math.max(GRAIN, GRAIN_A_RANK * ranks))
  for _, grain in ipairs(self.grains) do
    grain.at, total = total, total + grain.n
  end
  if total > 0 then self.buffer = T.zeros(total) end
  for _, grain in ipairs(self.grains) do
    local at = grain.at
    for _, m in ipairs(grain.members) do
      m.slice = self.buffer:narrow(1, at + 1, m.n):view(grads[m.index]:shape())
      self.slices[m.index], at = m.slice, at + m.n
    end
  end
  M.take(self, M.group(self, BUCKET))
  return self
end

--- Copies tensor i into its bucket; returns the bucket.
function M.fill(self, i, grad)
  self.slices[i]:copy_(grad)
  return self.of[i]
end

--- The full bucket goes out to be summed.
function Bucket:post(exchange)
  C.atomo_flight_note(self.name)
  self.ticket = carry.out(exchange, "allreduce", nil, self.buffer.h, self.grains, self.count)
end

function Bucket:wait(exchange)
  carry.wait(exchange, self.ticket)
  self.ticket = nil
end

--- Writes the buckets' contents back into the gradients.
function M.give_back(self, exchange)
  for i, slice in pairs(self.slices) do exchange.pushed[i]:copy_(slice) end
end

--- Waits for every bucket.
function M.settle(self, exchange)
  for _, b in ipairs(self.list) do b:wait(exchange) end
end

--- Writes the averages back.
function M.give(self, exchange)
  local scale = 1 / exchange.comm.size
  for _, b in ipairs(self.list) do
    if scale ~= 1 then b.buffer:mul_(scale) end
  end
  M.give_back(self, exchange)
end

return M
