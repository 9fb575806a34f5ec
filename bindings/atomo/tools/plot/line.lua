--- The curves of a chart: few markers, and dashes where a curve hides another one.
local M = {}

M.colours = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"} -- Okabe, Ito

local MARKERS = 8 -- of a curve with many points

--- Returns marker number k at (x, y).
---@param k integer
---@param colour string
---@param size number?  factor, default 1
function M.marker(k, x, y, colour, size)
  size = size or 1
  local shape = (k - 1 + math.floor((k - 1) / #M.colours)) % 4 -- a new combination when the colours repeat
  if shape == 0 then return ('<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>'):format(x, y, 4.2 * size, colour) end
  local points = shape == 1 and {-4, -4, 4, -4, 4, 4, -4, 4} or shape == 2 and {0, -5, 5, 4, -5, 4}
    or {0, -5.5, 5.5, 0, 0, 5.5, -5.5, 0}
  local text = {}
  for i = 1, #points, 2 do
    text[#text + 1] = ("%.1f,%.1f"):format(x + size * points[i], y + size * points[i + 1])
  end
  return ('<polygon points="%s" fill="%s"/>'):format(table.concat(text, " "), colour)
end

--- Returns the indices of the points with markers: all of a few, else MARKERS of them, at other places for each series,
--- so that markers of curves that coincide do not hide each other.
---@param n integer      number of points
---@param k integer      number of the series
---@param count integer  number of series
function M.marked(n, k, count)
  local list = {}
  if n <= MARKERS + 2 then
    for i = 1, n do list[i] = i end
    return list
  end
  local every = n / MARKERS
  for i = 0, MARKERS - 1 do
    list[#list + 1] = math.min(n, 1 + math.floor((i + (k - 0.5) / math.max(count, 1)) * every))
  end
  return list
end

--- Do two lines of pixel positions coincide: do most points of b lie on a point of a?
local function coincide(a, b)
  local at, shared = {}, 0
  for _, p in ipairs(a) do at[math.floor(p[1] + 0.5)] = p[2] end
  for _, p in ipairs(b) do
    local y = at[math.floor(p[1] + 0.5)]
    if y and math.abs(y - p[2]) < 1.5 then shared = shared + 1 end
  end
  return #b > 1 and shared >= 0.7 * #b
end

--- Returns the stroke-dasharray of each line, false for a solid one. A line that coincides with earlier ones is dashed,
--- so that their colours show in its gaps.
---@param lines number[][][]  positions {x, y} in pixels, by series
function M.dashes(lines)
  local list = {}
  for k, line in ipairs(lines) do
    local below = 0
    for j = 1, k - 1 do
      if coincide(lines[j], line) then below = below + 1 end
    end
    list[k] = below > 0 and ("9 %d"):format(9 * below) or false
  end
  return list
end

return M
