--- One training step: the path of a gradient from batch to parameters (stages 3 to 9).
-- It follows the table in README's tour: forward and loss, backward, which passes each gradient to the exchange when it
-- is ready, exchange, update. With local SGD (local_sgd.lua) each step updates at once, and every H-th step ends with
-- the exchange of the parameters' changes. If a number is not finite before the update, all ranks give the step up and
-- the state before it is restored (undo.lua, Exchange:drop).
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local clip = require "atomo.optim.clip"
local counted = require "atomo.nn.functional.counted"
local finite = require "atomo.train.finite"
local gradient = require "atomo.autograd.gradient"
local gradient_hook = require "atomo.train.gradient_hook"
local new_trained = require "atomo.optim.trained"
local precision = require "atomo.autograd.precision"
local new_undo = require "atomo.train.undo"
local f = require "atomo.ffi"
local C, check = f.C, f.check

---@class atomo.Step
local Step = {}
Step.__index = Step

-- Sums over a micro-batch, a step or a round: loss (times its count), right answers, n images on this rank, the loss's
-- count, answers judged, total images, steps skipped; summed is 1 if the loss is a sum.
local added_up = {"loss", "right", "n", "count", "judged", "total", "skipped", "summed"}

local function sums_of_nothing()
  return {loss = 0, right = 0, n = 0, count = 0, judged = 0, total = 0, skipped = 0, summed = 0, own_loss = 0}
end

--- opts: model, loss (logits, labels) -> scalar, optimizer, exchange, comm, accuracy (logits, labels) -> fraction,
--- accumulate (micro-batches per step), local_sgd (atomo.LocalSgd or nil), names (of the optimizer's parameters, or
--- nil), on_gradients (function or nil; gradients then wait for the end of backward), precision (of the products of
--- forward and backward, ATOMO_PRECISION_*).
local function new(opts)
  local self = setmetatable({}, Step)
  for key, value in pairs(opts) do self[key] = value end
  self.trained = new_trained(self.optimizer.params, not self.local_sgd and self.exchange or nil, self.names)
  self.shared = T.outside_scope(T.zeros, 8) -- the numbers that reduce_sums adds over the ranks
  self.round = sums_of_nothing()
  self.before, self.grads = new_undo(), {}
  self.on_ready = function(p)
    local i = self.trained.index[p]
    if i then
      self.exchange:push(i, gradient.dense(p))
      self.handed[i] = true
    end
  end
  return self
end

--- Adds self.shared over all ranks. what: label of the operation in errors. [collective]
local function sum_over_ranks(self, what)
  C.atomo_flight_note(what)
  self.comm:allreduce(self.shared, "sum")
end

--- Sets self.unit, the loss's count per image (for text, characters per sequence), from the first micro-batch of all
--- ranks whose count is not 0. Gradients are weighed by it until the step's count is known. factor: above 0 if this
--- rank's loss has a gradient, even if its count is 0. [collective until it is set]
local function find_unit(self, count, images, factor)
  if self.unit then return end
  self.shared:zero_()
  local p = self.shared:data()
  p[0], p[1], p[2] = count, images, factor
  sum_over_ranks(self, "how many the loss counts")
  if p[0] > 0 then self.unit = p[0] / p[1] elseif p[2] > 0 then self.unit = 1 end
end

--- Returns the loss of a micro-batch and the further results of counted.measure.
local function forward(self, batch)
  return counted.measure(self.loss, self.accuracy, self.model(batch.x), batch)
end

--- Is the loss a sum? Raises if that is not clear and the step has several micro-batches or ranks, whose sums are added
--- and whose means are averaged.
local function is_summed(self, weighing)
  local alone = self.accumulate == 1 and (self.local_sgd or self.comm.size == 1)
  local why, divisor = weighing.kind == "unclear" and weighing.why, weighing.divisor
  if divisor and self.divisor and divisor ~= self.divisor then
    why = ("a sum divided by %.9g, and before by %.9g"):format(divisor, self.divisor)
  end
  self.divisor = self.divisor or divisor
  if why and not alone then
    f.raise(("train: the loss is %s: return loss, count for a mean over `count`, or loss, \"sum\" for a sum over the "
      .. "batch"):format(why))
  end
  return weighing.kind == "sum"
