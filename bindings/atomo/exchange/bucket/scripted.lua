--- A bucket of messages of a compressor written in Lua, encoded on this thread: as its gradients arrive, and for the
-- answer at the end of the step. The communication thread sends it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local Bucket = require "atomo.exchange.bucket"
local Coded = require "atomo.exchange.bucket.compressed"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local ffi, C = f.ffi, f.C

local Scripted = Bucket.kind(Coded)
Scripted.late = true -- answers and decoding wait for the end of the step

function Scripted.new(plan, group)
  local self = Coded.fields(plan, group)
  self.lengths, self.lengths_back, self.sizes = {}, {}, ffi.new("double[?]", plan.comm.size)
  return Bucket.new(Scripted, self)
end

--- The buffers that a step's messages are written into: of all ways out, and back.
function Scripted.buffers(compressor, second)
  return T.empty({compressor:wire_max()}, "u8"), second and T.empty({second:wire_max()}, "u8")
end

--- Gradients of messages first .. last behind what is in `out` from `from` on, their lengths into `lengths`; returns
--- where it ends. One that cannot be encoded (NaN) leaves all of them empty.
local function encode(step, codec, first, grads, out, from, lengths)
  local t, at = C.atomo_time(), from
  for j, g in ipairs(grads) do
    local ok, n = pcall(codec.push, codec, first + j - 1, g, out, at)
    if not ok then
      failure.note(step, failure.ENCODING, n)
      for i = 1, #grads do lengths[i] = 0 end
      at = from
      break
    end
    lengths[j], at = n, at + n
  end
  step:lap("encode", t)
  return at
end

--- Decodes messages first .. last; a failure is noted, and what they become is then not to be used.
local function decode(step, ...)
  local ok, why = pcall(messages.decode, step, ...)
  if not ok then failure.note(step, failure.DECODING, why) end
  return ok
end

--- Sends what is in `buffer` from byte `from` to `to`.
local function send(self, step, how, buffer, from, to, inbox)
  local comm, mine = self.plan.comm, step.of[self]
  local data, n = to > from and buffer.h or nil, to - from
  C.atomo_flight_note(self.name)
  if how == "allgather" then
    mine.ticket = carry.out(step, how, comm, data, from, n, inbox)
  elseif how == "broadcast" then
    mine.ticket = carry.out(step, "bcast_bytes", comm, data, from, n, 0, inbox)
  else
    for r = 0, comm.size - 1 do self.sizes[r] = 0 end
    for j, rank in ipairs(self.to) do self.sizes[rank] = self.sizes[rank] + self.lengths[j] end
    mine.ticket = carry.out(step, how, comm, data, from, self.sizes, inbox)
  end
end

function Scripted:start(step, void)
  step:begin()
  local plan, from = self.plan, step.sent
  if void then
    for j = 1, self.last - self.first + 1 do self.lengths[j] = 0 end
  else
    step.sent = encode(step, plan.compressor, self.first, self:gradients(step), plan.buffer, from, self.lengths)
  end
  send(self, step, plan.out, plan.buffer, from, step.sent, self.inbox)
end

--- Averages what has come for this rank, encodes it if that is due, and sends it back.
function Scripted:answer(step)
  self:arrive(step)
  local plan, from = self.plan, step.sent_back
  if plan.averages_here then
    local sources = messages.open(self.inbox)
    local ok = decode(step, plan.compressor, sources, self.mine, self.mine_last, self.averages)
    if ok and plan.second then
      step.sent_back = encode(step, plan.second, self.mine, self.averages, plan.buffer_back, from, self.lengths_back)
    end
  end
  if plan.second then return send(self, step, plan.back, plan.buffer_back, from, step.sent_back, self.answer_inbox) end
  C.atomo_flight_note(self.name)
  step.of[self].ticket = carry.out(step, "bcast", plan.comm, self.average.h, 0)
end

function Scripted:arrive(step)
  local mine = step.of[self]
  carry.wait(step, mine.ticket)
  mine.ticket = nil
end

Scripted.wait = Scripted.arrive

--- The gradients become what has come, decoded here and now.
function Scripted:give(step)
  local grads, results = step.of[self].grads, self.plan.results
  if not results then -- the averages came as they are
    for j, g in ipairs(grads) do g:copy_(self.averages[j]) end
    return
  end
  local rank = results.rank >= 0 and results.rank or nil
  local sources = messages.open(results.from == "answer" and self.answer_inbox or self.inbox, results.blocks, rank)
  decode(step, results.codec, sources, self.first, self.last, grads, results.block)
end

return Scripted
