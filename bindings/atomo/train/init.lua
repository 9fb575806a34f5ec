--- atomo.train, the training loop (stages 2 to 10): epochs of steps (step.lua), evaluation, logs, checks, hooks.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local F = require "atomo.nn.functional"
local evaluation = require "atomo.train.evaluate"
local counted = require "atomo.nn.functional.counted"
local identity = require "atomo.train.checkpoint.identity"
local layer_options = require "atomo.train.checkpoint.layer_options"
local modes = require "atomo.train.checkpoint.modes"
local new_batches = require "atomo.train.micro_batches"
local options = require "atomo.train.options"
local precision = require "atomo.autograd.precision"
local new_local_sgd = require "atomo.train.local_sgd"
local replicas = require "atomo.comm.replicas"
local same = require "atomo.comm.consistency"
local saver = require "atomo.train.checkpoint.saver"
local new_step = require "atomo.train.step"
local new_report = require "atomo.train.report"
local new_undo = require "atomo.train.undo"
local C, raise = f.C, f.raise

local MAX_SKIPS = 10 -- with nonfinite = "skip", the run ends after this many skipped steps in a row

local function check_replicas(self)
  replicas.compare(self, ("replicas after step %d"):format(self.step))
end

--- Returns advice for a run that ends because of NaN or Inf.
local function advice(self)
  if self.nonfinite == "abort" then return "Lower the learning rate, or train with nonfinite = 'skip'" end
  return ("%d steps in a row were skipped. Lower the learning rate, or look for the cause in data and model"):format(
    self.skips_in_row + self.local_in_row)
end

--- Handles a step that all ranks gave up. For NaN or Inf (result.why) the step is skipped or the run ends, by option
--- nonfinite. For any other reason why a rank could not encode, the run ends.
local function handle_bad(self, result, lr)
  self.skipped = self.skipped + 1
  self.skips_in_row = self.skips_in_row + 1
  local why = result.why
  if not (why:find("NaN or Inf", 1, true) or why:find("the loss is", 1, true) or why:find("ENONFINITE", 1, true)) then
    raise(("step %d: %s"):format(self.step, why))
  end
  local what = ("step %d: NaN or Inf in the loss or the gradient on %d of %d ranks (lr %g): %s"):format(
    self.step, result.bad, self.comm.size, lr, why)
  if self.nonfinite == "abort" or self.skips_in_row >= MAX_SKIPS then
    raise(("%s; this is rank %d, its loss is %g. %s"):format(what, self.comm.rank, result.own_loss, advice(self)))
  end
  self.report:line(what .. ": skipped")
end

--- Handles a local step: one with NaN or Inf is skipped on this rank only. Raises if too many were skipped in a row:
--- this rank's steps, and rounds that all ranks gave up.
local function handle_local(self, result, lr)
  self.local_in_row = result.bad_here and self.local_in_row + 1 or 0
  if result.bad_here and (self.nonfinite == "abort" or self.skips_in_row + self.local_in_row >= MAX_SKIPS) then
    raise(("step %d: NaN or Inf in the loss or the gradient of a local step (lr %g): %s; this is rank %d, its loss " ..
      "is %g. %s"):format(self.step, lr, result.own_why, self.comm.rank, result.own_loss, advice(self)))
  end
  local skipped = result.skipped or 0
  self.skipped = self.skipped + skipped
  if skipped > 0 then
    self.report:line(("the round to step %d: %d local steps with NaN or Inf skipped"):format(self.step, skipped))
  end
end

--- Does a round of local SGD end with this step? A round that max_steps cuts short (self.cut) ends only after the run
--- has been saved, so that the checkpoint equals that of an uninterrupted run.
local function round_ends(self, batches)
  self.in_round = self.in_round + 1
  local ends, stops = self.in_round >= self.local_steps or batches.ended, self.step == self.max_steps
  self.cut = not ends and stops and self.saver ~= nil
  ends = ends or stops and not self.cut
  if ends then self.in_round = 0 end
  return ends
