--- The training loop: epochs of steps (step.lua), evaluation, logs, checks; open to hooks. Stages 2 to 10.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local F = require "atomo.nn.functional"
local checkpoint = require "atomo.train.checkpoint"
local counted = require "atomo.nn.functional.counted"
local new_feed = require "atomo.train.micro_batches"
local new_outer = require "atomo.train.local_sgd"
local number = require "atomo.core.number"
local replicas = require "atomo.comm.replicas"
local same = require "atomo.comm.consistency"
local new_step = require "atomo.train.step"
local new_report = require "atomo.train.report"
local C, raise = f.C, f.raise

---@class atomo.TrainOptions
---@field model table              called with a batch of images, returns logits
---@field data table               a loader, or {train = loader, test = loader?}
---@field optimizer atomo.Optimizer
---@field loss (fun(logits: atomo.Tensor, labels: atomo.Tensor): atomo.Tensor, number?)?   default: cross-entropy. A
--- mean and how many it counts, by which it is weighed (default: what atomo.F's loss counts, else images)
---@field accuracy (fun(logits: atomo.Tensor, labels: atomo.Tensor): number, number?)|false|nil  fraction of right
--- answers, and of how many; default: of the labels that the loss does not ignore
---@field schedule (fun(step: integer): number)?   default: the optimizer's lr
---@field clip_norm number?         scales the averaged gradient to at most this norm
---@field clip_value number?        holds its elements within +- this
---@field exchange atomo.Exchange?  default: dense over the world
---@field epochs integer?           default 1
---@field accumulate integer?       micro-batches of a step, default 1: the gradient of one batch so many times larger
---@field local_steps integer?      steps between exchanges of what the parameters have moved; default 0: every step
--- exchanges gradients. A round also ends with the epoch
---@field outer {lr: number?, momentum: number?}?  how local steps' averaged moves are applied: 0.7, 0.9 (local_sgd.lua)
---@field max_steps integer?        stops after so many steps
---@field eval_every integer?       epochs between evaluations; 0: never; default 1
---@field check_replicas boolean|integer|nil  assert that replicas are bit-equal (parameters and the optimizer's state)
--- every so many steps (true: 100) and after every epoch; default: after every epoch; false: never
---@field nonfinite string?         "abort" (default) or "skip" a step with a NaN or Inf
---@field save string?              checkpoint, rewritten after every epoch
---@field resume string?            checkpoint to go on from: the same bits as a run that was not stopped
---@field log string?               JSONL file, appended by rank 0
---@field quiet boolean?            no progress lines
---@field settings table?           written into the log's first line
---@field on_step (fun(info: table))?   after every step, on every rank
---@field on_epoch (fun(info: table))?  after every epoch, on every rank
local known = {
  model = true, data = true, optimizer = true, loss = true, accuracy = true, schedule = true, exchange = true,
  epochs = true, max_steps = true, eval_every = true, check_replicas = true, nonfinite = true, log = true,
  quiet = true, save = true, resume = true, accumulate = true, local_steps = true, outer = true, clip_norm = true,
  clip_value = true, settings = true, on_step = true, on_epoch = true,
}
local required = {"model", "data", "optimizer"}

local MAX_SKIPS = 10 -- steps in a row that "skip" may leave out before it gives up

local function check_count(o, name, least)
  local v = o[name]
  if v ~= nil then o[name] = number.expect_whole(v, "train: " .. name, least) end
end

local function check_options(o)
  if type(o) ~= "table" then raise(("train: got a %s, expected a table of options"):format(type(o))) end
  for key in pairs(o) do
    if not known[key] then raise(("train: unknown option '%s'"):format(tostring(key))) end
  end
  for _, key in ipairs(required) do
    if o[key] == nil then raise(("train: '%s' is missing"):format(key)) end
  end
  if o.nonfinite and o.nonfinite ~= "abort" and o.nonfinite ~= "skip" then
    raise(("train: nonfinite is '%s', expected 'abort' or 'skip'"):format(tostring(o.nonfinite)))
  end
  check_count(o, "accumulate", 1)
  check_count(o, "local_steps", 0)
  if o.outer and (o.local_steps or 0) == 0 then raise "train: outer wants local_steps > 0" end
end

--- Running statistics differ between ranks (each sees its own images): replace them by their average.
local function average_buffers(self)
  if self.comm.size == 1 then return end
  for _, b in ipairs(self.buffers) do
    if b:dtype() == "f32" then
      self.comm:allreduce(b, "sum")
      b:mul_(1 / self.comm.size)
    end
  end
end

--- Sums over this rank's part of a loader's set: the loss over what it counts, right answers over how many are judged.
local function sums_over(self, loader)
  local loss, count, right, judged = 0, 0, 0, 0
  for batch in loader:epoch(0) do
    if batch.n > 0 then
      T.scope(function()
        local logits = self.model(batch.x)
        local value, n, summed, fraction, of = counted.measure(self.loss, self.accuracy, logits, batch)
        if n > 0 then loss, count = loss + value:item() * (summed and 1 or n), count + n end
        right, judged = right + fraction * of, judged + of
      end)
    end
  end
  return loss, count, right, judged
end

--- Runs fn with the model in evaluation mode; its modules have their own modes back afterwards.
local function evaluating(model, fn, ...)
  if model.evaluating then return model:evaluating(fn, ...) end
  model:eval()
  local a, b, c, d = fn(...)
  model:train()
  return a, b, c, d
end

--- Loss and accuracy over a loader's whole set, all ranks together. [collective]
local function evaluate(self, loader)
  average_buffers(self)
  local sums = T.zeros(4)
  local p = sums:data()
  p[0], p[1], p[2], p[3] = evaluating(self.model, autograd.no_grad, sums_over, self, loader)
  self.comm:allreduce(sums, "sum")
  local result_loss, result_accuracy = p[0] / p[1], p[2] / math.max(p[3], 1)
  sums:free()
  return result_loss, result_accuracy
end

local function check_replicas(self)
  replicas.compare(self, ("replicas after step %d"):format(self.step))
end

--- Ends the run: one rank says why and ends the job, the others must not print the same.
local function stop(self, here, text)
  if here then raise(text) end
  self.comm:barrier()
end

local ADVICE = "Lower the learning rate, or train with nonfinite = 'skip'"

--- A step that all ranks gave up, for NaN or Inf somewhere (result.why): skipped, or the end of the run, by policy.
--- What else kept a rank from encoding is the end in any case.
local function handle_bad(self, result, lr)
  self.skipped = self.skipped + 1
  self.skips_in_row = self.skips_in_row + 1
  local why = result.why
  if not (why:find("NaN or Inf", 1, true) or why:find("the loss is", 1, true) or why:find("ENONFINITE", 1, true)) then
    stop(self, self.comm.rank == 0, ("step %d: %s"):format(self.step, why))
  end
  local what = ("step %d: NaN or Inf in the loss or the gradient on %d of %d ranks (lr %g): %s"):format(
    self.step, result.bad, self.comm.size, lr, why)
  if self.nonfinite == "abort" or self.skips_in_row >= MAX_SKIPS then
    local rank = tonumber(why:match "^rank (%d+): ") or 0
    stop(self, self.comm.rank == rank, ("%s; this is rank %d, its loss is %g. %s"):format(what, rank,
      result.own_loss, ADVICE))
  end
  self.report:line(what .. ": skipped")
end

--- A local step with NaN or Inf is this rank's own matter, until too many steps in a row are left out: its own, and the
--- rounds that all ranks gave up before.
local function handle_local(self, result, lr)
  self.local_in_row = result.bad_here and self.local_in_row + 1 or 0
  if result.bad_here and (self.nonfinite == "abort" or self.skips_in_row + self.local_in_row >= MAX_SKIPS) then
    raise(("step %d: NaN or Inf in the loss or the gradient of a local step (lr %g): %s; this is rank %d, its loss " ..
      "is %g. %s"):format(self.step, lr, result.own_why, self.comm.rank, result.own_loss, ADVICE))
  end
  local skipped = result.skipped or 0
  self.skipped = self.skipped + skipped
  if skipped > 0 then
    self.report:line(("the round to step %d: %d local steps with NaN or Inf skipped"):format(self.step, skipped))
  end
end

--- Whether a round of local steps ends with this step.
local function round_ends(self, feed)
  self.in_round = self.in_round + 1
  local ends = self.in_round >= self.local_steps or feed.ended or self.step == self.max_steps
  if ends then self.in_round = 0 end
  return ends
end

--- Every so many steps; of local steps the next one that leaves the replicas equal.
local function check_if_due(self, equal)
  local every = self.check_every
  if not every then return end
  self.check_due = self.check_due or self.step % every == 0
  if self.check_due and equal then
    self.check_due = false
    check_replicas(self)
  end
end

--- One step; returns its sums over the ranks {loss, count, right, judged}, nil where there are none.
local function run_step(self, feed, epoch)
  local start = C.atomo_time()
  local lr = self.schedule and self.schedule(self.step - 1) or self.optimizer.lr
  local waited = feed.ms
  local result = self.runner:run(feed, lr, self.step, function() return round_ends(self, feed) end)
  if self.outer then handle_local(self, result, lr) end
  if result.bad > 0 then
    handle_bad(self, result, lr)
    return
  end
  if result.fatal then
    stop(self, self.comm.rank == 0, ("step %d (lr %g): %s"):format(self.step, lr, result.fatal))
  end
  if result.sums then self.skips_in_row = 0 end
  if result.bad_here and not result.sums then return end
  local ms = result.ms
  ms.data = feed.ms
  ms.step = 1e3 * (C.atomo_time() - start) + waited
  local info = {
    step = self.step, epoch = epoch, loss = result.loss, accuracy = result.accuracy, lr = lr, ms = ms,
    count = result.count, judged = result.judged,
    images = result.images, images_per_s = result.images / (ms.step / 1e3), bytes_out = result.stats.bytes_out,
    bytes_in = result.stats.bytes_in, dense_bytes = result.stats.dense_bytes, variance = result.stats.variance,
    hidden = result.stats.hidden,
  }
  self.bytes_out = self.bytes_out + info.bytes_out
  self.report:step(info)
  if self.on_step then self.on_step(info) end
  check_if_due(self, result.sums ~= nil)
  return result.sums
end

local function is_through(self) return self.max_steps ~= nil and self.step >= self.max_steps end

--- One epoch, or what max_steps leaves of it. A checkpoint follows a whole one.
local function run_epoch(self, epoch)
  local loss, count, right, judged = 0, 0, 0, 0
  local feed = new_feed(self.train_loader, epoch, self.accumulate)
  self.exchange:set_epoch(epoch)
  while not is_through(self) and feed:more() do
    self.step = self.step + 1
    f.C.atomo_note_step(self.step)
    local sums = run_step(self, feed, epoch)
    if sums then
      loss, count, right, judged = loss + sums.loss, count + sums.count, right + sums.right, judged + sums.judged
    end
  end
  local info = {epoch = epoch, step = self.step, loss = loss / count, accuracy = right / math.max(judged, 1),
    bytes_out = self.bytes_out}
  local last = epoch == self.epochs or is_through(self)
  if self.test_loader and self.eval_every > 0 and (epoch % self.eval_every == 0 or last) then
    info.test_loss, info.test_accuracy = evaluate(self, self.test_loader)
  end
  if self.check_every ~= false then check_replicas(self) end
  if self.save and feed.ended then
    average_buffers(self)
    checkpoint.save(self.save, {model = self.model, optimizer = self.optimizer, exchange = self.exchange,
      outer = self.outer, runner = self.runner, step = self.step, epoch = epoch})
  elseif self.save then
    self.report:line(("stopped within epoch %d: not saved; %s has what the last whole epoch left, if any"):format(epoch,
      self.save))
  end
  self.report:epoch(info)
  if self.on_epoch then self.on_epoch(info) end
  return info
end

--- Names of the optimizer's parameters, in its order; nil where the model does not know them all.
local function names_of(self)
  local name_of, names = {}, {}
  for _, entry in ipairs(self.model.named_parameters and self.model:named_parameters() or {}) do
    name_of[entry[2]] = entry[1]
  end
  for i, p in ipairs(self.optimizer.params) do names[i] = name_of[p] end
  return #names == #self.optimizer.params and names or nil
end

local function setup(o)
  local self = {step = 0, bytes_out = 0, skipped = 0, skips_in_row = 0, local_in_row = 0, in_round = 0}
  for key, value in pairs(o) do self[key] = value end
  self.train_loader = o.data.train or o.data
  self.test_loader = o.data.test
  self.epochs, self.eval_every = o.epochs or 1, o.eval_every or 1
  self.nonfinite = o.nonfinite or "abort"
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
  if (self.accumulate > 1 or self.local_steps > 0) and not self.train_loader.steps then
    raise "train: accumulate and local_steps want data that knows its number of batches (.steps)"
  end
  self.names = names_of(self)
  self.outer = self.local_steps > 0 and new_outer(self.optimizer, self.exchange, o.outer, self.names) or nil
  self.runner = new_step {model = self.model, loss = self.loss, accuracy = self.accuracy, optimizer = self.optimizer,
    exchange = self.exchange, comm = self.comm, clip_norm = o.clip_norm, clip_value = o.clip_value,
    accumulate = self.accumulate, outer = self.outer, names = self.names}
  self.report = new_report {comm = self.comm, log = o.log, quiet = o.quiet, settings = o.settings,
    epochs = self.epochs, steps = math.ceil(self.train_loader.steps / self.accumulate), max_steps = self.max_steps}
  if self.exchange.notify then -- one that chooses tells why
    self.exchange.notify = function(text, event)
      self.report:line(text)
      self.report:write(event)
    end
  end
  return self
end

--- Goes on from a checkpoint; returns the epochs done. On another number of ranks an epoch has another number of steps:
--- the step counter, and with it the schedule, goes by the images seen.
local function resume(self)
  local step, done, ranks, anew = checkpoint.load(self.resume, self)
  self.step = step
  if ranks and ranks ~= self.comm.size then
    self.step = done * math.ceil(self.train_loader.steps / self.accumulate)
    self.report:line(("saved by %d ranks, resumed on %d: step %d there is step %d here"):format(ranks, self.comm.size,
      step, self.step))
  end
  if anew then self.report:line(anew) end
  self.comm:check("train: resume", ("step %d, epoch %d"):format(self.step, done))
  replicas.compare(self, "train: after resuming", true)
  self.report:resumed(self.step, done, self.resume)
  return done
end

--- Trains; returns {step, epoch, loss, accuracy, test_loss, test_accuracy, seconds, bytes_out} of the end. [collective]
---@param o atomo.TrainOptions
local function train(o)
  check_options(o)
  local self = setup(o)
  same.check(self.comm, "train", same.training(self))
  replicas.start(self)
  if self.model.begin_training then self.model:begin_training() else self.model:train() end
  self.report:begin()
  if self.save then checkpoint.probe(self.save, self.comm) end
  local info, done = nil, self.resume and resume(self) or 0
  if self.outer then self.outer:anchor() end
  for epoch = done + 1, self.epochs do
    if is_through(self) then break end
    info = run_epoch(self, epoch)
  end
  info = info or {step = self.step, epoch = done}
  info.skipped = self.skipped
  self.report:finish(info)
  return info
end

return {train = train}
