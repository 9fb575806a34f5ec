--- Line charts as SVG: labelled axes, linear or logarithmic, a legend, colours that colour-blind people can
-- distinguish, and one marker per series (stage 10).
local f = require "atomo.ffi"
local files = require "atomo.core.files"
local raise = f.raise

local M = {}

local colours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"} -- Okabe, Ito
local LEFT, RIGHT, TOP, BOTTOM, LEGEND = 76, 16, 44, 58, 210

local function escape(s) return (tostring(s):gsub("[&<>\"]", {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;",
  ["\""] = "&quot;"})) end

--- 12000 -> "12 k"; 0.0001 -> "1e-4"
local function tick_text(v)
  local a = math.abs(v)
  if a >= 1e9 then return ("%g G"):format(v / 1e9) end
  if a >= 1e6 then return ("%g M"):format(v / 1e6) end
  if a >= 1e3 then return ("%g k"):format(v / 1e3) end
  if a == 0 then return "0" end -- v may be -0
  if a < 1e-3 then return (("%.0e"):format(v):gsub("e%-0", "e-")) end
  return ("%g"):format(v)
end

--- Returns the least and largest value of coordinate k over all series, slightly extended. Logarithms on a log axis.
local function range_of(axis, series, k)
  local low, high = math.huge, -math.huge
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do low, high = math.min(low, p[k]), math.max(high, p[k]) end
  end
  if low > high then low, high = 1, 10 end
  if axis.log then
    local room = math.max(0.05 * math.log10(high / low), 0.05)
    return math.log10(low) - room, math.log10(high) + room
  end
  local room = math.max(0.05 * (high - low), 1e-9 + 0.05 * math.abs(high))
  return low - room, high + room
end

