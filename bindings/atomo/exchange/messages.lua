--- Messages in an exchange, shared by the kinds of buckets and the topologies: compressors of both ways, receive
-- buffers, decoding.
local f = require "atomo.ffi"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local const_bytes = ffi.typeof "const uint8_t *"

local M = {}

--- Makes an inbox: a buffer for other ranks' messages. C receives into the tensor slot[0] and may replace it by a
-- larger one; counts[r] bytes are rank r's; sources[r + 1] is the reading position in them. slot and counts belong to
-- h.
function M.inbox(comm)
  local out = ffi.new "atomo_inbox *[1]"
  check(C.atomo_inbox_new(comm.size, out))
  local h = ffi.gc(out[0], C.atomo_inbox_free)
  local inbox = {h = h, slot = h.slot, counts = h.counts, sources = {}}
  for r = 1, comm.size do inbox.sources[r] = {left = 0} end
  return inbox
end

--- Sets the sources of an inbox that was just filled to their beginnings; returns them. blocks: number of sources,
--- default one per rank; rank: the sender of all messages, default source r + 1 has rank r's.
function M.open(inbox, blocks, rank)
  local at = ffi.cast(const_bytes, inbox.slot[0].data)
  for r = 1, blocks or #inbox.sources do
    local s = inbox.sources[r]
    s.data, s.left, s.rank = at, inbox.counts[r - 1], rank or r - 1
    at = at + inbox.counts[r - 1]
  end
  return inbox.sources
end

--- Decodes messages first .. last from the sources and writes their averages to into[1], into[2], ... With block,
--- message m is only in source block(m) (from 0), and is not averaged. Raises if bytes are left over.
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

--- Returns why averages cannot be encoded again with o.compressor, nil if they can. A biased compressor without error
--- feedback would lose a part of the average for good.
function M.refuses_again(o, what)
  if o.compressor.unbiased or o.feedback then return end
  return ("%s encodes the average a second time: that wants an unbiased compressor or ef=true, '%s' is biased"):format(
    what, tostring(o.compressor))
end

--- Makes the compressor of one way: "up" for the ranks' gradients, "down" for averages that are encoded again; each has
--- its own random streams. settings.share: factor for a budget in bytes. Option prefer, of the compressor
--- auto, is "accuracy" here unless it is given: the averages train a network.
---@param settings {compress: string|table, seed: integer?, share: number?}
function M.compressor(settings, way)
  return require("atomo.compress").compressor(settings.compress,
    {seed = settings.seed, way = way, share = settings.share, standard = {prefer = "accuracy"}})
end

return M
