--- A batch (compressed.lua) of a compressor written in C: a parcel (runtime/exchange/bucket_coded.c), encoded by the
-- coding thread, sent by the communication thread as soon as it is; this thread only posts. So is the answer, another
-- parcel, and what is decoded at last, a third. Without overlap it is the same work on the same threads, waited for at
-- once.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local batches = require "atomo.exchange.bucket.compressed"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local ffi, C, check = f.ffi, f.C, f.check

local tensors = ffi.typeof "const atomo_tensor *const *"
local seconds = ffi.new "double[2]"

local Coded = {}
Coded.__index = Coded

--- A parcel of messages first .. last, for (or from) `to` (a list; empty: all) of so many ranks.
local function parcel(codec, first, last, to, count)
  local out, n = ffi.new "atomo_parcel *[1]", last - first + 1
  local ranks = #to > 0 and ffi.new("int32_t[?]", n, to) or nil
  check(C.atomo_parcel_new(codec.h, first, n, ranks, count, out))
  return ffi.gc(out[0], C.atomo_parcel_free)
end

--- Room for C's view of n tensors: to be filled, and as C takes it.
local function list_of(n)
  local list = ffi.new("atomo_tensor *[?]", math.max(n, 1))
  return list, ffi.cast(tensors, list)
end

function Coded:plan(exchange)
  self.parcel = parcel(exchange.compressor, self.first, self.last, self.to, exchange.comm.size)
  self.handles, self.list = list_of(self.last - self.first + 1)
end

function Coded:plan_answer(exchange, again)
  self.again = again and 1 or 0
  self.reply = parcel(again and exchange.second or exchange.compressor, self.mine, self.mine_last, {},
    exchange.comm.size)
  self.average_handles = list_of(#self.averages)
  for j, t in ipairs(self.averages) do self.average_handles[j - 1] = t.h end
end

--- Gradients are left alone until finish(): what is decoded before has room of its own. Without overlap nothing is.
function Coded:plan_result(exchange)
  local o, blocks = exchange.results, {}
  if not o.from then
    self.decoded = self.averages -- come as they are
    return
  end
  for k = self.first, o.block and self.last or 0 do blocks[#blocks + 1] = o.block(k) end
  self.result = parcel(o.codec, self.first, self.last, blocks, o.blocks or exchange.comm.size)
  if not exchange.overlap then return end
  self.decoded, self.decoded_handles = {}, list_of(self.last - self.first + 1)
  for k = self.first, self.last do
    local j = k - self.first + 1
    self.decoded[j] = T.empty(exchange.messages[k].shape)
    self.decoded_handles[j - 1] = self.decoded[j].h
  end
end

Coded.post, Coded.wait = batches.post, batches.wait

--- Waits where nothing overlaps.
local function at_once(exchange, p)
  if not exchange.overlap then C.atomo_parcel_wait(p, seconds) end -- what it says is said again by coded()
end

function Coded:encode(exchange)
  for j, g in ipairs(self.grads) do self.handles[j - 1] = g.h end
  exchange:mark()
  check(C.atomo_parcel_encode(self.parcel, self.list))
  at_once(exchange, self.parcel)
end

--- The batch of a step that is given up.
function Coded:encode_nothing(exchange)
  exchange:mark()
  check(C.atomo_parcel_empty(self.parcel))
  at_once(exchange, self.parcel)
end

--- Sends the batch to all ("allgather"), or each rank its own ("alltoall").
function Coded:out(exchange, how) return carry.parcel(exchange, how, self.parcel, self.inbox) end

--- Averages what has come for this rank, and encodes it where that is due.
function Coded:reply_with(exchange)
  check(C.atomo_parcel_answer(self.reply, exchange.compressor.h, exchange.step, self.inbox.h, self.average_handles,
    self.again, self.ticket or 0))
  at_once(exchange, self.reply)
end

--- Sends the answer: "allgather"; the root's: "bcast"; the root's averages as they are: "bcast_tensor".
function Coded:back(exchange, how)
  return carry.parcel(exchange, how, self.reply, how == "bcast_tensor" and self.average or self.answer)
end

--- Decodes what travels last, when it has come.
function Coded:open(exchange)
  if not self.result then return end
  local o = exchange.results
  check(C.atomo_parcel_decode(self.result, exchange.step, o.rank or -1, self[o.from].h,
    self.decoded_handles or self.handles, self.ticket or 0))
  self.is_open = true
  at_once(exchange, self.result)
end

local function take(exchange, p, kind)
  local status = C.atomo_parcel_wait(p, seconds)
  if status < 0 then failure.note(exchange, kind, f.text_of(status)) end
  exchange.ms.encode, exchange.ms.decode = exchange.ms.encode + 1e3 * seconds[0], exchange.ms.decode + 1e3 * seconds[1]
end

--- Waits until the batch, and the answer to it, are coded; notes time and failure.
function Coded:coded(exchange)
  if not exchange.begun then return end
  take(exchange, self.parcel, failure.ENCODING)
  if self.reply then take(exchange, self.reply, failure.DECODING) end
end

--- Waits until what came is decoded; notes time and failure.
function Coded:opened(exchange)
  if self.is_open then take(exchange, self.result, failure.DECODING) end
  self.is_open = nil
end

--- The gradients become what was decoded.
function Coded:give(exchange)
  local t = C.atomo_time()
  for j, g in ipairs(self.grads) do
    if self.decoded then g:copy_(self.decoded[j]) else C.atomo_tensor_touch(g.h) end
  end
  messages.lap(exchange, "decode", t)
end

return Coded