end

--- Forward and backward of one micro-batch (stage 3). Its loss is multiplied by its share of the count that `images`
--- images on all ranks are expected to have; a summed loss is not. Adds to the step's sums.
local function forward_backward(self, batch, images, on_ready, sums, ms)
  if batch.n == 0 then -- the epoch's last batch may leave a rank without images: its gradient is zero
    find_unit(self, 0, 0, 0)
    return
  end
  T.scope(function()
    local t0 = C.atomo_time()
    local loss, count, weighing, right, judged, factor = precision.run(self.precision, forward, self, batch)
    local summed = is_summed(self, weighing)
    local value = loss:item()
    local t1 = C.atomo_time()
    ms.forward = ms.forward + 1e3 * (t1 - t0)
    sums.own_loss, sums.summed = value, summed and 1 or 0
    sums.right, sums.judged = sums.right + right * judged, sums.judged + judged
    find_unit(self, count, batch.n, factor)
    if factor == 0 then return end -- a mean over nothing: its gradient is zero
    sums.loss, sums.count = sums.loss + value * factor, sums.count + count
    local ranks = self.local_sgd and 1 or self.comm.size
    local share = summed and ranks or factor * ranks / (self.unit * images)
    if share ~= 1 then loss = loss * share end
    loss:backward(nil, on_ready and {on_ready = on_ready} or nil)
    ms.backward = ms.backward + 1e3 * (C.atomo_time() - t1)
  end)
end

local function scale_gradients(self, factor)
  if factor == 1 then return end
  for _, p in ipairs(self.trained.list) do
    if p.grad then p.grad:mul_(factor) end
  end
end

--- Adds up the gradients of a step's micro-batches (stage 3); returns its sums on this rank. The step's gradient is
--- that of the mean over all that the loss counts on all ranks (images, characters, labels that are not ignored). The
--- exchange averages over ranks and a loss over its own micro-batch, so each loss is multiplied by its share of the
--- step's count. With local SGD the step's count is this rank's. The number of images is known at the last micro-batch:
--- earlier ones are weighed as if all had the size of the first, and rescaled then. The count is known after
--- reduce_sums: see correct.
local function gradients(self, batches, step, ms)
  local sums = sums_of_nothing()
  local k, first, whole = 0, nil, 0
  repeat
    local batch, last = batches:next_one()
    k = k + 1
    whole = whole + (self.local_sgd and batch.n or batch.total)
    first = first or whole > 0 and whole or nil
    if last and k > 1 and first and sums.summed == 0 then scale_gradients(self, first / whole) end
    F.dropout_stream(self.comm.rank, (step - 1) * self.accumulate + k)
    local on_ready = last and not self.local_sgd and not self.on_gradients and self.on_ready or nil
    forward_backward(self, batch, last and whole or first, on_ready, sums, ms)
    if batch.n > 0 then sums.why = sums.why or finite.loss(sums.own_loss, k) end
    sums.n, sums.total = sums.n + batch.n, sums.total + batch.total
  until last
  sums.weighed = whole
  return sums
end

--- Copies the model's buffers before forward updates them.
local function keep_buffers(self)
  local names, buffers = {}, {}
  for i, entry in ipairs(self.model.named_buffers and self.model:named_buffers() or {}) do
    names[i], buffers[i] = entry[1], entry[2]
  end
  self.buffer_names, self.buffers = names, buffers
  self.before:keep(buffers)
end

