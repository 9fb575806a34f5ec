--- Logs of runs as curves: test accuracy against training time and bytes. Time is the sum of the steps' own times
-- (data, forward, backward, exchange, update): evaluation measures the training and is no part of it.
local M = {}

---@class atomo.CurvePoint
---@field epoch integer
---@field step integer
---@field seconds number
---@field bytes number      sent by rank 0
---@field accuracy number   of the test set, a fraction

---@class atomo.Curve
---@field points atomo.CurvePoint[]
---@field final number?     test accuracy of the end
---@field steps integer
---@field step_ms number    median of a step
---@field bytes_step number bytes that rank 0 sends in a step
---@field dense_step number
---@field losses number[]   by step
---@field hidden number?    mean fraction of the exchange that the main thread did not wait for

--- Median of a list, from its element number `first` (default 1) on; NaN of none.
function M.median(list, first)
  local copy = {}
  for i = first or 1, #list do copy[#copy + 1] = list[i] end
  table.sort(copy)
  local n = #copy
  if n == 0 then return 0 / 0 end
  return n % 2 == 1 and copy[(n + 1) / 2] or 0.5 * (copy[n / 2] + copy[n / 2 + 1])
end

function M.mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return sum / #list
end

--- Standard error of the mean; nil of fewer than two.
function M.standard_error(list)
  if #list < 2 then return nil end
  local mean, sum = M.mean(list), 0
  for _, v in ipairs(list) do sum = sum + (v - mean) ^ 2 end
  return math.sqrt(sum / (#list - 1) / #list)
end

--- The curve of one log's events.
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
  c.step_ms = M.median(times)
  c.bytes_step, c.dense_step = bytes / math.max(c.steps, 1), dense / math.max(c.steps, 1)
  c.hidden = #hidden > 0 and M.mean(hidden) or nil
  return c
end

--- Median milliseconds of a step without the first `warm` (buffers are made and the order of tensors is learnt there).
function M.steady_ms(events, warm)
  local times = {}
  for _, e in ipairs(events) do
    if e.event == "step" then times[#times + 1] = e.ms.step end
  end
  return M.median(times, warm + 1)
end

--- Sets the curve's clock by steps of step_ms each, measured elsewhere. The runs must be the same: raises at the first
--- step whose loss has other bits.
---@param curve atomo.Curve
---@param timed atomo.Curve    of the run that was timed
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

--- The first evaluation at or above an accuracy; nil where there is none.
function M.reach(curve, accuracy)
  for _, p in ipairs(curve.points) do
    if p.accuracy >= accuracy then return p end
  end
end

--- Over runs that differ in their seed: the mean of each epoch's point.
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