end

--- Is the compressor in Lua? Its functions may depend on the rank.
local function is_scripted(self)
  local compressor = self.exchange.compressor
  return compressor ~= nil and compressor.check_ranks ~= nil and self.comm.size > 1
end

--- Compares the replicas every check_every steps; with local SGD at the next step after which they are equal. With a
--- compressor in Lua also after the first step of this program.
local function check_if_due(self, equal)
  local every = self.check_every
  if every == false then return end
  if self.checked_first == nil then self.checked_first, self.check_due = true, is_scripted(self) end
  self.check_due = self.check_due or every and self.step % every == 0
  if self.check_due and equal then
    self.check_due = false
    check_replicas(self)
  end
end

--- Returns the learning rate of the current step.
local function rate(self)
  if not self.schedule then return self.optimizer.lr end
  local lr = self.schedule(self.step - 1)
  if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
    f.raise(("train: schedule(%d) is %s, expected a number >= 0"):format(self.step - 1, brief(lr)))
  end
  return lr
end

--- Runs one step; returns its sums over the ranks {loss, count, right, judged}, nil for a local or skipped step.
local function run_step(self, batches, epoch)
  local start = C.atomo_time()
  local lr = rate(self)
  local waited = batches.ms
  local result = self.runner:run(batches, lr, self.step, function() return round_ends(self, batches) end)
  if self.local_sgd then handle_local(self, result, lr) end
  if self.cut then self.cut = {result = result, lr = lr} end
  if result.bad > 0 then
    handle_bad(self, result, lr)
    return
  end
  if result.fatal then
    raise(("step %d (lr %g): %s"):format(self.step, lr, result.fatal))
  end
  if result.sums then self.skips_in_row = 0 end
  if result.bad_here and not result.sums then return end
  local ms = result.ms
  ms.data = batches.ms
  ms.step = 1e3 * (C.atomo_time() - start) + waited
  local info = {
    step = self.step, epoch = epoch, loss = result.loss, accuracy = result.accuracy, lr = lr, ms = ms,
    count = result.count, judged = result.judged, of_all = result.sums ~= nil,
    images = result.images, images_per_s = result.images / (ms.step / 1e3), bytes_out = result.stats.bytes_out,
    bytes_in = result.stats.bytes_in, dense_bytes = result.stats.dense_bytes, variance = result.stats.variance,
    relative_variance = result.stats.relative_variance, hidden = result.stats.hidden,
  }
  self.bytes_out = self.bytes_out + info.bytes_out
  self.report:step(info)
  if self.on_step then self.on_step(info) end
  check_if_due(self, result.sums ~= nil)
  return result.sums
end

local function is_through(self) return self.max_steps ~= nil and self.step >= self.max_steps end

--- Ends a round that max_steps has cut short; returns its sums over the ranks.
local function end_cut_round(self)
  local result = self.runner:finish_round(self.cut.result, self.step)
  self.skipped, self.in_round = self.skipped + (result.skipped or 0), 0
  if result.bad > 0 then return handle_bad(self, result, self.cut.lr) end
  self.bytes_out = self.bytes_out + result.stats.bytes_out
  return result.sums
end

--- Adds a step's sums to those of the epoch in the run's position, which a checkpoint saves.
local function add_sums(place, sums)
  if not sums then return end
  for _, name in ipairs {"loss", "count", "right", "judged"} do place[name] = place[name] + sums[name] end
end

local function begin_epoch(epoch) return {epoch = epoch - 1, taken = 0, loss = 0, count = 0, right = 0, judged = 0} end

--- Runs the steps of an epoch, up to max_steps; returns whether the epoch is complete.
local function run_steps(self, epoch)
  local place = self.place
  local batches = new_batches(self.train_loader, epoch, self.accumulate, place.taken)
  self.exchange:set_epoch(epoch)
  while not is_through(self) and batches:more() do
    self.step = self.step + 1
    f.C.atomo_note_step(self.step)
    add_sums(place, run_step(self, batches, epoch))
    place.taken = batches.taken
    if self.saver and not batches.ended and not is_through(self) then self.saver:after_step() end
  end
  if self.saver and not batches.ended then self.saver:stop() end
  if self.cut then add_sums(place, end_cut_round(self)) end
  return batches.ended == true
