--- A bucket of messages of a compressor written in C: a parcel (runtime/exchange/bucket_coded.c), encoded by the coding
-- thread, sent by the communication thread as soon as it is; this thread only posts. So is the answer, another parcel,
-- and what is decoded at last, a third. Without overlap it is the same work on the same threads, waited for at once.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local Bucket = require "atomo.exchange.bucket"
local Coded = require "atomo.exchange.bucket.compressed"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local ffi, C, check = f.ffi, f.C, f.check

local tensors = ffi.typeof "const atomo_tensor *const *"
local seconds = ffi.new "double[2]"

local Native = Bucket.kind(Coded)

--- A parcel of messages first .. last, for (or from) `to` (a list; empty: all) of so many ranks.
local function parcel(codec, first, last, to, count)
  local out, n = ffi.new "atomo_parcel *[1]", last - first + 1
  local ranks = #to > 0 and ffi.new("int32_t[?]", n, to) or nil
  check(C.atomo_parcel_new(codec.h, first, n, ranks, count, out))
  return ffi.gc(out[0], C.atomo_parcel_free)
end

--- Room for C's view of these tensors.
local function list_of(n, list)
  local handles = ffi.new("atomo_tensor *[?]", math.max(n, 1))
  for j, t in ipairs(list or {}) do handles[j - 1] = t.h end
  return handles
end

--- Gradients are left alone until finish(): what is decoded before has room of its own. Without overlap nothing is.
local function room_for_decoded(plan, group)
  local list = {}
  for k = group.first, group.last do list[#list + 1] = T.empty(plan.messages[k].shape) end
  return list, list_of(#list, list)
end

function Native.new(plan, group)
  local self, ranks, n = Coded.fields(plan, group), plan.comm.size, group.last - group.first + 1
  self.up, self.handles = parcel(plan.compressor, self.first, self.last, self.to, ranks), list_of(n)
  self.down, self.average_handles, self.result, self.decoded, self.decoded_handles = false, false, false, false, false
  if self.answers then
    self.down = parcel(plan.second or plan.compressor, self.mine, self.mine_last, {}, ranks)
    self.average_handles = list_of(#self.averages, self.averages)
  end
  local results, blocks = plan.results, {}
  if not results then
    self.decoded = self.averages -- come as they are
    return Bucket.new(Native, self)
  end
  for k = self.first, results.block and self.last or 0 do blocks[#blocks + 1] = results.block(plan.messages[k]) end
  self.result = parcel(results.codec, self.first, self.last, blocks, results.blocks)
  if plan.overlap then self.decoded, self.decoded_handles = room_for_decoded(plan, group) end
  return Bucket.new(Native, self)
end

--- Waits where nothing overlaps.
local function at_once(self, p)
  if not self.plan.overlap then C.atomo_parcel_wait(p, seconds) end -- what it says is said again by wait
end

--- Decodes what travels last, when it has come.
local function open(self, step)
  if not self.result then return end
  local results, mine = self.plan.results, step.of[self]
  local from = results.from == "answer" and self.answer_inbox or self.inbox
  check(C.atomo_parcel_decode(self.result, step.number, results.rank, from.h, self.decoded_handles or self.handles,
    mine.ticket or 0))
  mine.open = true
  at_once(self, self.result)
end

function Native:start(step, void)
  step:begin()
  local mine = step.of[self]
  mine.started = true
  if void then
    check(C.atomo_parcel_empty(self.up))
  else
    for j, g in ipairs(self:gradients(step)) do self.handles[j - 1] = g.h end
    check(C.atomo_parcel_encode(self.up, ffi.cast(tensors, self.handles)))
  end
  at_once(self, self.up)
  C.atomo_flight_note(self.name)
  mine.ticket = carry.parcel(step, self.plan.out, self.up, self.inbox)
  if not self.answers then open(self, step) end
end

--- Averages what has come for this rank, encodes it if that is due, and sends it back.
function Native:answer(step)
  local plan, mine = self.plan, step.of[self]
  C.atomo_flight_note(self.name)
  if plan.averages_here then
    check(C.atomo_parcel_answer(self.down, plan.compressor.h, step.number, self.inbox.h, self.average_handles,
      plan.second and 1 or 0, mine.ticket or 0))
    mine.answered = true
    at_once(self, self.down)
  end
  mine.ticket = carry.parcel(step, plan.back, self.down, plan.second and self.answer_inbox or self.average)
  open(self, step)
end

local function take(step, p, kind)
  local status, ms = C.atomo_parcel_wait(p, seconds), step.ms
  if status < 0 then failure.note(step, kind, f.text_of(status)) end
  ms.encode, ms.decode = ms.encode + 1e3 * seconds[0], ms.decode + 1e3 * seconds[1]
end

--- Waits until all is coded, has travelled and is decoded; notes time and failures.
function Native:wait(step)
  local mine, t = step.of[self], C.atomo_time()
  if mine.started then take(step, self.up, failure.ENCODING) end
  if mine.answered then take(step, self.down, failure.DECODING) end
  step:lap("exchange", t) -- it was waited for
  carry.wait(step, mine.ticket)
  if mine.open then take(step, self.result, failure.DECODING) end
end

--- The gradients become what was decoded.
function Native:give(step)
  local t = C.atomo_time()
  for j, g in ipairs(step.of[self].grads) do
    if self.decoded then g:copy_(self.decoded[j]) else C.atomo_tensor_touch(g.h) end
  end
  step:lap("decode", t)
end

return Native
