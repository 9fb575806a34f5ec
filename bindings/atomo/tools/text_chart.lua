--- Line charts in characters, for a terminal.
local scale = require "atomo.tools.plot.scale"

local M = {}

local marks = {"*", "o", "+", "x", "#", "@", "%", "&"}

--- Returns the character of series k.
---@param k integer
function M.mark(k) return marks[(k - 1) % #marks + 1] end

--- Returns a grid of `rows` rows and `columns` columns with every series' points; between two points of a series a
--- straight line is drawn. Later series lie on earlier ones.
local function grid_of(series, columns, rows, x0, x1, y0, y1)
  local grid = {}
  for r = 1, rows do grid[r] = {} end
  local function cell(p)
    local c = 1 + math.floor((p[1] - x0) / (x1 - x0) * (columns - 1) + 0.5)
    return c, math.max(1, math.min(rows, rows - math.floor((p[2] - y0) / (y1 - y0) * (rows - 1) + 0.5)))
  end
  for k, s in ipairs(series) do
    local c0, r0
    for _, p in ipairs(s.points) do
      local c, r = cell(p)
      local from, steps = c0 or c, math.max(math.abs(c - (c0 or c)), math.abs(r - (r0 or r)), 1)
      for i = 0, steps do
        local column = math.floor(from + (c - from) * i / steps + 0.5)
        local row = math.floor((r0 or r) + (r - (r0 or r)) * i / steps + 0.5)
        grid[row][column] = M.mark(s.number or k)
      end
      c0, r0 = c, r
    end
  end
  return grid
end

--- Returns the lines of a chart: title, rows with an axis at the left, the x axis with its ends and label.
---@param chart {title: string?, x: {label: string?}, y: table?, series: {points: number[][], number: integer?}[],
--- width: integer, height: integer}  width and height in characters, the axes included
---@return string[]
function M.lines(chart)
  local left, rows = 9, math.max(4, chart.height - 3)
  local columns = math.max(16, chart.width - left - 2)
  local x0, x1, y0, y1 = math.huge, -math.huge, scale.range(chart.y or {}, chart.series, 2)
  for _, s in ipairs(chart.series) do
    for _, p in ipairs(s.points) do x0, x1 = math.min(x0, p[1]), math.max(x1, p[1]) end
  end
  if x0 >= x1 then x0, x1 = x0 == math.huge and 0 or x0 - 1, x1 == -math.huge and 1 or x1 + 1 end
  local grid, lines = grid_of(chart.series, columns, rows, x0, x1, y0, y1), {chart.title}
  local ticks, step = scale.ticks({}, y0, y1)
  local labels = {}
  for _, t in ipairs(ticks) do
    labels[rows - math.floor((t[1] - y0) / (y1 - y0) * (rows - 1) + 0.5)] = scale.text(t[1], step)
  end
  for r = 1, rows do
    local text = {}
    for c = 1, columns do text[c] = grid[r][c] or (labels[r] and c % 4 == 1 and "." or " ") end
    local label = labels[r] or ""
    lines[#lines + 1] = (("%" .. left .. "s%s%s"):format(label, labels[r] and " +" or " |",
      table.concat(text)):gsub("%s+$", ""))
  end
  lines[#lines + 1] = (" "):rep(left) .. " +" .. ("-"):rep(columns)
  local first, last, label = scale.text(x0), scale.text(x1), chart.x.label or ""
  local gap = columns - #first - #last - #label
  local before = math.max(1, math.floor(gap / 2))
  lines[#lines + 1] = (" "):rep(left + 2) .. first .. (" "):rep(before) .. label ..
    (" "):rep(math.max(1, gap - before)) .. last
  return lines
end

return M
