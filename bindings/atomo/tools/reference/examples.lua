--- Runs the examples of the reference: lines of ---@usage. "EXPRESSION --> TEXT" says what tostring of the expression's
-- first value is.
local M = {}

local COMMON = "local atomo = require " ..
  '"atomo"\nlocal nn, F, optim = atomo.nn, atomo.F, atomo.optim\n'

--- Returns the lines that the examples of a page begin with.
---@param page table
---@return string
function M.prelude(page) return COMMON .. (page.prelude or "") end

--- Runs the example of an entry. Returns nil, or the text of an error.
---@param page table
---@param entry table
---@return string?
function M.run(page, entry)
  local code = table.concat(entry.usage, "\n")
  local expression, expected = code:match "^(.*)%s%-%->%s(.*)$"
  local program = M.prelude(page) .. "\n" .. (expression and "return " .. expression or code)
  local chunk, why = loadstring(program, "=" .. entry.name)
  if not chunk then return why end
  local ok, value = pcall(chunk)
  if not ok then return tostring(value) end
  if expected and tostring(value) ~= expected then
    return ("%s: the example gives %s, its text says %s"):format(entry.name, tostring(value), expected)
  end
end

return M
