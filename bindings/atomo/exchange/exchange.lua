--- An exchange: every rank's gradients in, their average out, the same bits on all ranks (stages 4 to 8). push(i, grad)
-- takes gradient i as it becomes ready, finish() completes the step. It owns a Plan (which tensors travel in which
-- bucket; made at the first step, never changed) and one Step (made at the first push, dropped at the end; all that a
-- step changes is in it). The route (route.lua) is what is open before the first gradient is known.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local Plan = require "atomo.exchange.plan"
local Step = require "atomo.exchange.step"
local adapt = require "atomo.exchange.auto.bucket_size"
local check = require "atomo.exchange.check"
local failure = require "atomo.exchange.failure"
local fuse_small = require "atomo.exchange.fuse_small"
local memories = require "atomo.exchange.memories"
local pushed = require "atomo.exchange.pushed"
local routes = require "atomo.exchange.route"
local scheduler = require "atomo.exchange.scheduler"
local sealed = require "atomo.exchange.sealed"
local C, raise = f.C, f.raise

---@class atomo.Exchange
---@field comm table            communicator
---@field settings table        the options' values (options.lua)
---@field compressor table      atomo.compressor
---@field topology string
---@field route table           route.lua
---@field plan table|false      plan.lua; false before the first step
---@field trials table|false    sizes of dense buckets that are still to be tried (auto/bucket_size.lua)
---@field step integer          number of the coming step, or of the one under way; keys the random streams
---@field current table|false   the step under way (step.lua); false between two steps
---@field last table            the figures of the last step that travelled
---@field names table|false     of the gradients
---@field epoch integer|false
---@field remembered table|false what compressors get when the first step is planned (memories.lua)
---@field closed string|false   why nothing can be exchanged any more: the ranks may not be at the same point
---@field apart table           where gradients lie, to see that no two share memory (pushed.lua)
---@field verdict table         where ranks compare whether the step has failed
---@field notify function|false tells of a choice (auto/) and of memories that begin anew; false: on standard output
---@field chooser table|false   auto/
local Exchange = sealed({}, "exchange")

--- What a change of settings replaces.
local replaced = {"settings", "topology", "compressor", "route", "plan", "trials", "remembered"}

--- An exchange with these options, all given. class: Exchange, or one that says more. [collective]
function Exchange.new(opts, class)
  local self = routes.choose(opts)
  self.plan, self.trials, self.remembered = false, false, false
  self.step, self.current, self.names, self.epoch, self.closed = 0, false, false, false, false
  self.last = {ms = {encode = 0, exchange = 0, decode = 0}, variance = false}
  self.apart = pushed.new()
  self.verdict, self.notify, self.chooser = T.outside_scope(T.zeros, 1), false, false
  setmetatable(self, class or Exchange)
  if not self.settings.nested then check.ranks(self) end
  routes.open(self, Exchange.new)
  return self
end

--- Runs fn(self, ...), which travels; where it raises, the ranks may not be at the same point, so that is the end.
local function travel(self, fn, ...)
  local ok, why = pcall(fn, self, ...)
  if ok then return end
  self.closed = tostring(why)
  error(why, 0)
end

--- The step under way; begins it.
local function current(self)
  if not self.current then
    self.current = Step.new(self.step)
    if self.plan then self.current:follow(self.plan) end
  end
  return self.current
end

--- Gradient i goes into its bucket, and what is full goes out.
local function send(self, i, grad)
  self.plan.bucket_of[i]:add(self.current, i, grad)
  scheduler.advance(self.current)
end

--- Gradient i (1-based) of this step is ready. It must stay unchanged until finish(), which overwrites it.
---@param i integer
---@param grad atomo.Tensor  f32, contiguous
function Exchange:push(i, grad)
  check.gradient(self, i, grad)
  local step = current(self)
  pushed.note(self.apart, step.versions, i, grad)
  step:add(i, grad)
  if self.plan and self.plan.overlap then travel(self, send, i, grad) end
