--- Converts logs of runs to curves: test accuracy against training time and bytes. Time is the sum of the steps' times
-- (data, forward, backward, exchange, update), without evaluation.
local median = require "atomo.core.median"

local M = {}

---@class atomo.CurvePoint
---@field epoch integer
---@field step integer
---@field seconds number
---@field bytes number      sent by rank 0 so far
---@field accuracy number   test accuracy, a fraction

---@class atomo.Curve
---@field points atomo.CurvePoint[]
---@field final number?     test accuracy at the end
---@field steps integer
---@field step_ms number    milliseconds of a step, median; NaN without steps
---@field bytes_step number bytes that rank 0 sends per step
---@field dense_step number the same for dense gradients
---@field losses number[]   training loss by step
---@field hidden number?    mean fraction of the exchange that the main thread did not wait for

function M.mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum / #list
end

--- Returns the standard error of the mean; nil for fewer than two elements.
function M.standard_error(list)
  if #list < 2 then return nil end
  local mean, sum = M.mean(list), 0
  for _, v in ipairs(list) do sum = sum + (v - mean) ^ 2 end
  return math.sqrt(sum / (#list - 1) / #list)
end

--- Returns the curve of a log's events.
---@param events table[]
---@return atomo.Curve
function M.read(events)
  local c = {points = {}, steps = 0, losses = {}}
  local seconds, bytes, dense, times, hidden = 0, 0, 0, {}, {}
  for _, e in ipairs(events) do
    if e.event == "step" then
      c.steps = c.steps + 1
      seconds, bytes, dense = seconds + e.ms.step / 1e3, bytes + e.bytes_out, dense + e.dense_bytes
      times[#times + 1], c.losses[#c.losses + 1] = e.ms.step, e.loss or 0 / 0
      hidden[#hidden + 1] = e.hidden
    elseif e.event == "epoch" and e.test_accuracy then
      c.points[#c.points + 1] = {epoch = e.epoch, step = c.steps, seconds = seconds, bytes = bytes,
        accuracy = e.test_accuracy}
    elseif e.event == "end" then
      c.final = e.test_accuracy
    end
  end
  c.step_ms = median(times) or 0 / 0
  c.bytes_step, c.dense_step = bytes / math.max(c.steps, 1), dense / math.max(c.steps, 1)
  c.hidden = #hidden > 0 and M.mean(hidden) or nil
  return c
end

--- Returns the median milliseconds of a step, without the first `warm` steps, in which buffers are allocated; nil if
--- there are no further steps.
function M.steady_ms(events, warm)
  local times, seen = {}, 0
  for _, e in ipairs(events) do
    if e.event == "step" then
      seen = seen + 1
      if seen > warm then times[#times + 1] = e.ms.step end
    end
  end
  return median(times)
end

--- Sets the curve's seconds as if each step took step_ms, which was measured in another run of the same settings.
--- Raises if the losses of the two runs are not bit-identical.
---@param curve atomo.Curve
---@param timed atomo.Curve    of the run in which step_ms was measured
---@param step_ms number
function M.set_clock(curve, timed, step_ms)
  for k, loss in ipairs(timed.losses) do
    if loss ~= curve.losses[k] then
      error(("the run that was timed is not the one that was trained: at step %d its loss is %.17g, not %.17g (does " ..
        "the topology depend on the network?)"):format(k, loss, curve.losses[k] or 0 / 0), 0)
    end
  end
  for _, p in ipairs(curve.points) do p.seconds = p.step * step_ms / 1e3 end
  curve.step_ms = step_ms
end

--- Returns the first point at or above an accuracy; nil if there is none.
function M.reach(curve, accuracy)
  for _, p in ipairs(curve.points) do
    if p.accuracy >= accuracy then return p end
  end
end

--- Averages the points of each epoch over runs with different seeds.
---@param curves atomo.Curve[]
---@return atomo.CurvePoint[]
function M.average(curves)
  local points = {}
  for k = 1, #(curves[1] and curves[1].points or {}) do
    local sum, n = {seconds = 0, bytes = 0, accuracy = 0}, 0
    for _, c in ipairs(curves) do
      local p = c.points[k]
      if p then
        for key in pairs(sum) do sum[key] = sum[key] + p[key] end
        n = n + 1
      end
    end
    for key in pairs(sum) do sum[key] = sum[key] / n end
    points[k] = sum
  end
  return points
end

return M
