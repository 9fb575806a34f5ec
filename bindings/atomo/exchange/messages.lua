--- Messages: the part of a step that travels compressed. What the kinds of buckets and the topologies share: the
-- compressors of both ways, receiving buffers, decoding.
local f = require "atomo.ffi"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local const_bytes = ffi.typeof "const uint8_t *"

local M = {}

--- An empty buffer for what comes from other ranks. C receives into slot[0] and may replace it; counts[r] bytes are
-- rank r's, which sources[r + 1] walks over. slot and counts live as long as h.
function M.inbox(comm)
  local out = ffi.new "atomo_inbox *[1]"
  check(C.atomo_inbox_new(comm.size, out))
  local h = ffi.gc(out[0], C.atomo_inbox_free)
  local inbox = {h = h, slot = h.slot, counts = h.counts, sources = {}}
  for r = 1, comm.size do inbox.sources[r] = {left = 0} end
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

--- Tensors become the averages of what the sources hold, by this codec (of their way), for messages first .. last,
--- into[1] the first's; with block, message m is in source block(m), counted from 0, alone.
function M.decode(step, codec, sources, first, last, into, block)
  local t = C.atomo_time()
  for k = first, last do
    local from = block and {sources[block(step.plan.messages[k]) + 1]} or sources
    codec:decode_tensor(k, step.number, from, 1 / #from, into[k - first + 1]:zero_())
  end
  for r, s in ipairs(sources) do
    if s.left ~= 0 then raise(("exchange: %d bytes follow the last message of block %d"):format(s.left, r)) end
  end
  step:lap("decode", t)
end

--- Why averages cannot be encoded a second time with o.compressor, or nil. A biased one without
--- error feedback would lose a part of the average for good.
function M.refuses_again(o, what)
  if o.compressor.unbiased or o.feedback then return end
  return ("%s encodes the average a second time: that wants an unbiased compressor or ef=true, '%s' is biased"):format(
    what, tostring(o.compressor))
end

--- A compressor for one way, each with draws of its own: "up", the ranks' gradients, or "down", averages that are
--- encoded a second time; its budget in bytes is cut to `share`. What is averaged here trains a network, so auto
--- prefers accuracy unless told otherwise.
---@param settings {compress: string|table, seed: integer?, share: number?}
function M.compressor(settings, way)
  return require("atomo.compress").compressor(settings.compress,
    {seed = settings.seed, way = way, share = settings.share, standard = {prefer = "accuracy"}})
end

return M
