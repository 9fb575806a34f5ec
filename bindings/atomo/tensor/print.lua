--- tostring(tensor), as in Torch: the last two dimensions as matrices, then dtype and shape. The middle of a long
--- dimension is left out.
local T = require "atomo.tensor.core"
require "atomo.tensor.inspect"
local C = require("atomo.ffi").C
local Tensor, element = T.Tensor, T.element

local LARGE = 1000 -- a tensor of more elements shows EDGE at each end of every dimension, as in PyTorch
local EDGE = 3
local MOST = {columns = 12, rows = 20, elements = 100, matrices = 8} -- of a smaller tensor

--- Returns the indices 0 to n - 1 that are shown of a dimension, and after how many of them "..." comes (nil: none).
local function shown(n, numel, most)
  local edge, list = numel > LARGE and EDGE or most / 2, {}
  for i = 0, math.min(n, 2 * edge) - 1 do list[i + 1] = (n <= 2 * edge or i < edge) and i or n - 2 * edge + i end
  return list, n > 2 * edge and edge or nil
end

--- Returns the format of numbers that fits every element shown.
local function format_for(t, offsets)
  if t.h.dtype == C.ATOMO_I32 or t.h.dtype == C.ATOMO_U8 then return "%d" end
  local largest, whole = 0, true
  for _, at in ipairs(offsets) do
    local a = math.abs(element(t, at))
    if a == a and a < math.huge then
      if a > largest then largest = a end
      if a % 1 ~= 0 then whole = false end
    end
  end
  if whole and largest < 1e7 then return "%.0f" end
  if largest >= 1e5 or (largest < 1e-3 and largest > 0) then return "%.4e" end
  return "%.4f"
end

--- Appends the lines of one matrix, columns aligned. cells: rows of texts.
local function print_matrix(cells, row_gap, column_gap, n_rows, lines)
  local width = 0
  for _, row in ipairs(cells) do
    for _, text in ipairs(row) do width = math.max(width, #text) end
  end
  for r, row in ipairs(cells) do
    for c, text in ipairs(row) do row[c] = (" "):rep(width - #text) .. text end
    if column_gap then table.insert(row, column_gap + 1, "...") end
    lines[#lines + 1] = " " .. table.concat(row, "  ")
    if r == row_gap then lines[#lines + 1] = (" ... %d rows"):format(n_rows) end
  end
end

--- Returns the number of a matrix as the indices of the leading dimensions: "(2,1,.,.) =".
local function title(b, shape)
  local index = {}
  for d = #shape - 2, 1, -1 do
    index[d] = b % shape[d] + 1
    b = math.floor(b / shape[d])
  end
  return ("(%s,.,.) ="):format(table.concat(index, ","))
end

local function print_vector(c, n, lines)
  local list, gap = shown(n, n, MOST.elements)
  local fmt = format_for(c, list)
  for i, at in ipairs(list) do
    lines[#lines + 1] = " " .. fmt:format(element(c, at))
    if i == gap then lines[#lines + 1] = (" ... %d elements"):format(n) end
  end
end

local function print_matrices(c, shape, lines)
  local numel, n_rows, n_columns = c.h.numel, shape[#shape - 1], shape[#shape]
  local n_matrices = numel / (n_rows * n_columns)
  local matrices, matrix_gap = shown(n_matrices, numel, MOST.matrices)
  local rows, row_gap = shown(n_rows, numel, MOST.rows)
  local columns, column_gap = shown(n_columns, numel, MOST.columns)
  local offsets = {}
  for _, b in ipairs(matrices) do
    for _, r in ipairs(rows) do
      for _, k in ipairs(columns) do offsets[#offsets + 1] = (b * n_rows + r) * n_columns + k end
    end
  end
  local fmt, at = format_for(c, offsets), 0
  for i, b in ipairs(matrices) do
    if #shape > 2 then lines[#lines + 1] = title(b, shape) end
    local cells = {}
    for r = 1, #rows do
      cells[r] = {}
      for k = 1, #columns do
        at = at + 1
        cells[r][k] = fmt:format(element(c, offsets[at]))
      end
    end
    print_matrix(cells, row_gap, column_gap, n_rows, lines)
    if i == matrix_gap then lines[#lines + 1] = ("... %d matrices"):format(n_matrices) end
  end
end

Tensor.__tostring = function(self)
  local shape, lines = self:shape(), {}
  local tail = ("[atomo.Tensor %s %s]"):format(self:dtype(), #shape == 0 and "scalar" or table.concat(shape, "x"))
  if self.h.numel == 0 then return tail end
  local c = self:detach()
  c = T.is_half(c) and c:to "f32" or c:contiguous()
  if #shape == 0 then return format_for(c, {0}):format(element(c, 0)) .. "\n" .. tail end
  if #shape == 1 then print_vector(c, shape[1], lines) else print_matrices(c, shape, lines) end
  lines[#lines + 1] = tail
  return table.concat(lines, "\n")
end

return T