end

--- Adds test results to info if a test is due or the run stops. A test that is done only because the run stops must not
--- change the state that is saved afterwards. In this case the buffers are restored, and their copies returned.
local function test(self, info, ended)
  if not (self.test_loader and self.eval_every > 0) then return end
  local due = info.epoch % self.eval_every == 0 or info.epoch == self.epochs
  if not (due or is_through(self)) then return end
  local before = not due and ended and self.saver and new_undo()
  if before then before:keep(self.buffers) end
  info.test_loss, info.test_accuracy = evaluation.evaluate(self, self.test_loader)
  if before then before:restore() end
  return before
end

--- Runs one epoch. The checkpoint after it has the state after on_epoch.
local function run_epoch(self, epoch)
  if self.place.epoch ~= epoch - 1 or not self.place.loss then self.place = begin_epoch(epoch) end
  local ended = run_steps(self, epoch)
  local place = self.place
  local info = {epoch = epoch, step = self.step, loss = place.loss / place.count,
    accuracy = place.right / math.max(place.judged, 1), bytes_out = self.bytes_out}
  local extra = test(self, info, ended)
  if self.check_every ~= false then check_replicas(self) end
  info.layers = self.exchange.layers and self.exchange:layers()
  self.report:epoch(info)
  if self.on_epoch then self.on_epoch(info) end
  if ended then self.place = begin_epoch(epoch + 1) end
  if self.saver then self.saver:after_epoch(info, epoch == self.epochs or is_through(self)) end
  if extra then evaluation.average_buffers(self) end
  return info
end

--- Returns the names of the optimizer's parameters, in its order; nil if the model does not name all of them.
local function names_of(self)
  local name_of, names = {}, {}
  for _, entry in ipairs(self.model.named_parameters and self.model:named_parameters() or {}) do
    name_of[entry[2]] = entry[1]
  end
  for i, p in ipairs(self.optimizer.params) do names[i] = name_of[p] end
  return #names == #self.optimizer.params and names or nil
end

local function setup(o)
  local self = {step = 0, bytes_out = 0, start_seed = C.atomo_initial_seed(), place = begin_epoch(1),
    skipped = 0, skips_in_row = 0, local_in_row = 0, in_round = 0}
  for key, value in pairs(o) do self[key] = value end
  self.train_loader = o.data.train or o.data
  self.test_loader = o.data.test
  self.epochs, self.eval_every, self.resume = o.epochs or 1, o.eval_every or 1, saver.from(o)
  self.nonfinite = o.nonfinite or "abort"
  self.precision = o.precision and precision.code("train: precision", o.precision) or precision.current()
  self.exchange = o.exchange or require("atomo.exchange").exchange {}
  self.comm = self.exchange.comm
  if not o.loss then self.loss = F.cross_entropy end
  if o.accuracy == nil then
    self.accuracy = function(logits, labels) return F.accuracy(logits, labels, counted.ignored()) end
  end
  self.check_every = o.check_replicas
  if o.check_replicas == true then self.check_every = 100 end
  self.buffers = self.model.buffers and self.model:buffers() or {}
  self.accumulate, self.local_steps = o.accumulate or 1, o.local_steps or 0
  self.names = names_of(self)
  self.local_sgd = self.local_steps > 0 and new_local_sgd(self.optimizer, self.exchange, o.outer, self.names) or nil
  self.runner = new_step {model = self.model, loss = self.loss, accuracy = self.accuracy, optimizer = self.optimizer,
    exchange = self.exchange, comm = self.comm, clip_norm = o.clip_norm, clip_value = o.clip_value,
    accumulate = self.accumulate, local_sgd = self.local_sgd, names = self.names, on_gradients = o.on_gradients,
    precision = self.precision}
  self.report = new_report {comm = self.comm, log = o.log, csv = o.csv, tensorboard = o.tensorboard,
    quiet = o.quiet, settings = o.settings, unit = tostring(self.train_loader.unit or "samples"),
    epochs = self.epochs, steps = math.ceil(self.train_loader.steps / self.accumulate), max_steps = self.max_steps}
  self.exchange.notify = function(text, event)
    self.report:line(text)
    if event then self.report:write(event) end
  end
  return self