--- Returns a text about NaN or Inf in this rank's forward and backward (loss of a micro-batch, buffer, gradient), or
--- nil. If a parameter is not finite, that is the cause and is reported instead.
local function what_is_bad(self, sums)
  local grads, list = self.grads, self.trained.list
  for i = 1, #list do grads[i] = list[i].grad or false end
  local why = sums.why or finite.look("buffer", self.buffers, #self.buffers, self.buffer_names) or
    finite.look("gradient of", grads, #list, self.trained.labels)
  return why and (finite.look("parameter", list, #list, self.trained.labels) or why)
end

--- Adds over all ranks, in one small all-reduce: the step's sums, the number of ranks with NaN or Inf, the steps
--- skipped. Returns these. `what` has step and learning rate: the all-reduce raises if they differ between ranks.
--- [collective]
local function reduce_sums(self, sums, bad, what)
  local p = self.shared:data()
  p[0], p[1], p[2], p[3], p[4] = bad and 0 or sums.loss, sums.right, sums.n, bad and 1 or 0, sums.skipped
  p[5], p[6], p[7] = bad and 0 or sums.count, sums.judged, sums.summed
  sum_over_ranks(self, what)
  return {loss = p[0], right = p[1], n = p[2], count = p[5], judged = p[6], summed = p[7]}, p[3], p[4]
end

--- reduce_sums while buckets may be in exchange. If ranks are at different operations, raises the error of the first
--- bucket that met another operation, at once: the other rank may call no further operation.
local function reduce_in_exchange(self, ...)
  check(C.atomo_engine_check())
  local ok, sums, bad = pcall(reduce_sums, self, ...)
  if not ok then error(self.exchange:why_parted() or sums, 0) end
  return sums, bad
end

--- Rescales the gradients from the expected count of `images` images to the true one, sums.count; to zero if nothing
--- was counted.
local function correct(self, images, sums)
  if sums.summed > 0 or sums.count == 0 and sums.loss == 0 then return end
  scale_gradients(self, sums.count == 0 and 0 or self.unit * images / sums.count)
end

--- Sets a result's means from sums; the loss is NaN if nothing was counted.
local function set_means(result, sums)
  result.loss, result.accuracy = sums.loss / sums.count, sums.right / math.max(sums.judged, 1)
  result.count, result.judged = sums.count, sums.judged
end

--- Clips the gradients and runs the optimizer (stage 9).
local function update(self, lr, ms)
  local t0 = C.atomo_time()
  self.optimizer.lr = lr
  if self.clip_value then clip.clip_grad_value(self.optimizer.params, self.clip_value) end
  if self.clip_norm then clip.clip_grad_norm(self.optimizer.params, self.clip_norm) end
  self.optimizer:step()
  ms.update = 1e3 * (C.atomo_time() - t0)
end

--- Adds the exchange's figures to a result; bytes with those of the weights that a sharded optimizer sends. waiting:
--- milliseconds that this rank waited before it.
local function set_stats(self, result, waiting)
  local stats, shards = self.exchange:stats(), self.optimizer.shards
  if shards then
    stats.bytes_out, stats.bytes_in = stats.bytes_out + shards.bytes_out, stats.bytes_in + shards.bytes_in
  end
  for name, value in pairs(stats.ms) do result.ms[name] = value end
  result.ms.exchange = result.ms.exchange + waiting
  result.stats = stats
end

--- Returns the sums of the round and resets them.
local function end_round(self)
  local round = self.round
  self.round = sums_of_nothing()
  return round
end

--- Begins a round of local SGD: copies the state that is restored if the round is given up.
function Step:begin_round()
  self.in_round = true
  self.local_sgd:begin_round()
  self.unit_before = self.unit
  self.before_round = self.before_round or new_undo()
  self.before_round:keep(self.model.buffers and self.model:buffers() or {})
  self.before_round:keep_optimizer(self.optimizer)
end

--- Gives a round up, on all ranks: restores the state at its beginning.
local function give_round_up(self, result, why)
  result.why, result.bad = why, math.max(result.bad, 1)
  self.local_sgd:back()
  self.before_round:restore()
  self.unit = self.unit_before
  return result
end

--- Ends a local step: this rank's update, and the exchange if the round ends. With NaN or Inf the step is skipped; if
--- the parameters are not finite at the end of a round, all ranks give the round up.
local function end_local_step(self, result, sums, lr, step, ends)
  local round, ms = self.round, result.ms
  result.lr = lr
  result.own_why = what_is_bad(self, sums)
  result.bad, result.bad_here = 0, result.own_why ~= nil
  if result.bad_here then
    self.before:restore()
    round.skipped = round.skipped + 1
  else
    correct(self, sums.weighed, sums)
    for _, p in ipairs(self.trained.list) do gradient.ensure(p) end -- a missing gradient is zero, as in an exchange
    if sums.n > 0 then update(self, lr, ms) end                               -- 9
    for _, name in ipairs(added_up) do round[name] = round[name] + sums[name] end
  end
  set_means(result, sums)
  result.stats = {bytes_out = 0, bytes_in = 0, dense_bytes = self.local_sgd.dense_bytes, variance = 0}
  return ends and self:finish_round(result, step) or result
end

--- Ends a round: exchanges the parameters' changes. result: of its last local step. [collective]
function Step:finish_round(result, step)
  local round = end_round(self)
  self.in_round = false
  local waiting, why = C.atomo_time(), self.local_sgd:difference()
  local bad_here = why ~= nil
  result.sums, result.bad, result.skipped = reduce_sums(self, round, bad_here,
    ("step %d, lr %.9g"):format(step, result.lr))
  waiting = 1e3 * (C.atomo_time() - waiting)
  set_means(result, result.sums)
  if result.bad > 0 then return give_round_up(self, result, finite.told(self.comm, why)) end
  why = self.local_sgd:step(step)                                             -- 4 to 9
  if why then return give_round_up(self, result, why) end
  set_stats(self, result, waiting)
  return result
end

--- Returns a text about NaN or Inf in the averaged gradients, the same on all ranks, or nil.
local function bad_average(self)
  local grads, list = self.grads, self.trained.list
  for i = 1, #list do grads[i] = list[i].grad or false end
  return finite.look("the ranks' average of the gradient of", grads, #list, self.trained.labels)
end

--- Gives the step up, on all ranks: restores the state before it.
local function give_up(self, result, why)
  result.why, result.bad = why, math.max(result.bad, 1)
  self.exchange:drop()
  self.before:restore()
  self.unit = self.unit_before
  return result
end

--- Trains on the next micro-batches as step number `step`. ends(): does a round of local SGD end here? [collective]
--- Returns {loss, accuracy (of all ranks), count, judged (divisors of these means), sums ({loss, right, n, count,
--- judged} over all ranks), images, bad (number of ranks with NaN or Inf), bad_here, why (the step was given up), fatal
--- (text about NaN or Inf after the update, which cannot be undone), ms, stats}. For a local step without exchange,
--- loss and accuracy are this rank's, and sums is nil.
function Step:run(batches, lr, step, ends)
  local ms = {forward = 0, backward = 0}
  self.handed = {}
  self.trained:update(step)
  if self.local_sgd and not self.in_round then self:begin_round() end
  if not self.local_sgd then self.unit_before = self.unit end
  keep_buffers(self)
  self.optimizer:zero_grad()
  local sums = gradients(self, batches, step, ms)                             -- 3
  if self.on_gradients then
    gradient_hook.call(self.on_gradients, self.trained, {step = step, rank = self.comm.rank, lr = lr})
  end
  local result = {ms = ms, own_loss = sums.own_loss, images = sums.total}
  if self.local_sgd then return end_local_step(self, result, sums, lr, step, ends()) end
  for i, p in ipairs(self.trained.list) do                                    -- push those that backward did not reach
    if not self.handed[i] then self.exchange:push(i, gradient.dense(p)) end
  end
  ms.backward = math.max(0, ms.backward - self.exchange:encoding())           -- without encoding on this thread
  local waiting = C.atomo_time()
  local why = what_is_bad(self, sums)
  result.bad_here = why ~= nil
  result.sums, result.bad = reduce_in_exchange(self, sums, result.bad_here, ("step %d, lr %.9g"):format(step, lr))
  waiting = 1e3 * (C.atomo_time() - waiting)                                  -- for the slowest rank
  batches.check_total(result.sums.n, sums.n, sums.total, self.comm.size, step)
  set_means(result, result.sums)
  if result.bad > 0 then return give_up(self, result, finite.told(self.comm, why)) end
  why = self.exchange:average_or_why() or bad_average(self)                   -- 4 to 8
  if why then return give_up(self, result, why) end
  self.exchange:commit()
  correct(self, sums.weighed, result.sums)
  update(self, lr, ms)                                                        -- 9
  result.fatal = finite.look("the update's parameter", self.trained.list, #self.trained.list, self.trained.labels)
  set_stats(self, result, waiting)
  return result
end

return new
