--- The exchange: every rank's gradients in, their average out, the same bits on all ranks (stages 4 to 8).
-- push(i, grad) takes gradient i as it becomes ready, finish() completes the step; a topology is one file behind these
-- two. The first step fixes the plan: which tensors travel as compressed messages and which in dense buckets (small
-- ones, and those with fewer than two dimensions: biases, norms), or joined into one message (fuse_small.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local auto = require "atomo.exchange.auto"
local failure = require "atomo.exchange.failure"
local same = require "atomo.comm.consistency"
local join = require "atomo.exchange.fuse_small"
local memories = require "atomo.exchange.memories"
local messages = require "atomo.exchange.messages"
local number = require "atomo.core.number"
local options = require "atomo.exchange.options"
local pushed = require "atomo.exchange.pushed"
local queue = require "atomo.exchange.scheduler"
local replan = require "atomo.exchange.replan"
local rules = require "atomo.exchange.compatibility"
local C, check, raise = f.C, f.check, f.raise

---@class atomo.Exchange
---@field comm table            communicator
---@field compressor table      atomo.compressor
---@field topology string
---@field step integer          number of the coming step, or of the one under way; keys the random streams
---@field failed string?         why this step has failed, on all ranks alike: it is to be given up
---@field closed string?         why nothing can be exchanged any more: the ranks may not be at the same point
local Exchange = {}
Exchange.__index = Exchange

--- The topology that a name means for a compressor.
local function choose_topology(name, compressor)
  if name and name ~= "standard" and name ~= "auto" then return name end
  return compressor.name == "none" and "allreduce" or "allgather"
end

--- Refuses ranks that run other programs or settings, and has the watchdog look after the others. An exchange inside
-- another one (nested) leaves both to that.
local function guard(self)
  local items = same.program()
  items[#items + 1] = {"compressor", tostring(self.compressor)}
  for _, name in ipairs {"topology", "seed", "min_size", "overlap", "down", "inner", "small", "stall_warn",
    "stall_abort", "checked"} do
    items[#items + 1] = {name, self[name]}
  end
  same.check(self.comm, "exchange", items)
  C.atomo_comm_set_checked(self.comm.h, self.checked and 1 or 0)
  check(C.atomo_watchdog_start(self.comm.h, self.stall_warn, self.stall_abort, self.flight))
end

--- opts: comm (default the world), compress (a spec; default "none"; "auto" without a budget: chosen with the
--- topology), topology (default "standard": allreduce for "none", allgather for messages; "auto": by measured times,
--- see auto/), check_after (steps after which a measured choice is held against the clock, default 50), overlap (a
--- communication thread sends while backward goes on; default true), min_size (elements below which a tensor is small,
--- default 1024), small (how those, biases and norms travel: "dense", or "compress": joined into one tensor of the
--- step's budget; default: compress for auto, dense for the others), seed (of the compressor's random streams), down
--- ("dense" or "compress": the way back from a ps), inner (topology between the hosts of a hierarchical one),
--- stall_warn and stall_abort (seconds without progress until the watchdog warns, 60, and ends the job, 600; 0: never),
--- flight (its recorder's files are FLIGHT-rankN.jsonl), checked (every collective on comm first compares what the
--- ranks are about to do; default true). [collective]
local function new(opts)
  opts = opts or {}
  options.check(opts)
  local comm, measured, free = opts.comm or require("atomo.comm.mpi").world, auto.wanted(opts)
  if measured and comm.size > 1 then return auto.new(opts) end
  local self = setmetatable({step = 0, opts = opts}, Exchange)
  options.take(self, opts)
  self.comm = comm
  if free then self.compress = "none" end -- one rank, which sends nothing
  self.compressor = messages.compressor(self, "up")
  self.topology = choose_topology(opts.topology, self.compressor)
  self.engine = require("atomo.exchange.topology." .. self.topology)
  if self.small == "auto" then self.small = self.compressor.name == "auto" and "compress" or "dense" end
  self.given, self.pushed, self.count = {}, {}, 0 -- by the user's numbers; by the engine's (fuse_small.lua)
  self.unchanged = pushed.new()
  self.ms = {encode = 0, exchange = 0, decode = 0}
  self.overlap = self.overlap and self.comm.size > 1
  self.agrees = self.compressor.name ~= "none" -- at the end of a step, on whether all could encode and decode
  self.comms, self.seconds = {self.comm}, f.ffi.new "double[3]"
  rules.check(self)
  if not self.nested then guard(self) end
  if self.engine.check then self.engine.check(self) end
  return self
end

--- Refuses what the ranks could not exchange: another number of tensors, other shapes.
local function check_agreement(self)
  local items = {{"number of gradients", #self.given}}
  for i, g in ipairs(self.given) do items[i + 1] = {"gradient " .. i, T.shape_text(g)} end
  same.check(self.comm, "exchange", items)
end

--- Refuses to go on where a step has failed.
local function check_sound(self)
  if self.closed then raise(("exchange: closed, since step %d failed: %s"):format(self.step, self.closed)) end
  if self.failed then
    raise(("exchange: step %d has failed, and must be given up by drop(): %s"):format(self.step, self.failed))
  end
end

--- Runs fn(self, a, b), which travels; where it raises, the ranks may not be at the same point, so that is the end.
local function travel(self, fn, a, b)
  local ok, why = pcall(fn, self, a, b)
  if ok then return end
  self.closed = tostring(why)
  error(why, 0)
end

--- Gradient i (1-based) of this step is ready. It must stay unchanged until finish(), which overwrites it.
---@param i integer
---@param grad atomo.Tensor  f32, contiguous
function Exchange:push(i, grad)
  check_sound(self)
  T.expect(grad, ("exchange: gradient %s"):format(tostring(i)), "f32")
  if not number.whole(i, 1) then
    raise(("exchange: gradient number %s, expected 1, 2, ..."):format(tostring(i)))
  end
  if self.given[i] then raise(("exchange: gradient %d was pushed twice in step %d"):format(i, self.step)) end
  if not grad:is_contiguous() then raise(("exchange: gradient %d is not contiguous"):format(i)) end
  if self.planned then
    local shape = self.shapes[i]
    if not shape then
      raise(("exchange: gradient %d, the first step had %d"):format(i, #self.shapes))
    elseif T.shape_text(grad) ~= shape then
      raise(("exchange: gradient %d is %s, in the first step it was %s"):format(i, T.shape_text(grad), shape))
    end
  end
  local now = C.atomo_time()
  if self.count == 0 then
    self.ms.encode, self.ms.exchange, self.ms.decode, self.began = 0, 0, 0, now
  end
  self.span = now - self.began - 1e-3 * self.ms.encode -- of backward so far
  pushed.note(self.unchanged, i, grad)
  self.given[i] = grad
  self.count = self.count + 1
  if self.planned then
    join.place(self, i, grad)
    if self.overlap then travel(self, join.ready, i, grad) end
  end
end

--- Refuses a step that lacks a gradient, or whose gradients were changed after push.
local function check_pushed(self)
  if self.planned and self.count ~= #self.shapes then
    raise(("exchange: %d of %d gradients were pushed in step %d (exchange:replan() begins with another set)"):format(
      self.count, #self.shapes, self.step))
  end
  for i = 1, self.count do
    if not self.given[i] then
      raise(("exchange: %d gradients were pushed, but number %d is missing"):format(self.count, i))
    end
  end
  pushed.check(self.unchanged, self.given, self.names)
end

local function plan(self)
  check_agreement(self)
  self.shapes, self.dense_bytes = {}, 0
  for i, g in ipairs(self.given) do
    self.shapes[i] = T.shape_text(g)
    self.dense_bytes = self.dense_bytes + 4 * g:numel()
  end
  T.outside_scope(join.plan, self)
  T.outside_scope(self.engine.plan, self)
  self.planned = true
  memories.put_back(self)
  if self.epoch then self:set_epoch(self.epoch) end
end

--- Bytes out and in so far, over all communicators of this exchange.
local function moved(self)
  local out, input = 0, 0
  for _, comm in pairs(self.comms) do
    local o, i = comm:bytes()
    out, input = out + o, input + i
  end
  return out, input
end

--- Of the shorter of backward (from the first gradient to the last, encoding left out) and the communication thread's
--- work in this step, the share for which nobody waited, nil where there was neither; and the seconds waited.
local function hidden(self)
  if not self.worked then return nil end
  C.atomo_engine_seconds(self.seconds)
  local worked, waited = self.seconds[0] - self.worked, self.seconds[1] - self.waited
  local shorter = math.min(worked, self.span)
  if not self.overlap or shorter <= 0 then return nil, waited end
  return math.max(0, math.min(1, (worked - waited) / shorter)), waited
end

--- Names of the gradients, for messages and overrides; before the first step. atomo.train gives the parameters' names.
---@param names string[]
function Exchange:set_names(names)
  if self.planned then raise("exchange: set_names: the first step has been taken") end
  self.names = names
  if self.between then self.between:set_names(names) end
end

--- All compressors of this exchange.
local function compressors(self)
  return {self.compressor, self.second}
end

--- The epoch that is told to a compressor whose budget is a function.
function Exchange:set_epoch(epoch)
  self.epoch = epoch
  for _, c in pairs(compressors(self)) do c:set_epoch(epoch) end
  if self.between then self.between:set_epoch(epoch) end
end

--- What this step has changed in compressors stays ("end_step") or is taken back ("undo_step").
local function close_step(self, method)
  if self.begun then self.compressor[method](self.compressor) end
  if self.begun_again then self.second[method](self.second) end
  if self.queue then queue.reset(self.queue) end
  join.clear(self)
  self.begun, self.begun_again, self.unanswered, self.broken, self.failed, self.averaged = nil, nil, nil, nil, nil, nil
  self.mark_out, self.mark_in, self.worked = nil, nil, nil
end

--- Everything travels and comes back.
local function exchange_all(self, first)
  if first or not self.overlap then
    for i = #self.shapes, 1, -1 do join.ready(self, i, self.given[i]) end
  end
  self.engine.settle(self)
  if self.broken then return end
  self.engine.give(self)
  join.give_back(self)
  for _, g in ipairs(self.given) do C.atomo_tensor_touch(g.h) end -- whatever wrote into them
end

--- As average; where the step has failed, on all ranks alike, returns why.
---@return string?
function Exchange:average_or_why()
  check_sound(self)
  local first = not self.planned
  check_pushed(self)
  if first then plan(self) end
  local out, input = moved(self)
  travel(self, exchange_all, first)
  local out_now, input_now = moved(self)
  self.bytes_out, self.bytes_in = out_now - (self.mark_out or out), input_now - (self.mark_in or input)
  self.hidden, self.waited_for = hidden(self)
  if self.agrees then self.failed = failure.agree(self) end
  self.averaged = not self.failed
  return self.failed
end

--- The first half of finish: every pushed gradient now holds the average over all ranks. The step can still be given
--- up; commit() ends it. [collective]
function Exchange:average()
  local why = self:average_or_why()
  if why then raise(("exchange: step %d: %s"):format(self.step, why)) end
end

--- The second half: what compressors remember of the step holds from now on. [collective]
function Exchange:commit()
  if not self.averaged then raise(("exchange: commit: step %d has not been averaged"):format(self.step)) end
  if self.between then self.between:commit() end
  close_step(self, "end_step")
  if self.trials then require("atomo.exchange.auto.bucket_size").step(self, self.waited_for or 0) end
  self.step = self.step + 1
end

--- Completes the step: every pushed gradient now holds the average over all ranks. Where a rank has failed, all raise
--- its words; drop() then gives the step up. [collective]
function Exchange:finish()
  self:average()
  self:commit()
end

--- Posts what other ranks may have posted, so that all meet.
local function meet(self)
  failure.note(self, failure.GIVEN_UP, "it was given up")
  queue.post_rest(self.queue, self)
  self.engine.settle(self)
end

--- Gives this step up, on all ranks alike, in the middle or after finish has failed: it leaves no trace. [collective]
function Exchange:drop()
  if self.closed then check_sound(self) end
  if self.planned and not (self.failed or self.averaged) then
    travel(self, meet)
    if self.agrees then failure.agree(self) end
  end
  if self.between and (self.between.failed or self.between.averaged) then self.between:drop() end
  close_step(self, "undo_step")
end

--- The next step may bring other gradients (parameters were frozen, or train again), and names of them. Between two
--- steps. [collective]
function Exchange:replan()
  if self.count > 0 then raise(("exchange: replan: step %d has begun"):format(self.step)) end
  if not self.planned then return end
  local opts = {nested = true} -- the ranks' settings have been compared, the watchdog runs
  for key, value in pairs(self.opts) do opts[key] = value end
  local own = self.opts
  replan.begin(self, new(opts))
  self.opts, self.nested = own, nil
end

--- Goes on as after so many steps (a run that is resumed): random streams are keyed by them.
function Exchange:set_step(step)
  self.step = step
  if self.between then self.between:set_step(step) end
end

--- What this rank's next steps depend on beside gradients: the memory of its compressors (error feedback, PowerSGD's
--- factors) and what they have learnt (prices, kept bases), for checkpoints. Tensors by name.
---@return table<string, atomo.Tensor>
function Exchange:state_dict() return memories.of(self) end

--- Puts back what state_dict gave, also before the first step.
function Exchange:load_state_dict(state) memories.load(self, state) end

--- Called by an engine before its first MPI call of a step, so that bytes posted during backward are counted.
function Exchange:mark()
  if self.mark_out then return end
  self.mark_out, self.mark_in = moved(self)
  C.atomo_engine_seconds(self.seconds)
  self.worked, self.waited, self.coded = self.seconds[0], self.seconds[1], self.seconds[2]
end

--- Seconds that encoding, and the coding thread's decoding, have taken in this step so far, on whichever thread.
function Exchange:coding()
  C.atomo_engine_seconds(self.seconds)
  return self.ms.encode / 1e3 + (self.worked and self.seconds[2] - self.coded or 0)
end

--- Of the last step: bytes that this rank handed to and took from MPI, what fp32 would be, the compressor's variance,
--- milliseconds by stage (exchange: what this rank waited; encode, decode: on whichever thread, so that they may have
--- gone on beside backward), hidden: the share of the shorter of backward and the communication thread's work for which
--- nobody waited (with overlap).
function Exchange:stats()
  local s = {bytes_out = self.bytes_out, bytes_in = self.bytes_in,
    dense_bytes = self.dense_bytes, hidden = self.hidden, variance = self.variance or 0,
    ms = {encode = self.ms.encode, exchange = self.ms.exchange, decode = self.ms.decode}}
  if self.messages and #self.messages > 0 then s.variance = self.compressor:stats().variance end
  return s
end

--- Raises on every rank, naming what differs, unless all ranks hold the same bits of v: a tensor, a table of tensors by
--- name, or what has a state_dict (a model, an optimizer, an average of weights). [collective]
function Exchange:check_replicas(v, what)
  require("atomo.comm.replicas").check(self.comm, ("replicas of %s after step %d"):format(what or "this", self.step), v)
end

return {exchange = new, topologies = rules.topologies}
