--- Output of a run on rank 0 (stage 10): progress lines, the JSONL log (docs/guide.md), the closing table.
local f = require "atomo.ffi"
local csv = require "atomo.train.outputs.csv"
local files = require "atomo.core.files"
local log = require "atomo.core.log"
local step_time = require "atomo.train.step_time"
local tensorboard = require "atomo.train.outputs.tensorboard"
local version = require "atomo.core.version"
local ffi, C = f.ffi, f.C

---@class atomo.Report
local Report = {}
Report.__index = Report

--- opts: comm, log, csv (paths), tensorboard (a folder), quiet, settings, epochs, steps (per epoch), max_steps, unit
--- (what a batch has: "img")
local function new(opts)
  local self = setmetatable({}, Report)
  for key, value in pairs(opts) do self[key] = value end
  self.main = self.comm.rank == 0
  self.total = math.min(self.epochs * self.steps, self.max_steps or math.huge)
  if self.main and opts.log then self.file = log.open(opts.log) end
  self.outputs = {}
  if self.main and opts.csv then self.outputs[1] = csv.open(opts.csv) end
  if self.main and opts.tensorboard then
    self.outputs[#self.outputs + 1] = tensorboard.open(opts.tensorboard, self.comm.hostname)
  end
  if self.main and not self.quiet then self.progress = log.progress {total = self.total} end
  return self
end

function Report:seconds() return C.atomo_time() - self.start end

function Report:write(event)
  if self.file then
    event.time = self:seconds()
    self.file:write(event)
  end
end

function Report:begin()
  self.start = C.atomo_time()
  self.times = {}
  self:write {event = "run", settings = self.settings or {}, versions = version.versions(), ranks = self.comm.size,
    threads = C.atomo_num_threads(), unit = self.unit}
end

--- Reports that the run resumes from a checkpoint.
function Report:resumed(step, epoch, path)
  self:line(("resuming after epoch %d, step %d, from %s"):format(epoch, step, path))
  self.first = step
  if self.progress then self.progress.first = step end
end

--- Prints a line on rank 0, above the progress line.
function Report:line(text)
  if self.progress then self.progress:line(text)
  elseif self.main and not self.quiet then files.say(text) end
end

--- Adds a step's loss and accuracy, weighed by their counts. Those of a local step are this rank's only and are kept in
--- sums.open; at the end of the round they are replaced by the sums over all ranks.
local function add_means(sums, info)
  local to = info.of_all and sums or sums.open
  if info.of_all then sums.open = {loss = 0, count = 0, right = 0, judged = 0} end
  if info.count > 0 then to.loss, to.count = to.loss + info.loss * info.count, to.count + info.count end
  to.right, to.judged = to.right + info.accuracy * info.judged, to.judged + info.judged
end

--- Returns loss and accuracy since the last progress line.
function Report:means()
  local sums, open = self.sums, self.sums.open
  return (sums.loss + open.loss) / (sums.count + open.count),
    (sums.right + open.right) / math.max(sums.judged + open.judged, 1)
end

function Report:step(info)
  self:write {event = "step", step = info.step, epoch = info.epoch, loss = info.loss, accuracy = info.accuracy,
    lr = info.lr, images_per_s = info.images_per_s, bytes_out = info.bytes_out, bytes_in = info.bytes_in,
    dense_bytes = info.dense_bytes, variance = info.variance,
    relative_variance = info.relative_variance, hidden = info.hidden, ms = info.ms}
  for _, out in ipairs(self.outputs) do out:step(info, self:seconds()) end
  if not self.main then return end
  local sums = self.sums or {step = 0, images = 0, loss = 0, count = 0, right = 0, judged = 0, n = 0, bytes = 0,
    dense = 0, open = {loss = 0, count = 0, right = 0, judged = 0}}
  self.sums = sums
  for name, ms in pairs(info.ms) do sums[name] = (sums[name] or 0) + ms end
  sums.images, sums.n = sums.images + info.images, sums.n + 1
  add_means(sums, info)
  sums.bytes, sums.dense = sums.bytes + info.bytes_out, sums.dense + info.dense_bytes
  self.all_images = (self.all_images or 0) + info.images
  self.all_ms = (self.all_ms or 0) + info.ms.step
  self.all_dense = (self.all_dense or 0) + info.dense_bytes
  self.all_bytes = (self.all_bytes or 0) + info.bytes_out
  if info.hidden then
    self.all_hidden, self.hidden_steps = (self.all_hidden or 0) + info.hidden, (self.hidden_steps or 0) + 1
  end
  if not self.progress then return end
  self.progress:update(info.step, function(live)
    local loss, accuracy = self:means()
    self.sums = nil -- the next line has sums of its own
    if live then return self:live(info, sums, loss, accuracy) end
    return ("epoch %d/%d  loss %.4f  acc %.1f%%  %.0f %s/s  %s  lr %.4f  [%s]"):format(
      info.epoch, self.epochs, loss, 100 * accuracy,
      sums.images / (sums.step / 1e3), self.unit, self:sent(sums.bytes / sums.n, sums.dense / sums.n), info.lr,
      log.shares(step_time.parts(sums), sums.step))
  end)
end

--- Returns the parts of the line that is redrawn on a terminal, the most important first.
function Report:live(info, sums, loss, accuracy)
  local parts = {("epoch %d/%d"):format(info.epoch, self.epochs), ("loss %.4f"):format(loss),
    ("acc %.1f%%"):format(100 * accuracy), ("%.0f %s/s"):format(sums.images / (sums.step / 1e3), self.unit)}
  if sums.bytes > 0 and self.comm.size > 1 then
    parts[#parts + 1] = log.bytes(sums.bytes / (sums.step / 1e3)) .. "/s sent"
    parts[#parts + 1] = log.ratio(sums.dense / sums.bytes) .. " less"
  end
  parts[#parts + 1] = ("lr %.4g"):format(info.lr)
  return parts
end

--- Returns "68.7 kB/step (15.8x less than dense)". bytes and dense: bytes per rank and step.
function Report:sent(bytes, dense)
  if self.comm.size == 1 then return "nothing sent (1 rank)" end
  if bytes == 0 then return "nothing sent" end
  return ("%s/step (%s less than dense)"):format(log.bytes(bytes), log.ratio(dense / bytes))
end

function Report:epoch(info)
  self:write {event = "epoch", epoch = info.epoch, loss = info.loss, accuracy = info.accuracy,
    test_loss = info.test_loss, test_accuracy = info.test_accuracy, bytes_out = info.bytes_out, layers = info.layers}
  for _, out in ipairs(self.outputs) do out:epoch(info, self:seconds()) end
  local test = info.test_accuracy and
    ("  test loss %.4f acc %.2f%%"):format(info.test_loss, 100 * info.test_accuracy) or ""
  self:line(("epoch %d/%d  loss %.4f  acc %.2f%%%s  %s"):format(info.epoch, self.epochs, info.loss,
    100 * info.accuracy, test, log.duration(self:seconds())))
end

function Report:finish(info)
  info.seconds, info.bytes_out = self:seconds(), self.all_bytes or 0
  self:write {event = "end", epoch = info.epoch, step = info.step, loss = info.loss, accuracy = info.accuracy,
    test_loss = info.test_loss, test_accuracy = info.test_accuracy, seconds = info.seconds,
    bytes_out = info.bytes_out, skipped = info.skipped}
  if self.file then self.file:close() end
  for _, out in ipairs(self.outputs) do out:close() end
  if not self.progress then return end
  self.progress:finish()
  local steps = math.max(info.step - (self.first or 0) - info.skipped, 1) -- without those before it was resumed
  local mem = ffi.new "atomo_mem"
  C.atomo_mem_stats(mem)
  local rows = {
    {"steps", ("%d, %d skipped"):format(info.step, info.skipped)},
    {"time", ("%s; %.1f ms per step"):format(log.duration(info.seconds), (self.all_ms or 0) / steps)},
    {"speed", ("%.1f %s/s on %d rank%s"):format((self.all_images or 0) / math.max((self.all_ms or 0) / 1e3, 1e-9),
      self.unit, self.comm.size, self.comm.size == 1 and "" or "s")},
    {"sent by a rank", self:sent(info.bytes_out / steps, (self.all_dense or 0) / steps)},
    {"overlap", self.all_hidden and
      ("%.0f %% of the exchange ran behind backward"):format(100 * self.all_hidden / self.hidden_steps) or "-"},
    {"training loss", info.loss and ("%.4f"):format(info.loss) or "-"},
    {"peak memory", ("%s of tensors and buffers"):format(log.bytes(mem.peak))},
  }
  files.say("summary")
  files.say(log.pairs(rows))
  if info.test_accuracy then
    files.say(("final test accuracy %.4f"):format(info.test_accuracy))
  end
end

return new
