--- A bucket of messages of a native compressor. The main thread only starts it: the coding thread encodes it, the
-- communication thread sends it, and the rest of its program follows (runtime/exchange/bucket.c). Without overlap the
-- same threads do the same work, and the main thread waits.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local Bucket = require "atomo.exchange.bucket"
local Coded = require "atomo.exchange.bucket.compressed"
local program = require "atomo.exchange.program"
local ffi, C, check = f.ffi, f.C, f.check

local tensors = ffi.typeof "const atomo_tensor *const *"

local Native = Bucket.kind(Coded)

--- Makes C's description of messages first .. last. to: list of the rank that each is sent to (or the block that each
--- is in), empty for all; count: number of ranks (or blocks).
local function messages(codec, first, last, to, count)
  local out, n = ffi.new "atomo_messages *[1]", last - first + 1
  local ranks = #to > 0 and ffi.new("int32_t[?]", n, to) or nil
  check(C.atomo_messages_new(codec.h, first, n, ranks, count, out))
  return ffi.gc(out[0], C.atomo_messages_free)
end

--- Returns a C array for n tensor handles, filled from list if given.
local function list_of(n, list)
  local handles = ffi.new("atomo_tensor *[?]", math.max(n, 1))
  for j, t in ipairs(list or {}) do handles[j - 1] = t.h end
  return handles
end

--- Allocates tensors for decoded averages. With overlap, buckets are decoded before finish(), and gradients must not
--- change until then.
local function room_for_decoded(plan, range)
  local list = {}
  for k = range.first, range.last do list[#list + 1] = T.empty(plan.messages[k].shape) end
  return list, list_of(#list, list)
end

--- Returns C's program for the bucket: the topology's operations without those that only other ranks do; and the index
--- of the first operation of the way back, nil if there is none.
local function program_of(plan)
  local steps, second_way = {}, nil
  for _, operation in ipairs(plan.program) do
    local averaging = operation == "average" or operation == "encode_again"
    if plan.averages_here or not averaging then
      local coding = averaging or operation == "encode" or operation == "decode"
      steps[#steps + 1] = {operation, not coding and plan.comm or nil}
      if operation == plan.out then second_way = #steps + 1 end
    end
  end
  return steps, plan.back and second_way or nil
end

--- Returns C's description of the messages that are decoded last, as plan.results says.
local function result_of(plan, range)
  local results, blocks = plan.results, {}
  for k = range.first, results.block and range.last or 0 do
    blocks[#blocks + 1] = results.block(plan.messages[k])
  end
  return messages(results.codec, range.first, range.last, blocks, results.blocks)
end

function Native.new(plan, range)
  local self, ranks, n = Coded.fields(plan, range), plan.comm.size, range.last - range.first + 1
  self.handles, self.decoded = list_of(n), false
  local fields = {up = messages(plan.compressor, self.first, self.last, self.to, ranks), inbox = self.inbox.h}
  if self.answers then
    fields.down = messages(plan.second or plan.compressor, self.mine, self.mine_last, {}, ranks)
    fields.averages, fields.tensor = list_of(#self.averages, self.averages), self.average.h
    fields.answer = plan.second and self.answer_inbox.h or nil
  end
  if plan.results then
    fields.result, fields.rank = result_of(plan, range), plan.results.rank
    if plan.overlap then self.decoded, fields.decoded = room_for_decoded(plan, range) end
  else
    self.decoded = self.averages -- averages arrive dense
  end
  local steps, second_way = program_of(plan)
  self.h = program.bucket(self.name, steps, fields, second_way)
  return Bucket.new(Native, self)
end

--- Starts the bucket; void: with empty messages, in a step that is given up.
function Native:start(step, void)
  void = not step:begin() or void
  if void then return self:go(step) end
  for j, g in ipairs(self:gradients(step)) do self.handles[j - 1] = g.h end
  self:go(step, ffi.cast(tensors, self.handles))
end

--- Writes the decoded averages into the gradients.
function Native:write_back(step)
  local t = C.atomo_time()
  for j, g in ipairs(step.of[self].grads) do
    if self.decoded then g:copy_(self.decoded[j]) else C.atomo_tensor_touch(g.h) end
  end
  step:lap("decode", t)
end

return Native
