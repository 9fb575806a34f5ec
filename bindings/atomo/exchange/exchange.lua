--- An exchange averages gradients over the ranks; results are bit-identical on all ranks (stages 4 to 8). push(i, grad)
-- accepts gradient i when it is ready, finish() completes the step. An exchange has a Plan (which tensors are sent in
-- which bucket; made at the first step, never changed) and one Step (made at the first push, dropped at the end, with
-- all state of the step). Its route (route.lua) is opened before the first gradient is known.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local Plan = require "atomo.exchange.plan"
local Step = require "atomo.exchange.step"
local adapt = require "atomo.exchange.auto.bucket_size"
local arguments = require "atomo.compress.arguments"
local check = require "atomo.exchange.check"
local failure = require "atomo.exchange.failure"
local fuse_small = require "atomo.exchange.fuse_small"
local layers = require "atomo.exchange.layers"
local memories = require "atomo.exchange.memories"
local pushed = require "atomo.exchange.pushed"
local routes = require "atomo.exchange.route"
local scheduler = require "atomo.exchange.scheduler"
local sealed = require "atomo.exchange.sealed"
local C, raise = f.C, f.raise

---@class atomo.Exchange
---@field comm table            communicator
---@field settings table        values of the options (options.lua)
---@field compressor table      atomo.Compressor
---@field topology string       name of the topology
---@field route table           route.lua
---@field plan table|false      plan.lua; false before the first step
---@field trials table|false    sizes of dense buckets still to be tried (auto/bucket_size.lua)
---@field step integer          number of the next or current step, from 0; keys the random streams
---@field current table|false   the current step (step.lua); false between two steps
---@field last table            figures of the last step that was averaged (Step:figures)
---@field names table|false     names of the gradients
---@field epoch integer|false   epoch passed to budget schedules
---@field remembered table|false compressor state to be restored when the first step is planned; afterwards memories of
---                             tensors that are not in the plan (memories.lua)
---@field closed string|false   why nothing can be exchanged any more: ranks may be at different operations
---@field apart table           addresses of the gradients, to check that no two share memory (pushed.lua)
---@field verdict table         tensor [1], in which ranks compare whether the step has failed
---@field notify function|false gets texts about choices (auto/) and memories that are reset; false: standard output
---@field chooser table|false   state of auto/; false in an exchange with a fixed setting
local Exchange = sealed({}, "exchange", "comm settings compressor topology step last names epoch",
  "choice restore") -- an AutoExchange has these

--- Fields that Exchange:replace replaces.
local replaced = {"settings", "topology", "compressor", "route", "plan", "trials", "remembered"}

--- Opens an exchange. opts: as of atomo.exchange, with present names; class: Exchange (default) or a subclass.
--- [collective]
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

--- Runs fn(self, ...), which communicates. If it raises, ranks may be at different operations, so the exchange is
--- closed.
local function travel(self, fn, ...)
  local ok, why = pcall(fn, self, ...)
  if ok then return end
  self.closed = tostring(why)
  error(why, 0)
end

--- Returns the current step; begins one if there is none.
local function current(self)
  if not self.current then
    self.current = Step.new(self.step)
    if self.plan then self.current:follow(self.plan) end
  end
  return self.current
end

--- Adds gradient i to its bucket and starts full buckets.
local function send(self, i, grad)
  self.plan.bucket_of[i]:add(self.current, i, grad)
  scheduler.advance(self.current)
end

--- Adds gradient i of this step, which is ready. It must not change until finish(), which writes the average into it.
---@param i integer          number of the gradient, from 1
---@param grad atomo.Tensor  f32, contiguous, with the same shape in all steps
---@usage ex:push(1, g) ex:finish()
function Exchange:push(i, grad)
  check.gradient(self, i, grad)
  local step = current(self)
  pushed.note(self.apart, step.versions, i, grad)
  step:add(i, grad)
  if self.plan and self.plan.overlap then travel(self, send, i, grad) end
end

--- Calls fn for each compressor of this exchange, and for the leaders' exchange.
local function each(self, fn)
  fn(self.compressor)
  if self.plan and self.plan.second then fn(self.plan.second) end
  if self.route.between then fn(self.route.between) end
end

local function pass_epoch(self)
  if self.epoch then each(self, function(compressor) compressor:set_epoch(self.epoch) end) end
