--- tostring(tensor), as in Torch: the last two dimensions as matrices, then dtype and shape.
local T = require "atomo.tensor.core"
require "atomo.tensor.inspect"
local Tensor, element = T.Tensor, T.element

local function format_for(t)
  if t:dtype() ~= "f32" then return "%d" end
  local largest, whole = 0, true
  local n = math.min(t.h.numel, 10000)
  for i = 0, n - 1 do
    local a = math.abs(element(t, i))
    if a == a and a < math.huge then
      if a > largest then largest = a end
      if a % 1 ~= 0 then whole = false end
    end
  end
  if whole and largest < 1e7 then return "%.0f" end
  if largest >= 1e5 or (largest < 1e-3 and largest > 0) then return "%.4e" end
  return "%.4f"
end

local MAX_ROWS, MAX_COLS = 20, 12

--- Appends the lines of one matrix, columns aligned; "..." stands for rows and columns beyond the limits.
local function print_matrix(t, at, rows, cols, fmt, lines)
  local width, cells = 0, {}
  for r = 1, math.min(rows, MAX_ROWS) do
    cells[r] = {}
    for c = 1, math.min(cols, MAX_COLS) do
      local text = fmt:format(element(t, at + (r - 1) * cols + c - 1))
      cells[r][c] = text
      width = math.max(width, #text)
    end
  end
  for _, row in ipairs(cells) do
    for c, text in ipairs(row) do row[c] = (" "):rep(width - #text) .. text end
    lines[#lines + 1] = " " .. table.concat(row, "  ") .. (cols > MAX_COLS and "  ..." or "")
  end
  if rows > MAX_ROWS then lines[#lines + 1] = (" ... %d rows"):format(rows) end
end

Tensor.__tostring = function(self)
  local shape = self:shape()
  local tail = ("[atomo.Tensor %s %s]"):format(self:dtype(), #shape == 0 and "scalar" or table.concat(shape, "x"))
  if self.h.numel == 0 then return tail end
  local c = self:is_contiguous() and self or self:detach():contiguous()
  local fmt, lines = format_for(c), {}
  if #shape == 0 then return fmt:format(element(c, 0)) .. "\n" .. tail end
  local cols = shape[#shape]
  if #shape == 1 then
    for i = 1, math.min(cols, 100) do lines[i] = " " .. fmt:format(element(c, i - 1)) end
    if cols > 100 then lines[#lines + 1] = (" ... %d elements"):format(cols) end
  else
    local rows = shape[#shape - 1]
    local blocks = self.h.numel / (rows * cols)
    for b = 0, math.min(blocks, 8) - 1 do
      if #shape > 2 then
        local index, rest = {}, b
        for d = #shape - 2, 1, -1 do
          index[d] = rest % shape[d] + 1
          rest = math.floor(rest / shape[d])
        end
        lines[#lines + 1] = ("(%s,.,.) ="):format(table.concat(index, ","))
      end
      print_matrix(c, b * rows * cols, rows, cols, fmt, lines)
    end
    if blocks > 8 then lines[#lines + 1] = ("... %d matrices"):format(blocks) end
  end
  lines[#lines + 1] = tail
  return table.concat(lines, "\n")
end

return T
