--- Charts of a report as SVG texts.
local bars = require "atomo.tools.plot.bars"
local log = require "atomo.core.log"
local plot = require "atomo.tools.plot"
local runs = require "atomo.tools.runs"
local series = require "atomo.tools.report.series"
local step_time = require "atomo.train.step_time"

local M = {}

local LAYERS = 40 -- rows of a chart by layer, at most
local PIXELS = 6 -- least distance of two points of a training curve; each is a mean over several steps
local WIDE = 8 -- an axis is logarithmic if one run is WIDE times as long on it as another

--- Returns the smallest and the largest of the curves' last x.
local function ends_of(curves)
  local least, most = math.huge, 0
  for _, s in ipairs(curves) do
    local x = s.points[#s.points][1]
    least, most = math.min(least, x), math.max(most, x)
  end
  return least, most
end

--- Returns the charts of accuracy and loss over time, epochs and bytes: {name=, svg=}. Those without data are left out:
--- a run of one rank sends no bytes.
---@param list atomo.Run[]
---@param width integer  of a chart in pixels
---@param legend boolean
---@return {name: string, svg: string}[]
function M.curves(list, width, legend)
  local charts = {}
  for _, kind in ipairs {"accuracy", "loss"} do
    for _, axis in ipairs(series.axes) do
      local curves, label = series.of(list, axis, kind, math.floor(width / PIXELS))
      local least, most = ends_of(curves)
      if most > 0 then
        charts[#charts + 1] = {name = kind .. "_" .. axis.key, svg = plot.svg {
          title = ("%s over %s"):format(kind == "accuracy" and "Accuracy" or "Loss", axis.name),
          x = {label = label, log = most > WIDE * least}, y = {label = kind == "accuracy" and "accuracy, %" or "loss",
            most = kind == "accuracy" and 100 or nil, clip = kind == "loss"},
          series = curves, width = width, height = math.floor(0.72 * width), legend = legend,
          id = ("%s-%s"):format(kind, axis.key)}}
      end
    end
  end
  return charts
end

--- Returns stacked bars of a step's time by stage; nil if no log has times.
---@param list atomo.Run[]
---@return {name: string, svg: string}?
function M.times(list, width)
  local names = {unpack(step_time.stages)}
  names[#names + 1] = "other"
  local rows = {}
  for _, run in ipairs(list) do
    local ms = runs.mean_times(run)
    if ms and ms.step then
      local parts, sum = {}, 0
      for _, part in ipairs(step_time.parts(ms)) do
        parts[part[1]] = part[2]
        sum = sum + part[2]
      end
      parts.other = math.max(0, ms.step - sum)
      rows[#rows + 1] = {name = run.name, parts = parts}
    end
  end
  if #rows == 0 then return nil end
  return {name = "step_time", svg = bars.stacked {title = "Time of a step on rank 0's main thread", width = width,
    parts = names, rows = rows, x = {label = "ms a step"}}}
end

--- Returns the layers of a run's last epoch that has them.
local function layers_of(run)
  for i = #run.epochs, 1, -1 do
    if type(run.epochs[i].layers) == "table" and #run.epochs[i].layers > 0 then return run.epochs[i].layers end
  end
end

--- Returns rows {name=, bar= dense bytes, by = {run's number -> layer}} in the order of the network: of the LAYERS
--- largest; and the number of those left out.
local function layer_rows(list)
  local rows, of = {}, {}
  for k, run in ipairs(list) do
    for _, layer in ipairs(layers_of(run) or {}) do
      local row = of[layer.name]
      if not row then
        row = {name = tostring(layer.name):gsub("^of (%d+ small gradients)$", "%1"), bar = layer.dense_bytes, by = {}}
        of[layer.name], rows[#rows + 1] = row, row
      end
      row.by[k] = layer
    end
  end
  local sizes = {}
  for i, row in ipairs(rows) do sizes[i] = row.bar or 0 end
  table.sort(sizes, function(a, b) return a > b end)
  local least, kept = sizes[LAYERS] or 0, {}
  for _, row in ipairs(rows) do
    if (row.bar or 0) >= least and #kept < LAYERS then kept[#kept + 1] = row end
  end
  return kept, #rows - #kept
end

--- Returns charts of bytes and variance by layer in the last step of the last epoch; none if no log has layers.
---@param list atomo.Run[]
---@return {name: string, svg: string}[]
function M.layers(list, width)
  local rows, left_out = layer_rows(list)
  if #rows == 0 then return {} end
  local bytes, variance = {}, {}
  for _, row in ipairs(rows) do
    local b, v = {name = row.name, bar = row.bar, dots = {}}, {name = row.name, dots = {}}
    for k, run in ipairs(list) do
      local layer = row.by[k]
      if layer and (layer.bytes or 0) > 0 then
        b.dots[#b.dots + 1] = {layer.bytes, k, ("%s: %s of %s%s"):format(run.name, log.bytes(layer.bytes),
          log.bytes(layer.dense_bytes), layer.family and ", " .. layer.family or "")}
      end
      if layer and (layer.square or 0) > 0 and (layer.variance or 0) > 0 then
        local relative = layer.variance / layer.square
        v.dots[#v.dots + 1] = {relative, k, ("%s: %.3g"):format(run.name, relative)}
      end
    end
    bytes[#bytes + 1] = b
    if #v.dots > 0 then variance[#variance + 1] = v end
  end
  local more = left_out > 0 and (", %d largest of %d"):format(#rows, #rows + left_out) or ""
  local charts = {{name = "layer_bytes", svg = bars.dots {title = "Bytes by tensor" .. more, width = width,
    rows = bytes, x = {label = "bytes of a message (gray: dense)", log = true}}}}
  if #variance > 0 then
    charts[2] = {name = "layer_variance", svg = bars.dots {title = "Relative variance by tensor" .. more, width = width,
      rows = variance, x = {label = "variance / squared norm of the gradient", log = true}}}
  end
  return charts
end

return M