end

--- Makes the plan when all gradients of the first step have been pushed. [collective]
local function plan(self)
  check.agreement(self)
  T.scope(check.parameters, self)
  if self.route.between then self.route.between.notify = self.notify end
  self.plan = T.outside_scope(Plan.new, {comm = self.comm, settings = self.settings, compressor = self.compressor,
    route = self.route, names = self.names}, self.current.given)
  if self.route.topology.tries_sizes and self.compressor.name == "none" then
    self.trials = T.outside_scope(adapt.plan, self.plan)
  end
  memories.hand_over(self)
  memories.put_back(self)
  pass_epoch(self)
  self.current:follow(self.plan)
end

--- Exchanges all buckets and writes the averages into the gradients. all_at_once: no bucket has been started yet.
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
  for _, g in ipairs(given) do C.atomo_tensor_touch(g.h) end -- their values have changed
end

--- Sets step.failed if the step has failed on any rank. A dense exchange does not encode, so it has nothing to compare.
local function share_failure(self)
  if self.compressor.name ~= "none" then
    self.current.failed = failure.share(self.comm, self.current, self.verdict)
  end
end

--- Like average, but returns the reason if the step has failed (on any rank, so on all) instead of raising it.
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

--- The first half of finish: writes the average over all ranks into every pushed gradient. The step must then be ended
--- by commit() or drop(). [collective]
function Exchange:average()
  local why = self:average_or_why()
  if why then raise(("exchange: step %d: %s"):format(self.step, why)) end
end

--- The second half of finish: ends the step and keeps what compressors have learnt in it. [collective]
function Exchange:commit()
  local step = self.current
  if not (step and step.averaged) then
    raise(("exchange: commit: step %d has not been averaged"):format(self.step))
  end
  if self.route.between then self.route.between:commit() end
  step:close "end_step"
  self.current = false
  if self.remembered then memories.forget_others(self) end
  if self.trials then self.plan, self.trials = adapt.step(self.trials, self.plan, self.last.waited or 0) end
  self.step = self.step + 1
end

--- Completes the step: writes the average over all ranks into every pushed gradient. If a rank has failed, all ranks
--- raise its error; drop() then gives the step up. [collective]
---@usage ex:push(1, g) ex:finish()
function Exchange:finish()
  self:average()
  self:commit()
end

--- Starts the remaining buckets, which other ranks may have started, so that all ranks do the same operations.
local function meet(self)
  local step = self.current
  failure.note(step, failure.GIVEN_UP, "it was given up")
  scheduler.start_remaining(step)
  scheduler.settle(step)
end

--- Gives the step up, before finish or after it has failed: the state of exchange and compressors is as before the
--- step. Must be called on all ranks. [collective]
---@usage local e = atomo.exchange {} e:push(1, atomo.ones(4)) e:drop()
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

--- Returns the error of the first started bucket that failed on this rank; nil if none did. Used after another error,
--- when ranks may be at different operations.
---@return string?
function Exchange:why_parted()
  local step = self.current
  for k = 1, step and self.plan and step.at - 1 or 0 do
    local bucket = self.plan.buckets[k]
    local ok, why = pcall(bucket.wait, bucket, step)
    if not ok then return tostring(why) end
  end
end

--- Sets the names of the gradients, for error texts and overrides. Call it before the first step; atomo.train passes
--- the parameters' names.
---@param names string[]
---@usage atomo.exchange({}):set_names {"weight"}
function Exchange:set_names(names)
  if type(names) ~= "table" then
    raise(("exchange: set_names: the names are %s, expected a list"):format(number.text(names)))
  end
  if self.plan then raise("exchange: set_names: the first step has been taken") end
  self.names = names
  if self.route.between then self.route.between:set_names(names) end
end

--- Sets the epoch that is passed to budget schedules. Call it between two steps.
---@param epoch integer
---@usage ex:set_epoch(1)
function Exchange:set_epoch(epoch)
  check.between_steps(self, "set_epoch")
  self.epoch = number.expect_whole(epoch, "exchange: set_epoch: the epoch")
  pass_epoch(self)
end

