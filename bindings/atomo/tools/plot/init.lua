--- Line charts as SVG: labelled axes that fit the data, linear or logarithmic, a legend, colours that colour-blind
-- people can distinguish, and one kind of marker per series (stage 10).
local f = require "atomo.ffi"
local files = require "atomo.core.files"
local shell_words = require "atomo.core.shell_words"
local curve = require "atomo.tools.plot.line"
local scale = require "atomo.tools.plot.scale"
local svg = require "atomo.tools.plot.svg"
local raise = f.raise

local M = {}

local colours = curve.colours
local LEFT, RIGHT, TOP, BOTTOM, LEGEND = 76, 16, 44, 58, 210

--- Draws grid, ticks and labels of both axes.
local function draw_axes(out, chart, box, place)
  local ticks, step = scale.ticks(chart.x, box.x0, box.x1)
  for _, t in ipairs(ticks) do
    local x = place.x(t[1])
    out[#out + 1] = svg.line(x, box.top, x, box.bottom, t[2] and "#d0d0d0" or "#f0f0f0")
    if t[2] then out[#out + 1] = svg.text(x, box.bottom + 18, scale.text(t[1], step), 'text-anchor="middle"') end
  end
  ticks, step = scale.ticks(chart.y, box.y0, box.y1)
  for _, t in ipairs(ticks) do
    local y = place.y(t[1])
    out[#out + 1] = svg.line(box.left, y, box.right, y, t[2] and "#d0d0d0" or "#f0f0f0")
    if t[2] then out[#out + 1] = svg.text(box.left - 8, y + 4, scale.text(t[1], step), 'text-anchor="end"') end
  end
  out[#out + 1] = ('<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#404040"/>'):format(box.left,
    box.top, box.right - box.left, box.bottom - box.top)
  local across, down = (box.left + box.right) / 2, (box.top + box.bottom) / 2
  out[#out + 1] = svg.text(across, box.bottom + 42, chart.x.label or "", 'text-anchor="middle" font-size="14"')
  out[#out + 1] = ('<g transform="translate(20 %.1f) rotate(-90)">%s</g>'):format(down,
    svg.text(0, 0, chart.y.label or "", 'text-anchor="middle" font-size="14"'))
end

--- Returns colour, width and dashes of series k as attributes of a line.
local function stroke_of(s, k, dash)
  local number = s.colour or k
  local repeated = not s.colour and number > #colours and "5 3"
  dash = dash or repeated
  return ('stroke="%s" stroke-width="%s"%s%s'):format(colours[(number - 1) % #colours + 1], s.thin and "1.1" or "1.8",
    s.thin and ' stroke-opacity="0.55"' or "", dash and (' stroke-dasharray="%s"'):format(dash) or ""), number
end

local function draw_series(out, chart, series, place, box)
  local lines = {}
  for k, s in ipairs(series) do
    lines[k] = {}
    for i, p in ipairs(s.points) do lines[k][i] = {place.x(p[1]), place.y(p[2])} end
  end
  local dashes = curve.dashes(lines)
  for k, s in ipairs(series) do
    local stroke, number = stroke_of(s, k, dashes[k])
    local colour, text = colours[(number - 1) % #colours + 1], {}
    for i, p in ipairs(lines[k]) do text[i] = ("%.1f,%.1f"):format(p[1], p[2]) end
    out[#out + 1] = s.group and ('<g class="%s">'):format(svg.escape(s.group)) or "<g>"
    out[#out + 1] = ('<g clip-path="url(#%s)"><title>%s</title>'):format(chart.id or "plot", svg.escape(s.name))
    out[#out + 1] = ('<polyline points="%s" fill="none" %s/>'):format(table.concat(text, " "), stroke)
    for _, i in ipairs(s.thin and {} or curve.marked(#lines[k], k, #series)) do
      out[#out + 1] = curve.marker(number, lines[k][i][1], lines[k][i][2], colour, dashes[k] and 0.6)
    end
    out[#out + 1] = "</g>"
    if chart.legend ~= false then
      local y = box.top + 12 + 20 * (k - 1)
      out[#out + 1] = svg.line(box.right + 14, y, box.right + 42, y, colour, stroke:match "stroke%-width.*")
      if not s.thin then out[#out + 1] = curve.marker(number, box.right + 28, y, colour) end
      out[#out + 1] = svg.text(box.right + 50, y + 4, s.name)
    end
    out[#out + 1] = "</g>"
  end
end

--- Returns the series without points that a logarithmic axis cannot show, and without series that then have none.
local function drawable(chart)
  local list = {}
  for _, s in ipairs(chart.series) do
    local points = {}
    for _, p in ipairs(s.points) do
      if not (chart.x.log and p[1] <= 0) and not (chart.y.log and p[2] <= 0) and p[1] == p[1] and p[2] == p[2] then
        points[#points + 1] = p
      end
    end
    if #points > 0 then
      list[#list + 1] = {name = s.name, points = points, colour = s.colour, thin = s.thin, group = s.group}
    end
  end
  return list
end

---@class atomo.Chart
---@field title string?
---@field x {label: string?, log: boolean?, clip: boolean?, most: number?}  clip: leave spikes out; most: a bound
---@field y {label: string?, log: boolean?, clip: boolean?, most: number?}
---@field series {name: string, points: number[][], colour: integer?, thin: boolean?, group: string?}[]  points {x, y},
--- joined in their order; colour: its number, so that two curves of one run share it; thin: a thin line without
--- markers; group: class of its SVG group
---@field width integer?
---@field height integer?
---@field legend boolean?  false: none
---@field id string?       of its clip path, unique in a page; default "plot"

--- Returns the chart as the text of an SVG file.
---@param chart atomo.Chart
---@return string
function M.svg(chart)
  if type(chart) ~= "table" or type(chart.series) ~= "table" then raise "plot: expected {x=, y=, series={...}}" end
  local series = drawable(chart)
  local legend = chart.legend == false and 0 or LEGEND
  for _, s in ipairs(legend > 0 and series or {}) do legend = math.max(legend, 66 + svg.width(s.name)) end
  local width = (chart.width or 900) + (legend > 0 and legend - LEGEND or 0)
  local height = math.max(chart.height or 520, TOP + BOTTOM + (legend > 0 and 20 * #series or 0))
  local box = {left = LEFT, top = TOP, right = width - RIGHT - legend, bottom = height - BOTTOM}
  box.x0, box.x1 = scale.range(chart.x, series, 1)
  box.y0, box.y1 = scale.range(chart.y, series, 2)
  local function placed(axis, v0, v1, at0, at1)
    return function(v)
      if axis.log then v = math.log10(v) end
      return at0 + (v - v0) / (v1 - v0) * (at1 - at0)
    end
  end
  local place = {x = placed(chart.x, box.x0, box.x1, box.left, box.right),
    y = placed(chart.y, box.y0, box.y1, box.bottom, box.top)}
  local out = {
    svg.head(width, height), svg.text(LEFT, 26, chart.title or "", 'font-size="16"'),
    ('<clipPath id="%s"><rect x="%d" y="%d" width="%d" height="%d"/></clipPath>'):format(chart.id or "plot",
      box.left - 6, box.top, box.right - box.left + 12, box.bottom - box.top + 6),
  }
  draw_axes(out, chart, box, place)
  draw_series(out, chart, series, place, box)
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

--- Writes an SVG text to path.svg; also path.png if rsvg-convert or ImageMagick's convert is installed and MPI does not
--- run (a rank must not start processes). Returns the paths written.
---@param path string  path without extension
---@param text string
---@return string[]
function M.save_svg(path, text)
  files.save("plot", path .. ".svg", text)
  if f.C.atomo_mpi_started() == 1 then return {path .. ".svg"} end
  local quoted = shell_words.quote(path)
  for _, command in ipairs {"rsvg-convert -z 2 -o %s.png %s.svg", "convert -density 192 %s.svg %s.png"} do
    if os.execute(("command -v %s >/dev/null 2>&1"):format(command:match "^%S+")) == 0 and
      os.execute(command:format(quoted, quoted) .. " 2>/dev/null") == 0 then
      return {path .. ".svg", path .. ".png"}
    end
  end
  return {path .. ".svg"}
end

--- Writes a chart, as save_svg does.
---@param path string
---@param chart atomo.Chart
---@return string[]
function M.save(path, chart) return M.save_svg(path, M.svg(chart)) end

return M
