--- The screen of scripts/watch.lua: a run's state, its loss and accuracy so far as text charts, and its last epochs.
local log = require "atomo.core.log"
local runs = require "atomo.tools.runs"
local series = require "atomo.tools.report.series"
local step_time = require "atomo.train.step_time"
local text_chart = require "atomo.tools.text_chart"

local M = {}

local RECENT = 20 -- steps over which speed is averaged

--- Returns the means of the last steps: milliseconds by stage, images a second, bytes sent and dense bytes a step.
local function recent(run)
  local ms, n, sums = {}, 0, {images = 0, out = 0, dense = 0}
  for i = math.max(1, #run.steps - RECENT + 1), #run.steps do
    local e = run.steps[i]
    if type(e.ms) == "table" and e.ms.step then
      for name, v in pairs(e.ms) do ms[name] = (ms[name] or 0) + v end
      sums.images = sums.images + (e.images_per_s or 0) * e.ms.step / 1e3
      sums.out, sums.dense, n = sums.out + (e.bytes_out or 0), sums.dense + (e.dense_bytes or 0), n + 1
    end
  end
  if n == 0 or ms.step <= 0 then return nil end
  return {ms = ms, n = n, images_per_s = sums.images / (ms.step / 1e3), bytes = sums.out / n, dense = sums.dense / n,
    per_s = sums.out / (ms.step / 1e3)}
end

--- Returns lines about a run: its settings, its progress and its speed.
local function head(run)
  local s, last = run.settings, run.steps[#run.steps]
  local lines = {("%s: %s, %s, %s ranks"):format(run.path, tostring(s.model or "a model"),
    tostring(s.compress or "no compressor named"), tostring(run.ranks or "?"))}
  local seconds = runs.seconds(run)
  local at = last and ("epoch %s%s, step %s"):format(tostring(last.epoch or "?"),
    s.epochs and "/" .. tostring(s.epochs) or "", tostring(last.step or "?")) or "no step yet"
  if type(last and last.loss) == "number" then at = at .. (", loss %.4f"):format(last.loss) end
  if seconds then at = at .. ", " .. log.duration(seconds) end
  lines[2] = "  " .. at .. (run.finish and ", ended" or "")
  local now = recent(run)
  if now then
    local sent = now.bytes > 0 and (", %s/step, %s/s%s"):format(log.bytes(now.bytes), log.bytes(now.per_s),
      now.dense > 0 and (", %s less than dense"):format(log.ratio(now.dense / now.bytes)) or "") or ""
    lines[3] = ("  %.0f %s/s, %.1f ms/step%s"):format(now.images_per_s, run.unit, now.ms.step / now.n, sent)
    lines[4] = "  [" .. log.shares(step_time.parts(now.ms), now.ms.step) .. "]"
  end
  return lines
end

--- Returns the curves to draw: for one run its training and test values; for several runs their test values, or before
--- there are any, their training values.
local function drawn(curves, count)
  local tested = {}
  for _, s in ipairs(curves) do
    s.number = count == 1 and (s.thin and 1 or 2) or s.colour
    if not s.thin then tested[#tested + 1] = s end
  end
  return count > 1 and #tested > 0 and tested or curves
end

--- Returns a chart of a quantity over steps, or nothing if no run has it.
local function chart(list, kind, width, height)
  local axis = {key = "steps", name = "steps", label = "step", units = {{1, ""}},
    of = function(e) return e.event == "epoch" and e.last_step or e.step end}
  local curves = series.of(list, axis, kind, width)
  if #curves == 0 then return {} end
  curves = drawn(curves, #list)
  local title = kind == "accuracy" and "accuracy, %" or kind
  title = title .. (#list == 1 and " (* training, o test)" or curves[1].thin and " in training" or " in tests")
  return text_chart.lines {title = title, x = {label = "step"}, y = {clip = kind == "loss"}, series = curves,
    width = width, height = height}
end

local function percent(v) return type(v) == "number" and ("%.2f %%"):format(100 * v) or "-" end

local function loss_text(v) return type(v) == "number" and ("%.4f"):format(v) or "-" end

--- Returns a table of the last epochs of a run.
local function epochs(run, most)
  local rows = {{"epoch", "loss", "accuracy", "test loss", "test accuracy", "time"}}
  for i = math.max(1, #run.epochs - most + 1), #run.epochs do
    local e = run.epochs[i]
    rows[#rows + 1] = {e.epoch or "-", loss_text(e.loss), percent(e.accuracy), loss_text(e.test_loss),
      percent(e.test_accuracy), e.time and log.duration(e.time) or "-"}
  end
  return #rows > 1 and {log.table(rows)} or {}
end

--- Returns the screen as text. list: one run, or several to compare, which series.name_runs has named.
---@param list atomo.Run[]
---@param width integer   columns
---@param height integer  rows of each chart
---@return string
function M.screen(list, width, height)
  local lines = {}
  local function add(more) for _, line in ipairs(more) do lines[#lines + 1] = line end end
  for k, run in ipairs(list) do
    add(head(run))
    if #list > 1 then lines[#lines] = lines[#lines] .. ("   drawn as %s"):format(text_chart.mark(k)) end
  end
  lines[#lines + 1] = ""
  add(chart(list, "loss", width, height))
  add(chart(list, "accuracy", width, height))
  if #list == 1 then add(epochs(list[1], 5)) end
  return table.concat(lines, "\n")
end

return M
