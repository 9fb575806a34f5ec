--- Messages: the part of a step that travels compressed. What the topologies share: which tensors it is, or which
-- pieces of them, their decoding, receiving buffers, the time of each stage.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local buckets = require "atomo.exchange.bucket.dense"
local join = require "atomo.exchange.fuse_small"
local queue = require "atomo.exchange.scheduler"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local const_bytes = ffi.typeof "const uint8_t *"

local M = {}

--- Splits the tensors: self.messages are those that travel as messages, {index=, shape=, n=} in the order of their
--- numbers, self.buckets the others. Message k is tensor k of the codec.
function M.split(self)
  local dense = {}
  self.messages = {}
  for i = #self.pushed, 1, -1 do
    if not join.is_message(self, i) then dense[#dense + 1] = i end
  end
  for i, g in ipairs(self.pushed) do
    if join.is_message(self, i) then
      self.messages[#self.messages + 1] = {index = i, shape = g:shape(), n = g:numel()}
    end
  end
  self.buckets = buckets.plan(dense, self.pushed, self.comm.size)
  self.bucket_bytes = 0
  for _, b in ipairs(self.buckets.list) do self.bucket_bytes = self.bucket_bytes + 4 * b.n end
  self.queue = queue.new {unpack(self.buckets.list)}
end

--- The buckets and these units, in the order in which they can go out.
function M.enqueue(self, units)
  local all = {unpack(self.buckets.list)}
  for _, unit in ipairs(units) do all[#all + 1] = unit end
  self.queue = queue.new(all)
end

--- Message k's gradient of this step: the tensor, or of a piece (rows from .. from + rows - 1) a view of it.
function M.gradient(self, k)
  local m = self.messages[k]
  local g = self.pushed[m.index]
  if not m.from then return g end
  if m.source ~= g then
    m.source, m.view = g, T.outside_scope(g.narrow, g, 1, m.from, m.rows)
  end
  return m.view
end

--- Plans a codec for the messages; its budget in bytes or as a ratio is that of the whole step.
function M.prepare(self, codec)
  local shapes, names = {}, {}
  for k, m in ipairs(self.messages) do
    shapes[k], names[k] = m.shape, self.labels[m.index]
  end
  codec:prepare(shapes, names, {step_bytes = self.dense_bytes, dense_bytes = self.bucket_bytes})
  if codec.agree then codec:agree(self.comm) end -- written in Lua
end

--- An empty buffer for what comes from other ranks. C receives into slot[0] and may replace it; counts[r] bytes are
-- rank r's, which sources[r + 1] walks over. slot and counts live as long as h.
function M.inbox(self)
  local out = ffi.new "atomo_inbox *[1]"
  check(C.atomo_inbox_new(self.comm.size, out))
  local h = ffi.gc(out[0], C.atomo_inbox_free)
  local inbox = {h = h, slot = h.slot, counts = h.counts, sources = {}}
  for r = 1, self.comm.size do inbox.sources[r] = {left = 0} end
  return inbox
end

--- The sources of an inbox that was just filled, one a rank (the first `blocks` of them; default all). Their messages
--- must be `rank`'s; default: each rank's own.
function M.open(inbox, blocks, rank)
  local at = ffi.cast(const_bytes, inbox.slot[0].data)
  for r = 1, blocks or #inbox.sources do
    local s = inbox.sources[r]
    s.data, s.left, s.rank = at, inbox.counts[r - 1], rank or r - 1
    at = at + inbox.counts[r - 1]
  end
  return inbox.sources
end

--- This step's first message is about to be encoded.
function M.begin(self)
  if self.begun then return end
  self.compressor:begin_step(self.step, self.comm.rank)
  self.begun, self.sent = true, 0
end

--- Adds the time since `from` to a stage; returns now.
function M.lap(self, stage, from)
  local now = C.atomo_time()
  self.ms[stage] = self.ms[stage] + 1e3 * (now - from)
  return now
end

--- Tensors become the averages of what the sources hold, by this codec (of their way), for messages first .. last,
--- into[1] the first's; with block, message k is in source block(k), counted from 0, alone.
function M.decode(self, codec, sources, first, last, into, block)
  local t = C.atomo_time()
  for k = first, last do
    local from = block and {sources[block(k) + 1]} or sources
    codec:decode_tensor(k, self.step, from, 1 / #from, into[k - first + 1]:zero_())
  end
  for r, s in ipairs(sources) do
    if s.left ~= 0 then raise(("exchange: %d bytes follow the last message of block %d"):format(s.left, r)) end
  end
  M.lap(self, "decode", t)
end

--- Why averages cannot be encoded a second time with o.compressor, or nil. What it leaves out would be lost for good.
function M.refuses_again(o, what)
  if o.compressor.unbiased or o.feedback then return end
  return ("%s encodes the average a second time: that wants an unbiased compressor or ef=true, '%s' is biased"):format(
    what, tostring(o.compressor))
end

--- The exchange's compressor for one way, each with draws of its own: "up", the ranks' gradients, or "down", averages
--- that are encoded a second time; its budget in bytes is cut to self.share. What is averaged here trains a network, so
--- auto prefers accuracy unless told otherwise.
function M.compressor(self, way)
  return require("atomo.compress").compressor(self.compress,
    {seed = self.seed, way = way, share = self.share, standard = {prefer = "accuracy"}})
end

--- One more tensor of a unit is ready.
function M.complete(self, unit) queue.ready(self.queue, self, unit) end

--- What most topologies do with a gradient that is ready.
function M.ready(self, i, grad)
  if self.buckets.of[i] then M.complete(self, buckets.fill(self.buckets, i, grad)) end
end

return M
