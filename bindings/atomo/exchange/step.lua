--- One step of an exchange: all that the step changes, in one object. The first push makes it, commit or drop ends it;
-- nothing else remembers a step that was dropped. What compressors learnt in it is kept by commit and undone by drop.
local f = require "atomo.ffi"
local failure = require "atomo.exchange.failure"
local sealed = require "atomo.exchange.sealed"
local C = f.C

local seconds = f.ffi.new "double[3]" -- worked by the communication thread, waited for, worked by the coding thread

---@class atomo.exchange.Step
---@field number integer       keys the random streams
---@field given table          gradients by the user's number
---@field versions table       theirs, when they were pushed (pushed.lua)
---@field count integer        how many have been pushed
---@field tensors table        gradients by the plan's number (fuse_small.lua)
---@field missing table        by bucket: gradients that have not come
---@field at integer           the next entry of the plan's order to start
---@field of table             by bucket: what this step keeps of it
---@field ms table             milliseconds by stage; exchange: waited by this thread
---@field span number          seconds of backward so far, from the first push, without encoding on this thread
---@field first table|false    the counters before the step's first message
---@field begun boolean        the compressors' step has begun
---@field refused boolean      a compressor would not begin it, for its budget: this rank sends empty messages
---@field broken table|false   what went wrong on this rank (failure.lua)
---@field failed string|false  why the step has failed, on all ranks alike: it is to be dropped
---@field averaged boolean     the gradients are the averages: commit may follow
local Step = sealed({}, "exchange: step")

--- Number `number` of an exchange begins.
function Step.new(number)
  return setmetatable({number = number, given = {}, versions = {}, count = 0, tensors = {}, missing = {}, at = 1,
    of = {}, ms = {encode = 0, exchange = 0, decode = 0}, began = C.atomo_time(), span = 0, first = false, plan = false,
    begun = false, refused = false, sent = 0, sent_back = 0, variance = false, broken = false, failed = false,
    averaged = false}, Step)
end

--- The plan that the step follows.
function Step:follow(plan)
  self.plan = plan
  for _, bucket in ipairs(plan.buckets) do self.missing[bucket], self.of[bucket] = bucket.count, {} end
end

--- Gradient i has come.
function Step:add(i, grad)
  self.span = C.atomo_time() - self.began - 1e-3 * self.ms.encode
  self.given[i], self.count = grad, self.count + 1
end

--- Adds the time since `from` to a stage; returns now.
function Step:lap(stage, from)
  local now = C.atomo_time()
  self.ms[stage] = self.ms[stage] + 1e3 * (now - from)
  return now
end

--- Bytes out and in so far, over these communicators.
local function moved(comms)
  local out, input = 0, 0
  for _, comm in pairs(comms) do
    local o, i = comm:bytes()
    out, input = out + o, input + i
  end
  return out, input
end

--- Notes the counters before the step's first message, so that what is sent during backward is counted.
function Step:mark(comms)
  if self.first then return end
  local out, input = moved(comms)
  C.atomo_engine_seconds(seconds)
  self.first = {out = out, input = input, worked = seconds[0], waited = seconds[1], coded = seconds[2]}
end

--- Begins a compressor's step; a budget that it refuses is a failure of the step, which all ranks hear of.
local function begin(self, compressor, rank)
  local ok, why = pcall(compressor.begin_step, compressor, self.number, rank)
  if ok then return end
  self.refused = true
  failure.note(self, failure.ENCODING, why)
end

--- Begins the compressors' step: the second one encodes averages with the streams of rank `size`. False where one
--- refuses: buckets then start empty.
function Step:begin()
  if not self.begun then
    local plan = self.plan
    self.begun = true
    begin(self, plan.compressor, plan.comm.rank)
    if plan.second then begin(self, plan.second, plan.comm.size) end
  end
  return not self.refused
end

--- The end of the compressors' step: "end_step" keeps what they learnt, "undo_step" does not.
function Step:close(method)
  if not self.begun then return end
  local plan = self.plan
  plan.compressor[method](plan.compressor)
  if plan.second then plan.second[method](plan.second) end
end

--- Overlap: the fraction of min(backward, communication) for which nobody waited, nil if there was neither; and the
--- seconds waited.
local function overlap_of(self)
  local from = self.first
  C.atomo_engine_seconds(seconds)
  local worked, waited = seconds[0] - from.worked, seconds[1] - from.waited
  local shorter = math.min(worked, self.span)
  if not self.plan.overlap or shorter <= 0 then return nil, waited end
  return math.max(0, math.min(1, (worked - waited) / shorter)), waited
end

--- The figures of a step that has travelled.
---@return {bytes_out: number, bytes_in: number, hidden: number?, waited: number, ms: table, variance: number|false}
function Step:figures(comms)
  local out, input = moved(comms)
  local hidden, waited = overlap_of(self)
  return {bytes_out = out - self.first.out, bytes_in = input - self.first.input, hidden = hidden, waited = waited,
    ms = self.ms, variance = self.variance}
end

--- Seconds of encoding, and of the coding thread's decoding, so far, on whichever thread.
function Step:coding()
  C.atomo_engine_seconds(seconds)
  return self.ms.encode / 1e3 + (self.first and seconds[2] - self.first.coded or 0)
end

return Step