end

--- The first step is there: plans.
local function plan(self)
  check.agreement(self)
  self.plan = T.outside_scope(Plan.new, {comm = self.comm, settings = self.settings, compressor = self.compressor,
    route = self.route, names = self.names}, self.current.given)
  if self.route.topology.tries_sizes and self.compressor.name == "none" then
    self.trials = T.outside_scope(adapt.plan, self.plan)
  end
  memories.hand_over(self)
  memories.put_back(self)
  if self.epoch then self:set_epoch(self.epoch) end
  self.current:follow(self.plan)
end

--- Everything travels and comes back.
local function exchange_all(self, all_at_once)
  local step, given = self.current, self.current.given
  step:mark(self.route.comms)
  for i = #given, 1, -1 do
    if all_at_once then send(self, i, given[i]) end
  end
  scheduler.settle(step)
  if step.broken then return end
  for _, bucket in ipairs(self.plan.buckets) do bucket:write_back(step) end
  fuse_small.write_back(step)
  for _, g in ipairs(given) do C.atomo_tensor_touch(g.h) end -- whatever wrote into them
end

--- Whether this step has failed on any rank. Dense exchanges neither encode nor decode: they have nothing to agree on.
local function share_failure(self)
  if self.compressor.name ~= "none" then
    self.current.failed = failure.share(self.comm, self.current, self.verdict)
  end
end

--- As average; where the step has failed, on all ranks alike, returns why.
---@return string?
function Exchange:average_or_why()
  check.sound(self)
  local step, first = current(self), not self.plan
  check.pushed(self)
  if first then plan(self) end
  travel(self, exchange_all, first or not self.plan.overlap)
  self.last = step:figures(self.route.comms)
  share_failure(self)
  step.averaged = not step.failed
  return step.failed or nil
end

--- The first half of finish: every pushed gradient now holds the average over all ranks. The step can still be given
--- up; commit() ends it. [collective]
function Exchange:average()
  local why = self:average_or_why()
  if why then raise(("exchange: step %d: %s"):format(self.step, why)) end
end

--- The second half: what compressors remember of the step holds from now on. [collective]
function Exchange:commit()
  local step = self.current
  if not (step and step.averaged) then
    raise(("exchange: commit: step %d has not been averaged"):format(self.step))
  end
  if self.route.between then self.route.between:commit() end
  step:close "end_step"
  self.current = false
  if self.trials then self.plan, self.trials = adapt.step(self.trials, self.plan, self.last.waited or 0) end
  self.step = self.step + 1
end

--- Completes the step: every pushed gradient now holds the average over all ranks. Where a rank has failed, all raise
--- its words; drop() then gives the step up. [collective]
function Exchange:finish()
  self:average()
  self:commit()
end

--- Starts what other ranks may have started, so that all meet.
local function meet(self)
  local step = self.current
  failure.note(step, failure.GIVEN_UP, "it was given up")
  scheduler.start_remaining(step)
  scheduler.settle(step)
end

--- Gives this step up, on all ranks alike, in the middle or after finish has failed: it leaves no trace. [collective]
function Exchange:drop()
  if self.closed then check.sound(self) end
  local step, between = current(self), self.route.between
  if self.plan and not (step.failed or step.averaged) then
    travel(self, meet)
    share_failure(self)
  end
  local inner = between and not between.closed and between.current
  if inner and (inner.failed or inner.averaged or not between.plan) then between:drop() end
  step:close "undo_step"
  self.current = false
end

--- Why a bucket that has started failed on this rank, where the ranks are no longer at the same point; nil: none did.
---@return string?
function Exchange:why_parted()
  local step = self.current
  for k = 1, step and self.plan and step.at - 1 or 0 do
    local bucket = self.plan.buckets[k]
    local ok, why = pcall(bucket.wait, bucket, step)
    if not ok then return tostring(why) end
  end
end