end

--- Resumes from a checkpoint if option resume finds one. [collective]
local function resume(self)
  local from = saver.resume(self, function() replicas.compare(self, "train: after resuming", true) end)
  if not from then return end
  if not self.runner.in_round then replicas.compare(self, "train: after resuming") end -- after the user's objects
  local place = self.place
  self.comm:check("train: resume", ("step %d, epoch %d, batch %d"):format(self.step, place.epoch, place.taken))
  self.report:resumed(self.step, self.place.epoch, from)
  if self.saver then self.saver:resumed(from) end
end

--- Shards the optimizer over the exchange's ranks if option sharded_optimizer says so. One that is sharded already
--- stays as it is; raises unless it is over as many ranks.
local function shard(self)
  local shards, ranks, how = self.optimizer.shards, self.comm.size, self.sharded_optimizer
  if how == "bf16" or how and not shards then
    self.optimizer:shard(shards and shards.comm or self.comm, {weights = how == "bf16" and "bf16" or nil})
  end
  if shards and shards.comm.size ~= ranks then
    raise(("train: the optimizer is sharded over %d ranks, the exchange has %d; call optimizer:unshard() " ..
      "before"):format(shards.comm.size, ranks))
  end
end

--- Says that no step is left to train, and saves the run, unless its folder has a checkpoint of this step. [collective]
local function say_nothing_left(self)
  local limit = is_through(self) and (", max_steps is %d"):format(self.max_steps) or ""
  self.report:line(("nothing is left to train: step %d, %d of %d epochs%s"):format(self.step, self.place.epoch,
    self.epochs, limit))
  if self.saver then self.saver:stop_at_once() end
end

--- Trains a model; returns {step, epoch, loss, accuracy, test_loss, test_accuracy, seconds, bytes_out} at the end.
--- Raises on every rank for options that differ between ranks. [collective]
---@param o atomo.TrainOptions
---@return {step: integer, epoch: integer, loss: number, accuracy: number?, test_loss: number?, test_accuracy:
--- number?, seconds: number, bytes_out: number}
---@usage local m, x = nn.Linear(2, 2), atomo.randn(8, 2) atomo.train {model = m, data = atomo.data.tensors {x = x, y
---@usage = atomo.zeros(8, 2), batch = 4}, loss = F.mse_loss, optimizer = atomo.optim.sgd {params = m:parameters(),
---@usage lr = 0.1}, epochs = 1, quiet = true}
local function train(o)
  options.check(o)
  local self = setup(o)
  local items = same.training(self)
  same.check(self.comm, "train", items)
  self.identity = identity.of(self, items)
  replicas.start(self)
  shard(self)
  if self.model.begin_training then self.model:begin_training() else self.model:train() end
  self.modes_at_start, self.options_at_start = modes.text(self), layer_options.of(self)
  self.report:begin()
  if self.save then self.saver = saver.new(self) end
  if self.resume then resume(self) end
  if self.local_sgd and not self.runner.in_round then self.local_sgd:anchor() end
  C.atomo_requests_open(self.saver and 1 or 0)
  local info
  for epoch = self.place.epoch + 1, self.epochs do
    if is_through(self) then break end
    info = run_epoch(self, epoch)
  end
  if not info then say_nothing_left(self) end
  if self.saver then self.saver:close() end
  info = info or {step = self.step, epoch = self.place.epoch}
  info.skipped = self.skipped
  self.report:finish(info)
  return info
end

return {train = train}
