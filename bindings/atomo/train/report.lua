--- What a run says of itself, on rank 0: progress lines, the JSONL log (docs/guide.md), the closing table. Stage 10.
local f = require "atomo.ffi"
local files = require "atomo.core.files"
local log = require "atomo.core.log"
local version = require "atomo.core.version"
local ffi, C = f.ffi, f.C

---@class atomo.Report
local Report = {}
Report.__index = Report

--- opts: comm, log (path), quiet, settings, epochs, steps (of an epoch), max_steps
local function new(opts)
  local self = setmetatable({}, Report)
  for key, value in pairs(opts) do self[key] = value end
  self.main = self.comm.rank == 0
  self.total = math.min(self.epochs * self.steps, self.max_steps or math.huge)
  if self.main and opts.log then self.file = log.open(opts.log) end
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
    threads = C.atomo_num_threads()}
end

--- The run goes on from a checkpoint.
function Report:resumed(step, epoch, path)
  self:line(("going on after epoch %d, step %d of %s"):format(epoch, step, path))
  self.first = step
  if self.progress then self.progress.first = step end
end

--- A line that stays, on rank 0.
function Report:line(text)
  if self.progress then self.progress:line(text)
  elseif self.main and not self.quiet then files.say(text) end
end

local stages = {"data", "forward", "backward", "encode", "exchange", "decode", "update"}

--- Where the time goes: "forward 31% backward 55% ..." of the steps since the last line.
local function time_split(sums)
  local parts = {}
  for _, name in ipairs(stages) do
    local share = 100 * (sums[name] or 0) / math.max(sums.step, 1e-9)
    if share >= 0.5 then parts[#parts + 1] = ("%s %.0f%%"):format(name, share) end
  end
  return table.concat(parts, " ")
end

function Report:step(info)
  self:write {event = "step", step = info.step, epoch = info.epoch, loss = info.loss, accuracy = info.accuracy,
    lr = info.lr, images_per_s = info.images_per_s, bytes_out = info.bytes_out, bytes_in = info.bytes_in,
    dense_bytes = info.dense_bytes, variance = info.variance, hidden = info.hidden, ms = info.ms}
  if not self.main then return end
  local sums = self.sums or {step = 0, images = 0, loss = 0, count = 0, right = 0, judged = 0, n = 0, bytes = 0,
    dense = 0}
  self.sums = sums
  for name, ms in pairs(info.ms) do sums[name] = (sums[name] or 0) + ms end
  sums.images, sums.n = sums.images + info.images, sums.n + 1
  if info.count > 0 then sums.loss, sums.count = sums.loss + info.loss * info.count, sums.count + info.count end
  sums.right, sums.judged = sums.right + info.accuracy * info.judged, sums.judged + info.judged
  sums.bytes, sums.dense = sums.bytes + info.bytes_out, sums.dense + info.dense_bytes
  self.all_images = (self.all_images or 0) + info.images
  self.all_ms = (self.all_ms or 0) + info.ms.step
  self.all_dense = (self.all_dense or 0) + info.dense_bytes
  self.all_bytes = (self.all_bytes or 0) + info.bytes_out
  if info.hidden then
    self.all_hidden, self.hidden_steps = (self.all_hidden or 0) + info.hidden, (self.hidden_steps or 0) + 1
  end
  if not self.progress then return end
  self.progress:update(info.step, function()
    self.sums = nil -- the next line begins afresh
    return ("epoch %d/%d  loss %.4f  acc %.1f%%  %.0f img/s  %s/step (%s)  lr %.4f  [%s]"):format(
      info.epoch, self.epochs, sums.loss / sums.count, 100 * sums.right / math.max(sums.judged, 1),
      sums.images / (sums.step / 1e3), log.bytes(sums.bytes / sums.n), self:ratio(sums.dense, sums.bytes), info.lr,
      time_split(sums))
  end)
end

--- "15.8x less than dense"; on one rank nothing travels.
function Report:ratio(dense, bytes)
  if self.comm.size == 1 or bytes == 0 then return "1 rank" end
  return ("%s less than dense"):format(log.ratio(dense / bytes))
end

function Report:epoch(info)
  self:write {event = "epoch", epoch = info.epoch, loss = info.loss, accuracy = info.accuracy,
    test_loss = info.test_loss, test_accuracy = info.test_accuracy, bytes_out = info.bytes_out}
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
  if not self.progress then return end
  self.progress:finish()
  local steps = math.max(info.step - (self.first or 0) - info.skipped, 1) -- of this run
  local mem = ffi.new "atomo_mem"
  C.atomo_mem_stats(mem)
  local rows = {
    {"summary", ""},
    {"steps", ("%d, %d skipped"):format(info.step, info.skipped)},
    {"time", ("%s, %.1f ms a step"):format(log.duration(info.seconds), (self.all_ms or 0) / steps)},
    {"images", ("%.1f img/s over %d ranks"):format((self.all_images or 0) / math.max((self.all_ms or 0) / 1e3, 1e-9),
      self.comm.size)},
    {"sent a step", ("%s a rank, dense would be %s (%s)"):format(log.bytes(info.bytes_out / steps),
      log.bytes((self.all_dense or 0) / steps), self:ratio(self.all_dense or 0, info.bytes_out))},
    {"hidden", self.all_hidden and
      ("%.0f %% of the shorter of communication and backward"):format(100 * self.all_hidden / self.hidden_steps) or
      "-"},
    {"training loss", info.loss and ("%.4f"):format(info.loss) or "-"},
    {"native memory", ("%s at most"):format(log.bytes(mem.peak))},
  }
  files.say(log.table(rows))
  if info.test_accuracy then
    files.say(("final test accuracy %.4f"):format(info.test_accuracy))
  end
end

return new
