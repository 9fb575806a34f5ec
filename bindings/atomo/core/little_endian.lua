--- Whole numbers as bytes, the lowest first, for headers of files.
local M = {}

--- Returns v, a whole number >= 0, as n bytes.
---@param n integer
---@param v number
---@return string
function M.encode(n, v)
  local list = {}
  for i = 1, n do
    list[i] = string.char(v % 256)
    v = math.floor(v / 256)
  end
  return table.concat(list)
end

--- Returns the number in the n bytes of text from byte `at` (from 1) on; bytes behind the text's end count as 0.
---@param text string
---@param at integer
---@param n integer
---@return number
function M.decode(text, at, n)
  local v = 0
  for i = at + n - 1, at, -1 do v = v * 256 + (text:byte(i) or 0) end
  return v
end

return M
