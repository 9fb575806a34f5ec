--- Horizontal bars made of parts, one bar a row, and dots by row: charts whose y axis is a list of names.
local curve = require "atomo.tools.plot.line"
local scale = require "atomo.tools.plot.scale"
local svg = require "atomo.tools.plot.svg"

local M = {}

local TOP, BOTTOM, ROW, GAP = 40, 52, 24, 14

--- Colours of parts; names stay readable on them.
M.colours = {data = "#BBBBBB", forward = "#66CCEE", backward = "#4477AA", encode = "#CCBB44", exchange = "#EE6677",
  decode = "#AA8822", update = "#228833", other = "#E6E6E6"}

--- Width of the column of names in pixels, at most `most`.
local function names_width(rows, most)
  local width = 60
  for _, row in ipairs(rows) do width = math.max(width, svg.width(row.name) + 16) end
  return math.min(width, most)
end

--- Returns name, shortened in the middle to a width in pixels.
local function fitting(name, width)
  local most = math.max(8, math.floor(width / 7))
  if #name <= most then return name end
  local half = math.floor((most - 3) / 2)
  return name:sub(1, half) .. "..." .. name:sub(-half)
end

--- Draws the x axis: grid lines, ticks below, a label.
local function draw_axis(out, axis, box, place)
  local ticks, step = scale.ticks(axis, box.x0, box.x1)
  for _, t in ipairs(ticks) do
    local x = place(t[1])
    out[#out + 1] = svg.line(x, box.top, x, box.bottom, t[2] and "#d0d0d0" or "#f0f0f0")
    if t[2] then out[#out + 1] = svg.text(x, box.bottom + 16, scale.text(t[1], step), 'text-anchor="middle"') end
  end
  out[#out + 1] = svg.text((box.left + box.right) / 2, box.bottom + 38, axis.label or "",
    'text-anchor="middle" font-size="14"')
end

local function placer(axis, box)
  return function(v)
    if axis.log then v = math.log10(v) end
    return box.left + (v - box.x0) / (box.x1 - box.x0) * (box.right - box.left)
  end
end

--- Returns stacked bars as SVG: chart = {title=, x = {label=}, width=, parts = names in order, rows = {{name=, parts =
--- {name = value}}, ...}}. The legend is above the bars.
---@param chart table
---@return string
function M.stacked(chart)
  local width, rows = chart.width or 900, chart.rows
  local left = names_width(rows, 300)
  local height = TOP + 26 + #rows * (ROW + GAP) + BOTTOM
  local box = {left = left, right = width - 60, top = TOP + 26, bottom = height - BOTTOM, x0 = 0, x1 = 0}
  for _, row in ipairs(rows) do
    row.sum = 0
    for _, name in ipairs(chart.parts) do row.sum = row.sum + (row.parts[name] or 0) end
    box.x1 = math.max(box.x1, row.sum)
  end
  if box.x1 == 0 then box.x1 = 1 end
  local place = placer(chart.x, box)
  local out = {svg.head(width, height), svg.text(16, 26, chart.title or "", 'font-size="16"')}
  local at = left
  for _, name in ipairs(chart.parts) do
    out[#out + 1] = ('<rect x="%d" y="%d" width="12" height="12" fill="%s"/>'):format(at, TOP + 2, M.colours[name])
    out[#out + 1] = svg.text(at + 17, TOP + 12, name)
    at = at + 34 + svg.width(name)
  end
  draw_axis(out, chart.x, box, place)
  for i, row in ipairs(rows) do
    local y, x = box.top + (i - 1) * (ROW + GAP) + GAP / 2, 0
    out[#out + 1] = svg.text(left - 8, y + 16, fitting(row.name, left - 16), 'text-anchor="end"')
    for _, name in ipairs(chart.parts) do
      local v = row.parts[name] or 0
      if v > 0 then
        out[#out + 1] = ('<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"><title>%s: %.1f</title></rect>'
          ):format(place(x), y, place(x + v) - place(x), ROW, M.colours[name], name, v)
      end
      x = x + v
    end
    out[#out + 1] = svg.text(place(row.sum) + 6, y + 16, ("%.1f"):format(row.sum))
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

--- Returns dots by row as SVG: chart = {title=, x = {label=, log=}, width=, rows = {{name=, dots = {{x, series number,
--- text}}, bar = number?}}, ...}}. bar: what the dots are compared with, a gray bar.
---@param chart table
---@return string
function M.dots(chart)
  local width, rows, high = chart.width or 900, chart.rows, 17
  local left = names_width(rows, 260)
  local height = TOP + #rows * high + BOTTOM
  local box = {left = left, right = width - 24, top = TOP, bottom = height - BOTTOM}
  local series = {}
  for _, row in ipairs(rows) do
    for _, dot in ipairs(row.dots) do series[#series + 1] = {points = {{dot[1], 0}}} end
    if row.bar then series[#series + 1] = {points = {{row.bar, 0}}} end
  end
  box.x0, box.x1 = scale.range(chart.x, series, 1)
  local place = placer(chart.x, box)
  local out = {svg.head(width, height), svg.text(16, 26, chart.title or "", 'font-size="16"')}
  draw_axis(out, chart.x, box, place)
  for i, row in ipairs(rows) do
    local y = TOP + (i - 0.5) * high
    out[#out + 1] = svg.line(left, y, box.right, y, "#e8e8e8")
    if row.bar then
      out[#out + 1] = svg.line(left, y, place(row.bar), y, "#d4d4d4", 'stroke-width="7"')
    end
    out[#out + 1] = svg.text(left - 8, y + 4, fitting(row.name, left - 16), 'text-anchor="end"')
    for _, dot in ipairs(row.dots) do
      local colour = curve.colours[(dot[2] - 1) % #curve.colours + 1]
      out[#out + 1] = ('<g class="run-%d"><title>%s</title>%s</g>'):format(dot[2], svg.escape(dot[3]),
        curve.marker(dot[2], place(dot[1]), y, colour))
    end
  end
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

return M
