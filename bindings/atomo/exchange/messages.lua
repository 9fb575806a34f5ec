--- Messages: the part of a step that travels compressed. What the topologies allgather, ps and sharded share: which
-- tensors it is, their encoding and decoding, receiving buffers, the time of each stage.
local f = require "atomo.ffi"
local buckets = require "atomo.exchange.buckets"
local join = require "atomo.exchange.join"
local queue = require "atomo.exchange.queue"
local ffi, C, raise = f.ffi, f.C, f.raise

local const_bytes = ffi.typeof "const uint8_t *"

local M = {}

--- Splits the tensors: self.messages are the numbers of those that travel as messages, self.buckets the others.
function M.split(self)
  local dense = {}
  self.messages, self.grads = {}, {}
  for i = #self.pushed, 1, -1 do
    if not join.is_message(self, i) then dense[#dense + 1] = i end
  end
  for i = 1, #self.pushed do
    if join.is_message(self, i) then self.messages[#self.messages + 1] = i end
  end
  self.buckets = buckets.plan(dense, self.pushed)
  self.bucket_bytes = 0
  for _, b in ipairs(self.buckets.list) do self.bucket_bytes = self.bucket_bytes + 4 * b.n end
  self.queue = queue.new {unpack(self.buckets.list)}
end

--- Plans a codec for messages first..last of self.messages: tensor k of the codec is self.messages[first + k - 1].
-- share: the part of the step's budget that they may spend.
function M.prepare(self, codec, first, last, share)
  local shapes, names = {}, {}
  for k = first, last do
    local i = self.messages[k]
    shapes[#shapes + 1] = self.pushed[i]:shape()
    names[#names + 1] = self.labels[i]
  end
  codec:prepare(shapes, names, {step_bytes = self.dense_bytes * share, dense_bytes = self.bucket_bytes * share})
end

--- An empty buffer for what comes from other ranks. C receives into slot[0] and may replace it; counts[r] bytes are
-- rank r's, which sources[r + 1] walks over.
function M.inbox(self)
  local slot = ffi.gc(ffi.new "atomo_tensor *[1]", function(s) C.atomo_tensor_free(s[0]) end)
  local inbox = {slot = slot, counts = ffi.new("double[?]", self.comm.size), sources = {}}
  for r = 1, self.comm.size do inbox.sources[r] = {left = 0} end
  return inbox
end

--- The sources of an inbox that was just filled, one a rank (the first `blocks` of them; default all).
function M.open(inbox, blocks)
  local at = ffi.cast(const_bytes, inbox.slot[0].data)
  for r = 1, blocks or #inbox.sources do
    local s = inbox.sources[r]
    s.data, s.left = at, inbox.counts[r - 1]
    at = at + inbox.counts[r - 1]
  end
  return inbox.sources
end

--- The gradients of the messages in self.grads, as their codec numbers them.
function M.collect(self)
  for k, i in ipairs(self.messages) do self.grads[k] = self.pushed[i] end
  return self.grads
end

--- Adds the time since `from` to a stage; returns now.
function M.lap(self, stage, from)
  local now = C.atomo_time()
  self.ms[stage] = self.ms[stage] + 1e3 * (now - from)
  return now
end

--- Encodes grads as tensors 1, 2, ... of the codec, by its streaming form, into self.send; returns the bytes. lengths
-- (may be nil) are those of the messages.
function M.encode(self, codec, grads, rank, lengths)
  local t, n = C.atomo_time(), 0
  codec:begin_step(self.step, rank)
  for k, g in ipairs(grads) do
    local bytes = codec:push(k, g, self.send, n)
    if lengths then lengths[k] = bytes end
    n = n + bytes
  end
  codec:end_step()
  M.lap(self, "encode", t)
  self:mark()
  return n
end

--- grads become scale times the sum of what the sources hold for them: tensors first, first + 1, ... of the codec.
function M.decode(self, codec, sources, first, grads, scale)
  local t = C.atomo_time()
  for j, g in ipairs(grads) do codec:decode_tensor(first + j - 1, self.step, sources, scale, g:zero_()) end
  for r, s in ipairs(sources) do
    if s.left ~= 0 then raise(("exchange: %d bytes follow the last message of block %d"):format(s.left, r)) end
  end
  M.lap(self, "decode", t)
end

--- This rank's messages to all, without the communication thread.
function M.allgather(self, inbox, data, nbytes)
  local t = C.atomo_time()
  f.check(C.atomo_comm_allgatherv_bytes(self.comm.h, data, nbytes, inbox.slot, inbox.counts))
  M.lap(self, "exchange", t)
end

--- counts_out[r] bytes of self.send to rank r.
function M.scatter(self, inbox, counts_out)
  local t = C.atomo_time()
  f.check(C.atomo_comm_alltoallv_bytes(self.comm.h, self.send.h.data, counts_out, inbox.slot, inbox.counts))
  M.lap(self, "exchange", t)
end

--- The exchange's compressor. What is averaged here trains a network, so auto prefers accuracy unless told otherwise.
function M.compressor(self)
  return require("atomo.compress").compressor(self.compress, {seed = self.seed, standard = {prefer = "accuracy"}})
end

--- One like it, for what is encoded a second time; its random streams are others (by `stream`, the rank that it claims
--- to be).
M.second = M.compressor

--- Waits for the dense buckets and writes them back; the end of every step.
function M.finish_buckets(self)
  local t = C.atomo_time()
  buckets.finish(self.buckets, self)
  queue.reset(self.queue)
  M.lap(self, "exchange", t)
end

--- What most topologies do with a gradient that is ready, and with a step that is given up.
function M.ready(self, i, grad)
  if self.buckets.of[i] then queue.ready(self.queue, self, buckets.fill(self.buckets, i, grad)) end
end

function M.drop(self)
  for _, unit in ipairs(self.queue.units) do unit:wait() end
  queue.reset(self.queue)
end

return M
