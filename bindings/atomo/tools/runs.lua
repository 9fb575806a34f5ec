--- Reads the runs of a JSONL log (--log of the training scripts). A log that several runs have written to, one after
-- the other, holds an event "run" at the start of each.
local log = require "atomo.core.log"
local raise = require("atomo.ffi").raise

local M = {}

---@class atomo.Run
---@field path string
---@field number integer      of the run in its file, from 1
---@field settings table      of the script
---@field versions table
---@field ranks integer?
---@field threads integer?
---@field unit string         what a batch has: "img"
---@field steps table[]       events "step", in order
---@field epochs table[]      events "epoch"; last_step is the last step before it, bytes what was sent up to there
---@field finish table?       event "end"; nil while the run continues, and if it was stopped
---@field bytes number        gradient bytes that rank 0 sent in all steps
---@field dense number        bytes that dense f32 gradients would have taken

local function begin(path, number, event)
  return {path = path, number = number, settings = event.settings or {}, versions = event.versions or {},
    ranks = event.ranks, threads = event.threads, unit = event.unit or "img", steps = {}, epochs = {}, bytes = 0,
    dense = 0}
end

local add = {
  step = function(run, e)
    run.bytes, run.dense = run.bytes + (tonumber(e.bytes_out) or 0), run.dense + (tonumber(e.dense_bytes) or 0)
    e.bytes = run.bytes
    run.steps[#run.steps + 1] = e
  end,
  epoch = function(run, e)
    local last = run.steps[#run.steps]
    e.last_step, e.bytes = last and last.step, run.bytes
    run.epochs[#run.epochs + 1] = e
  end,
}
add["end"] = function(run, e) run.finish = e end

--- Returns the runs of a log. Lines that are no JSON are skipped, with a text for each in `bad`.
---@param path string
---@return atomo.Run[]
---@return string[] bad
function M.read(path)
  local events, bad = log.read(path)
  local runs, texts = {}, {}
  for i, entry in ipairs(bad) do texts[i] = entry.message end
  for _, e in ipairs(events) do
    if type(e) ~= "table" then
      texts[#texts + 1] = path .. ": a line is no object"
    elseif e.event == "run" then
      runs[#runs + 1] = begin(path, #runs + 1, e)
    elseif runs[1] and add[e.event] then
      add[e.event](runs[#runs], e)
    end
  end
  return runs, texts
end

--- Returns the runs of all logs, in order; raises if there is none.
---@param paths string[]
---@param warn fun(text: string)  gets a text for each line that cannot be read
---@return atomo.Run[]
function M.read_all(paths, warn)
  local all = {}
  for _, path in ipairs(paths) do
    local runs, bad = M.read(path)
    for _, text in ipairs(bad) do warn(text) end
    for _, run in ipairs(runs) do all[#all + 1] = run end
  end
  if #all == 0 then raise(("log: no run in %s"):format(table.concat(paths, ", "))) end
  return all
end

--- Returns the epoch event with the largest test accuracy, or if there are no accuracies with the least test loss; nil
--- if there is neither.
---@param run atomo.Run
---@return table?
function M.best(run)
  local best
  for _, e in ipairs(run.epochs) do
    if e.test_accuracy then
      if not (best and best.test_accuracy) or e.test_accuracy > best.test_accuracy then best = e end
    elseif e.test_loss and not (best and best.test_accuracy) then
      if not best or e.test_loss < best.test_loss then best = e end
    end
  end
  return best
end

--- Returns the first epoch event with at least this test accuracy, or nil.
---@param run atomo.Run
---@param accuracy number  a fraction
---@return table?
function M.reached(run, accuracy)
  for _, e in ipairs(run.epochs) do
    if e.test_accuracy and e.test_accuracy >= accuracy then return e end
  end
end

--- Returns the means over the steps of a run of the milliseconds in each stage; nil if the log has none. Steps before
--- the third are left out if there are enough: they make plans and buffers.
---@param run atomo.Run
---@return table<string, number>? ms  by stage; ms.step: all of a step
function M.mean_times(run)
  local sums, n = {}, 0
  for i = #run.steps > 4 and 3 or 1, #run.steps do
    local ms = run.steps[i].ms
    if type(ms) == "table" then
      for name, value in pairs(ms) do
        if type(value) == "number" then sums[name] = (sums[name] or 0) + value end
      end
      n = n + 1
    end
  end
  if n == 0 then return nil end
  for name, sum in pairs(sums) do sums[name] = sum / n end
  return sums
end

--- Returns seconds from the run's start to its last event.
---@param run atomo.Run
---@return number?
function M.seconds(run)
  local last = run.finish or run.epochs[#run.epochs]
  local step = run.steps[#run.steps]
  local time = last and last.time or 0
  return step and math.max(time, step.time or 0) or last and time or nil
end

return M
