--- One step of an exchange: all state that the step changes is in this object. The first push makes it, commit or drop
-- ends it. commit keeps what compressors learnt in the step, drop undoes it.
local f = require "atomo.ffi"
local failure = require "atomo.exchange.failure"
local sealed = require "atomo.exchange.sealed"
local C = f.C

local seconds = f.ffi.new "double[3]" -- work of the communication thread, waiting for it, work of the coding thread

---@class atomo.exchange.Step
---@field number integer       keys the random streams
---@field given table          gradients by gradient number
---@field versions table       their versions when they were pushed (pushed.lua)
---@field count integer        number of gradients pushed
---@field tensors table        gradients by number of the plan's tensor (fuse_small.lua)
---@field missing table        bucket -> number of its gradients not yet pushed
---@field at integer           index of the next bucket to start
---@field of table             bucket -> its state in this step
---@field ms table             milliseconds by stage; exchange: that the main thread waited
---@field span number          seconds from the first push to the last one, without encoding on the main thread
---@field first table|false    counters before the step's first message
---@field begun boolean        has begin_step of the compressors been called?
---@field refused boolean      did a compressor refuse its budget? This rank then sends empty messages
---@field broken table|false   failure on this rank (failure.lua)
---@field failed string|false  why the step has failed, the same on all ranks; it must be dropped
---@field averaged boolean     do the gradients have the averages, so that commit may follow?
local Step = sealed({}, "exchange: step")

--- Begins step number `number` of an exchange.
function Step.new(number)
  return setmetatable({number = number, given = {}, versions = {}, count = 0, tensors = {}, missing = {}, at = 1,
    of = {}, ms = {encode = 0, exchange = 0, decode = 0}, began = C.atomo_time(), span = 0, first = false, plan = false,
    begun = false, refused = false, sent = 0, sent_back = 0, variance = false, broken = false, failed = false,
    averaged = false}, Step)
end

--- Sets the plan of the step.
function Step:follow(plan)
  self.plan = plan
  for _, bucket in ipairs(plan.buckets) do self.missing[bucket], self.of[bucket] = bucket.count, {} end
end

--- Adds gradient i.
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

--- Returns the bytes sent and received so far on these communicators.
local function moved(comms)
  local out, input = 0, 0
  for _, comm in pairs(comms) do
    local o, i = comm:bytes()
    out, input = out + o, input + i
  end
  return out, input
end

--- Records the counters before the step's first message, so that bytes sent during backward are counted.
function Step:mark(comms)
  if self.first then return end
  local out, input = moved(comms)
  C.atomo_engine_seconds(seconds)
  self.first = {out = out, input = input, worked = seconds[0], waited = seconds[1], coded = seconds[2]}
end

--- Begins a compressor's step. If it refuses its budget, this is noted as a failure of the step, which all ranks raise.
local function begin(self, compressor, rank)
  local ok, why = pcall(compressor.begin_step, compressor, self.number, rank)
  if ok then return end
  self.refused = true
  failure.note(self, failure.ENCODING, why)
end

--- Begins the compressors' step, once. The compressor of averages uses the random stream of rank `size`, which no rank
--- has. Returns false if a compressor refused its budget: buckets must then start with empty messages.
function Step:begin()
  if not self.begun then
    local plan = self.plan
    self.begun = true
    begin(self, plan.compressor, plan.comm.rank)
    if plan.second then begin(self, plan.second, plan.comm.size) end
  end
  return not self.refused
end

--- Ends the compressors' step: method "end_step" keeps what they learnt, "undo_step" does not.
function Step:close(method)
  if not self.begun then return end
  local plan = self.plan
  plan.compressor[method](plan.compressor)
  if plan.second then plan.second[method](plan.second) end
end

--- Returns the overlap, the fraction of min(backward, communication) for which the main thread did not wait (nil
--- without overlap or communication), and the seconds that it waited.
local function overlap_of(self)
  local from = self.first
  C.atomo_engine_seconds(seconds)
  local worked, waited = seconds[0] - from.worked, seconds[1] - from.waited
  local shorter = math.min(worked, self.span)
  if not self.plan.overlap or shorter <= 0 then return nil, waited end
  return math.max(0, math.min(1, (worked - waited) / shorter)), waited
end

--- Returns the figures of a step that has been exchanged.
---@return {bytes_out: number, bytes_in: number, hidden: number?, waited: number, ms: table, variance: number|false}
function Step:figures(comms)
  local out, input = moved(comms)
  local hidden, waited = overlap_of(self)
  return {bytes_out = out - self.first.out, bytes_in = input - self.first.input, hidden = hidden, waited = waited,
    ms = self.ms, variance = self.variance}
end

--- Seconds of encoding on any thread, and of decoding on the coding thread, so far.
function Step:coding()
  C.atomo_engine_seconds(seconds)
  return self.ms.encode / 1e3 + (self.first and seconds[2] - self.first.coded or 0)
end

return Step
