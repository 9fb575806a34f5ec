--- Curves of runs for charts: accuracy and loss against time, epochs and bytes, in units that fit the data.
local M = {}

local POINTS = 200 -- of a curve of training values, at most

--- The x axes of a training curve: name, label, units from the largest down, and the value of an event.
M.axes = {
  {key = "time", name = "time", label = "time", units = {{86400, "days"}, {3600, "h"}, {60, "min"}, {1, "s"}},
    of = function(e) return e.time end},
  {key = "epochs", name = "epochs", label = "epochs", units = {{1, ""}}, of = function(e, run)
    return e.event == "epoch" and e.epoch or M.epoch_of(e, run)
  end},
  {key = "bytes", name = "bytes", label = "sent by rank 0",
    units = {{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}},
    of = function(e) return e.bytes end},
}

--- Returns the place of a step in epochs, as a fraction; nil if unknown.
function M.epoch_of(e, run)
  local epoch = e.epoch
  if type(epoch) ~= "number" then return nil end
  local span = run.spans[epoch]
  return span and type(e.step) == "number" and epoch - 1 + (e.step - span[1] + 1) / (span[2] - span[1] + 1) or epoch
end

--- Sets run.spans: the first and last step of each epoch. An incomplete epoch counts as many steps as the first one.
local function set_spans(run)
  run.spans = {}
  local longest
  for _, e in ipairs(run.steps) do
    if type(e.epoch) == "number" and type(e.step) == "number" then
      local span = run.spans[e.epoch] or {e.step, e.step}
      span[2] = e.step
      run.spans[e.epoch] = span
    end
  end
  for _, span in pairs(run.spans) do longest = math.max(longest or 0, span[2] - span[1]) end
  for _, span in pairs(run.spans) do span[2] = math.max(span[2], span[1] + longest) end
end

--- Returns the points {x, y} of the events that have a y.
local function points_of(events, run, axis, y_of)
  local points = {}
  for _, e in ipairs(events) do
    local x, y = axis.of(e, run), y_of(e)
    if type(x) == "number" and type(y) == "number" and y == y then points[#points + 1] = {x, y} end
  end
  return points
end

--- Returns at most `most` points, each the mean of the same number of the given ones.
function M.thinned(points, most)
  local list, every = {}, math.ceil(#points / most)
  for first = 1, #points, every do
    local last, sum = math.min(#points, first + every - 1), 0
    for i = first, last do sum = sum + points[i][2] end
    list[#list + 1] = {points[last][1], sum / (last - first + 1)}
  end
  return list
end

--- Divides all x by the largest unit that leaves values of at least 1.5; returns the axis's label.
local function in_units(axis, series)
  local high = 0
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do high = math.max(high, p[1]) end
  end
  local unit = axis.units[#axis.units]
  for i = #axis.units, 1, -1 do
    if high >= 1.5 * axis.units[i][1] then unit = axis.units[i] end
  end
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do p[1] = p[1] / unit[1] end
  end
  return unit[2] == "" and axis.label or ("%s, %s"):format(axis.label, unit[2])
end

--- Returns the curves of one quantity: of each run its test values by epoch, and its training values as a thin line of
--- the same colour.
---@param list atomo.Run[]     with fields name and number of the colour
---@param axis table           one of M.axes
---@param kind string          "accuracy" or "loss"
---@param most integer?        points of a training curve, default 200
---@return table[] series
---@return string label        of the x axis
function M.of(list, axis, kind, most)
  local factor, series = kind == "accuracy" and 100 or 1, {}
  local function value(key)
    return function(e) return type(e[key]) == "number" and factor * e[key] or nil end
  end
  for k, run in ipairs(list) do
    if not run.spans then set_spans(run) end
    local trained = M.thinned(points_of(run.steps, run, axis, value(kind)), most or POINTS)
    local tested = points_of(run.epochs, run, axis, value("test_" .. kind))
    local group = "run-" .. k
    if #trained > 0 then
      series[#series + 1] = {name = run.name .. ", training", points = trained, colour = k, thin = true, group = group}
    end
    if #tested > 0 then
      series[#series + 1] = {name = run.name .. ", test", points = tested, colour = k, group = group}
    end
  end
  table.sort(series, function(a, b) -- thin lines below
    if a.thin ~= b.thin then return a.thin == true end
    return a.colour < b.colour
  end)
  return series, in_units(axis, series)
end

--- Names the runs by the settings in which they differ. Sets the fields name and colour.
---@param list atomo.Run[]
function M.name_runs(list)
  local seen = {}
  for _, run in ipairs(list) do
    local compress = tostring(run.settings.compress or "")
    local file = run.path:match "[^/]*$":gsub("%.jsonl$", "")
    run.name = compress ~= "" and compress or file
    seen[run.name] = (seen[run.name] or 0) + 1
    run.file = file
  end
  local again = {}
  for _, run in ipairs(list) do
    if seen[run.name] > 1 then run.name = ("%s (%s)"):format(run.name, run.file) end
    again[run.name] = (again[run.name] or 0) + 1
    if again[run.name] > 1 then run.name = ("%s, run %d"):format(run.name, run.number) end
  end
end

return M
