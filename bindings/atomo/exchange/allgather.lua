--- Topology allgather: every rank's compressed messages to every rank (MPI_Allgatherv), each decodes all of them in the
-- order of ranks, so the averages are the same bits everywhere. Small tensors go by dense buckets.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local buckets = require "atomo.exchange.buckets"
local ffi, C = f.ffi, f.C

local M = {}

function M.plan(self)
  local dense, shapes, names = {}, {}, {}
  self.messages = {}
  for i = #self.pushed, 1, -1 do
    local g = self.pushed[i]
    if g:dim() < 2 or g:numel() < self.min_size then dense[#dense + 1] = i end
  end
  for i, g in ipairs(self.pushed) do
    if g:dim() >= 2 and g:numel() >= self.min_size then
      self.messages[#self.messages + 1] = i
      shapes[#shapes + 1] = g:shape()
      names[#names + 1] = ("gradient %d"):format(i)
    end
  end
  self.buckets = buckets.plan(dense, self.pushed)
  self.grads = {}
  if #self.messages == 0 then return end
  local dense_bytes = 0
  for _, b in ipairs(self.buckets.list) do dense_bytes = dense_bytes + 4 * b.n end
  self.compressor:prepare(shapes, names, {step_bytes = self.dense_bytes, dense_bytes = dense_bytes})
  self.send = T.empty({self.compressor:wire_max()}, "u8")
  self.received = ffi.gc(ffi.new "atomo_tensor *[1]", function(slot) C.atomo_tensor_free(slot[0]) end)
  self.inbox = setmetatable({}, T.Tensor) -- views received[0], which C owns and may replace by a larger one
  self.counts = ffi.new("double[?]", self.comm.size)
end

function M.ready(self, i, grad)
  if self.buckets.of[i] then buckets.ready(self.buckets, self, i, grad) end
end

local function exchange_messages(self)
  local c, ms = self.compressor, self.ms
  for k, i in ipairs(self.messages) do self.grads[k] = self.pushed[i] end
  local t0 = C.atomo_time()
  local nbytes = c:encode_step(self.grads, {step = self.step, rank = self.comm.rank, out = self.send})
  local t1 = C.atomo_time()
  self:mark()
  f.check(C.atomo_comm_allgatherv_bytes(self.comm.h, self.send.h.data, nbytes, self.received, self.counts))
  local t2 = C.atomo_time()
  for _, g in ipairs(self.grads) do g:zero_() end
  self.inbox.h = self.received[0]
  c:decode_all(self.inbox, self.counts, self.comm.size, 1 / self.comm.size, self.grads)
  ms.encode = 1e3 * (t1 - t0)
  ms.exchange = 1e3 * (t2 - t1)
  ms.decode = 1e3 * (C.atomo_time() - t2)
end

function M.drop(self) buckets.drop(self.buckets) end

function M.finish(self)
  if #self.messages > 0 then exchange_messages(self) end
  local start = C.atomo_time()
  buckets.finish(self.buckets, self)
  self.ms.exchange = self.ms.exchange + 1e3 * (C.atomo_time() - start)
end

return M