--- Returns the ticks of an axis from low to high (logarithms on a log axis): {value, is it labelled?}.
local function ticks_of(axis, low, high)
  local list = {}
  if axis.log then
    local wide = high - low > 4
    for e = math.floor(low), math.ceil(high) do
      for m = 1, 9 do
        local v = m * 10 ^ e
        local at = math.log10(v)
        if at >= low and at <= high then
          list[#list + 1] = {v, m == 1 or (not wide and (m == 2 or m == 5))}
        end
      end
    end
  else
    local step = 10 ^ math.floor(math.log10((high - low) / 4))
    for _, m in ipairs {5, 2} do if (high - low) / (step * m) >= 4 then step = step * m break end end
    for k = math.ceil(low / step), math.floor(high / step) do list[#list + 1] = {k * step, true} end
  end
  return list
end

--- Returns marker number k at (x, y).
local function marker(k, x, y, colour)
  local shape = (k - 1 + math.floor((k - 1) / #colours)) % 4 -- a new combination when the colours repeat
  if shape == 0 then return ('<circle cx="%.1f" cy="%.1f" r="4.2" fill="%s"/>'):format(x, y, colour) end
  local points = shape == 1 and {-4, -4, 4, -4, 4, 4, -4, 4} or shape == 2 and {0, -5, 5, 4, -5, 4}
    or {0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0}
  local text = {}
  for i = 1, #points, 2 do text[#text + 1] = ("%.1f,%.1f"):format(x + points[i], y + points[i + 1]) end
  return ('<polygon points="%s" fill="%s"/>'):format(table.concat(text, " "), colour)
end

local function text_at(x, y, text, more)
  return ('<text x="%.1f" y="%.1f" %s>%s</text>'):format(x, y, more or "", escape(text))
end

--- Draws grid, ticks and labels of both axes.
local function draw_axes(out, chart, box, place)
  for _, t in ipairs(ticks_of(chart.x, box.x0, box.x1)) do
    local x = place.x(t[1])
    out[#out + 1] = ('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/>'):format(x, x, box.top, box.bottom,
      t[2] and "#d0d0d0" or "#f0f0f0")
    if t[2] then out[#out + 1] = text_at(x, box.bottom + 18, tick_text(t[1]), 'text-anchor="middle"') end
  end
  for _, t in ipairs(ticks_of(chart.y, box.y0, box.y1)) do
    local y = place.y(t[1])
    out[#out + 1] = ('<line y1="%.1f" y2="%.1f" x1="%d" x2="%d" stroke="%s"/>'):format(y, y, box.left, box.right,
      t[2] and "#d0d0d0" or "#f0f0f0")
    if t[2] then out[#out + 1] = text_at(box.left - 8, y + 4, tick_text(t[1]), 'text-anchor="end"') end
  end
  out[#out + 1] = ('<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#404040"/>'):format(box.left,
    box.top, box.right - box.left, box.bottom - box.top)
  local across, down = (box.left + box.right) / 2, (box.top + box.bottom) / 2
  out[#out + 1] = text_at(across, box.bottom + 42, chart.x.label or "", 'text-anchor="middle" font-size="14"')
  out[#out + 1] = ('<g transform="translate(20 %.1f) rotate(-90)">%s</g>'):format(down,
    text_at(0, 0, chart.y.label or "", 'text-anchor="middle" font-size="14"'))
end

local function draw_series(out, series, place, box)
  for k, s in ipairs(series) do
    local colour, line = colours[(k - 1) % #colours + 1], {}
    local dash = k > #colours and ' stroke-dasharray="5 3"' or ""
    for _, p in ipairs(s.points) do line[#line + 1] = ("%.1f,%.1f"):format(place.x(p[1]), place.y(p[2])) end
    out[#out + 1] = ('<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"%s/>'):format(
      table.concat(line, " "), colour, dash)
    for _, p in ipairs(s.points) do out[#out + 1] = marker(k, place.x(p[1]), place.y(p[2]), colour) end
    local y = box.top + 12 + 20 * (k - 1)
    out[#out + 1] = ('<line x1="%d" x2="%d" y1="%d" y2="%d" stroke="%s" stroke-width="1.6"%s/>'):format(box.right + 14,
      box.right + 42, y, y, colour, dash)
    out[#out + 1] = marker(k, box.right + 28, y, colour)
    out[#out + 1] = text_at(box.right + 50, y + 4, s.name)
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
    if #points > 0 then list[#list + 1] = {name = s.name, points = points} end
  end
  return list
end

---@class atomo.Chart
---@field title string?
---@field x {label: string?, log: boolean?}
---@field y {label: string?, log: boolean?}
---@field series {name: string, points: number[][]}[]   points {x, y}, joined in their order
---@field width integer?
---@field height integer?

--- Returns the chart as the text of an SVG file.
---@param chart atomo.Chart
---@return string
function M.svg(chart)
  if type(chart) ~= "table" or type(chart.series) ~= "table" then raise "plot: expected {x=, y=, series={...}}" end
  local series = drawable(chart)
  local legend = LEGEND
  for _, s in ipairs(series) do legend = math.max(legend, 66 + 7 * #s.name) end -- about 7 pixels per letter
  local width = (chart.width or 900) + legend - LEGEND
  local height = math.max(chart.height or 520, TOP + BOTTOM + 20 * #series)
  local box = {left = LEFT, top = TOP, right = width - RIGHT - legend, bottom = height - BOTTOM}
  box.x0, box.x1 = range_of(chart.x, series, 1)
  box.y0, box.y1 = range_of(chart.y, series, 2)
  local function scale(axis, v0, v1, at0, at1)
    return function(v)
      if axis.log then v = math.log10(v) end
      return at0 + (v - v0) / (v1 - v0) * (at1 - at0)
    end
  end
  local place = {x = scale(chart.x, box.x0, box.x1, box.left, box.right),
    y = scale(chart.y, box.y0, box.y1, box.bottom, box.top)}
  local out = {
    ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" ' ..
      'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12">'):format(width, height, width, height),
    ('<rect width="%d" height="%d" fill="white"/>'):format(width, height),
    text_at(LEFT, 26, chart.title or "", 'font-size="16"'),
  }
  draw_axes(out, chart, box, place)
  draw_series(out, series, place, box)
  out[#out + 1] = "</svg>\n"
  return table.concat(out, "\n")
end

--- Writes path.svg; also path.png if rsvg-convert or ImageMagick's convert is installed and MPI does not run (a rank
--- must not start processes). Returns the paths written.
---@param path string  path without extension
---@param chart atomo.Chart
---@return string[]
function M.save(path, chart)
  files.save("plot", path .. ".svg", M.svg(chart))
  if f.C.atomo_mpi_started() == 1 then return {path .. ".svg"} end
  local quoted = "'" .. path:gsub("'", "'\\''") .. "'"
  for _, command in ipairs {"rsvg-convert -z 2 -o %s.png %s.svg", "convert -density 192 %s.svg %s.png"} do
    if os.execute(("command -v %s >/dev/null 2>&1"):format(command:match "^%S+")) == 0 and
      os.execute(command:format(quoted, quoted) .. " 2>/dev/null") == 0 then
      return {path .. ".svg", path .. ".png"}
    end
  end
  return {path .. ".svg"}
end

return M