--- Names of the gradients, for messages and overrides; before the first step. atomo.train gives the parameters' names.
---@param names string[]
function Exchange:set_names(names)
  if self.plan then raise("exchange: set_names: the first step has been taken") end
  self.names = names
  if self.route.between then self.route.between:set_names(names) end
end

--- All compressors of this exchange, and the leaders' exchange: fn(compressor) for each.
local function each(self, fn)
  fn(self.compressor)
  if self.plan and self.plan.second then fn(self.plan.second) end
  if self.route.between then fn(self.route.between) end
end

--- The epoch that is told to a compressor whose budget is a function.
function Exchange:set_epoch(epoch)
  self.epoch = epoch
  each(self, function(compressor) compressor:set_epoch(epoch) end)
end

--- Continues as after so many steps (a run that is resumed): random streams are keyed by them.
function Exchange:set_step(step)
  self.step = step
  if self.route.between then self.route.between:set_step(step) end
end

--- Continues with other settings from the next step on: chosen, as routes.choose gives it, and opened, or what an
--- earlier call returned. Returns what was replaced.
function Exchange:replace(chosen)
  local before = {}
  for _, key in ipairs(replaced) do before[key], self[key] = self[key], chosen[key] or false end
  self:set_step(self.step)
  if self.route.between and self.names and not self.plan then self.route.between:set_names(self.names) end
  if self.epoch then self:set_epoch(self.epoch) end
  return before
end

--- Settings, opened, to continue with. [collective]
function Exchange:open(opts)
  local chosen = routes.choose(opts)
  routes.open(chosen, Exchange.new)
  return chosen
end

--- The next step may bring other gradients (parameters were frozen, or train again), and names of them. Between two
--- steps. [collective]
function Exchange:replan()
  if self.current then raise(("exchange: replan: step %d has begun"):format(self.step)) end
  if not self.plan then return end
  local carried = {}
  for name, memory in pairs(memories.of(self)) do
    if not memories.is_learnt(name) then carried[name] = T.outside_scope(memory.clone, memory) end
  end
  routes.close(self.route)
  self.names = false
  self:replace(self:open(self.settings.given))
  memories.load(self, carried)
end

--- What this rank's next steps depend on beside gradients: the memory of its compressors (error feedback, PowerSGD's
--- factors) and what they have learnt (prices, kept bases), for checkpoints. Tensors by name.
---@return table<string, atomo.Tensor>
function Exchange:state_dict() return memories.of(self) end

--- Puts back what state_dict gave, also before the first step.
function Exchange:load_state_dict(state) memories.load(self, state) end

--- Milliseconds of encoding on this thread, in the step under way.
function Exchange:encoding() return self.current and self.current.ms.encode or 0 end

--- Seconds that encoding, and the coding thread's decoding, have taken in this step so far, on whichever thread.
function Exchange:coding() return self.current and self.current:coding() or 0 end

--- Of the last step: bytes that this rank handed to and took from MPI, what fp32 would be, the compressor's variance,
--- milliseconds by stage (exchange: what this rank waited; encode, decode: on whichever thread, so that they may have
--- gone on beside backward), hidden: the fraction of min(backward, the communication thread's work) for which nobody
--- waited (with overlap).
function Exchange:stats()
  local last, ms, p = self.last, self.last.ms, self.plan
  local coded = p and #p.messages > 0
  return {bytes_out = last.bytes_out, bytes_in = last.bytes_in, dense_bytes = p and p.dense_bytes or nil,
    hidden = last.hidden, variance = coded and self.compressor:stats().variance or last.variance or 0,
    ms = {encode = ms.encode, exchange = ms.exchange, decode = ms.decode}}
end

--- Raises on every rank, naming what differs, unless all ranks hold the same bits of v: a tensor, a table of tensors by
--- name, or what has a state_dict (a model, an optimizer, an average of weights). [collective]
function Exchange:check_replicas(v, what)
  require("atomo.comm.replicas").check(self.comm, ("replicas of %s after step %d"):format(what or "this", self.step), v)
end

return Exchange