--- Sets the number of the next step, which keys the random streams, to resume a run.
function Exchange:set_step(step)
  check.between_steps(self, "set_step")
  self.step = number.expect_whole(step, "exchange: set_step: the step", 0)
  if self.route.between then self.route.between:set_step(step) end
end

--- Changes the settings from the next step on. chosen: a result of Exchange:open or of an earlier replace. Returns the
--- former settings.
function Exchange:replace(chosen)
  local before = {}
  for _, key in ipairs(replaced) do before[key], self[key] = self[key], chosen[key] or false end
  local between = self.route.between
  if between then between:set_step(self.step) end
  if between and self.names and not self.plan then between:set_names(self.names) end
  pass_epoch(self)
  return before
end

--- Opens settings, to be passed to replace. [collective]
function Exchange:open(opts)
  local chosen = routes.choose(opts)
  routes.open(chosen, Exchange.new)
  return chosen
end

--- Allows other gradients from the next step on (parameters were frozen or unfrozen), and new names. Memories of
--- compressors are kept; learnt state only if the next plan is for the same gradients again, as after a step that was
--- given up. Raises if a step has begun. [collective]
function Exchange:replan()
  check.between_steps(self, "replan")
  if not self.plan then return end
  local carried = {}
  for name, memory in pairs(memories.of(self)) do carried[name] = T.outside_scope(memory.clone, memory) end
  routes.close(self.route)
  self.names = false
  self:replace(self:open(self.settings.given))
  memories.load(self, carried)
end

--- Returns this rank's state for a checkpoint, tensors by name: memories of compressors (error feedback, PowerSGD's
--- factors) and learnt state (prices, kept bases).
--- Raises within a step, whose changes are not kept yet.
---@return table<string, atomo.Tensor>
---@usage type(ex:state_dict()) --> table
function Exchange:state_dict()
  check.between_steps(self, "state_dict")
  return memories.of(self)
end

--- Restores a result of state_dict; may be called before the first step. [collective, after it]
---@param state table<string, atomo.Tensor>
---@usage ex:load_state_dict(ex:state_dict())
function Exchange:load_state_dict(state)
  check.between_steps(self, "load_state_dict")
  arguments.state_table("exchange", state)
  memories.load(self, state)
end

--- Milliseconds of encoding on the main thread in the current step.
function Exchange:encoding() return self.current and self.current.ms.encode or 0 end

--- Seconds of encoding, and of decoding on the coding thread, in the current step so far.
function Exchange:coding() return self.current and self.current:coding() or 0 end

--- Returns figures of the last step: bytes_out, bytes_in (passed to and received from MPI by this rank), dense_bytes
--- (of its gradients in f32), variance (of the compressor: E||ghat - g||^2), relative_variance (the same over ||g||^2;
--- nil without messages of one compressor), ms (milliseconds by stage; exchange: that the main thread
--- waited; encode, decode: on any thread, possibly overlapping with backward), hidden (overlap: the fraction of
--- min(backward, communication thread's work) for which the main thread did not wait; nil without overlap).
---@return table
---@usage ex:push(1, g) ex:finish() assert(ex:stats().bytes_out)
function Exchange:stats()
  local last, ms, p = self.last, self.last.ms, self.plan
  local coded = p and #p.messages > 0 and self.compressor:stats()
  return {bytes_out = last.bytes_out, bytes_in = last.bytes_in, dense_bytes = p and p.dense_bytes or nil,
    hidden = last.hidden, variance = coded and coded.variance or last.variance or 0,
    relative_variance = coded and (coded.square or 0) > 0 and coded.variance / coded.square or nil,
    ms = {encode = ms.encode, exchange = ms.exchange, decode = ms.decode}}
end

--- Returns figures of the last step by tensor (layers.lua), nil if it encoded no messages.
---@return table[]?
function Exchange:layers() return layers.of(self) end

--- Raises on every rank, naming the first difference, unless v is bit-identical on all ranks. v: a tensor, a table of
--- tensors by name, or an object with state_dict() (a model, an optimizer, an EMA). [collective]
---@param v atomo.Tensor|table
---@param what string? the name in errors
---@usage ex:check_replicas(atomo.ones(2))
function Exchange:check_replicas(v, what)
  require("atomo.comm.replicas").check(self.comm, ("replicas of %s after step %d"):format(what or "this", self.step), v)
end

return Exchange
