--- A bucket of messages of a scripted compressor. The main thread encodes gradients when the bucket is full, and
-- averages at the end of the step; the communication thread sends.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local Bucket = require "atomo.exchange.bucket"
local Coded = require "atomo.exchange.bucket.compressed"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local program = require "atomo.exchange.program"
local ffi, C, check = f.ffi, f.C, f.check

local Scripted = Bucket.kind(Coded)

function Scripted.new(plan, range)
  local self, comm = Coded.fields(plan, range), plan.comm
  self.lengths, self.lengths_back, self.sizes = {}, {}, ffi.new("double[?]", comm.size)
  self.h, self.back_h = program.bucket(self.name, {{plan.out, comm}}, {inbox = self.inbox.h}), false
  if plan.back then
    local fields = plan.second and {inbox = self.answer_inbox.h} or {tensor = self.average.h}
    self.back_h = program.bucket(self.name, {{plan.back, comm}}, fields)
  end
  return Bucket.new(Scripted, self)
end

--- Allocates the buffers for all messages of a step: of gradients, and of averages that are sent back.
function Scripted.buffers(compressor, second)
  return T.empty({compressor:wire_max()}, "u8"), second and T.empty({second:wire_max()}, "u8")
end

--- Encodes grads as messages first, first + 1, ... into `out` from byte `from` on; fills `lengths`, returns the end. If
--- one cannot be encoded (NaN), notes the failure and makes all of them empty.
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

--- messages.decode with its arguments; notes a failure and returns false, and the decoded tensors must not be used
--- then.
local function decode(step, ...)
  local ok, why = pcall(messages.decode, step, ...)
  if not ok then failure.note(step, failure.DECODING, why) end
  return ok
end

--- Sends bytes `from` up to `to` of `buffer` by C's bucket h. sizes: bytes for each rank, or one number for all.
local function send(self, step, h, buffer, from, to, sizes)
  check(C.atomo_bucket_send(h, to > from and buffer.h or nil, from, sizes))
  if not self.plan.overlap then program.wait(h, step) end
end

--- Returns the bytes for each rank if messages have owners, else `total` for all.
local function sizes_of(self, total)
  local sizes = self.sizes
  sizes[0] = total
  if not self.plan.owner then return sizes end
  for r = 0, self.plan.comm.size - 1 do sizes[r] = 0 end
  for j, rank in ipairs(self.to) do sizes[rank] = sizes[rank] + self.lengths[j] end
  return sizes
end

function Scripted:start(step, void)
  void = not step:begin() or void
  local plan, from = self.plan, step.sent
  if void then
    for j = 1, self.last - self.first + 1 do self.lengths[j] = 0 end
  else
    step.sent = encode(step, plan.compressor, self.first, self:gradients(step), plan.buffer, from, self.lengths)
  end
  send(self, step, self.h, plan.buffer, from, step.sent, sizes_of(self, step.sent - from))
end

--- Decodes and averages the messages that this rank owns and sends the averages back, encoded if plan.second is set.
function Scripted:answer(step)
  if not self.answers then return end
  program.wait(self.h, step)
  local plan, from = self.plan, step.sent_back
  if plan.averages_here then
    local sources = messages.open(self.inbox)
    local ok = decode(step, plan.compressor, sources, self.mine, self.mine_last, self.averages)
    if ok and plan.second then
      step.sent_back = encode(step, plan.second, self.mine, self.averages, plan.buffer_back, from, self.lengths_back)
    end
  end
  if plan.second then
    self.sizes[0] = step.sent_back - from
    return send(self, step, self.back_h, plan.buffer_back, from, step.sent_back, self.sizes)
  end
  check(C.atomo_bucket_start(self.back_h, nil, step.number))
end

function Scripted:wait(step) program.wait(self.back_h or self.h, step) end

--- Writes the averages into the gradients, decoding them if they arrive as messages.
function Scripted:write_back(step)
  local grads, results = step.of[self].grads, self.plan.results
  if not results then -- averages arrive dense
    for j, g in ipairs(grads) do g:copy_(self.averages[j]) end
    return
  end
  local rank = results.rank >= 0 and results.rank or nil
  local sources = messages.open(results.from == "answer" and self.answer_inbox or self.inbox, results.blocks, rank)
  decode(step, results.codec, sources, self.first, self.last, grads, results.block)
end

return Scripted
