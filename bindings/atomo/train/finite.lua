--- Where numbers stop being finite: looked for at every stage of a step where they can (stages 3, 8 and 9), and named.
local T = require "atomo.tensor"

local M = {}

--- A text on the first of these tensors that has NaN or Inf entries; nil if none has.
---@param what string          "gradient of"
---@param tensors table        by 1 .. n; false or nil: none
---@param n integer
---@param names string[]|nil
---@return string?
function M.look(what, tensors, n, names)
  local i = T.find_nonfinite(tensors, n)
  if not i then return end
  local bad, first = tensors[i]:count_nonfinite()
  return ("%s %s: %d of %d entries are NaN or Inf, the first is number %d"):format(what,
    names and names[i] or "number " .. i, bad, tensors[i]:numel(), first)
end

--- A loss, of micro-batch k of a step.
---@return string?
function M.loss(value, k)
  if value ~= value or math.abs(value) == math.huge then
    return ("the loss is %g%s"):format(value, k > 1 and (" in micro-batch %d"):format(k) or "")
  end
end

--- On all ranks, the first rank's words: "rank 1: gradient of fc.weight: ..."; each gives its own, or nil. [collective]
---@return string
function M.told(comm, why)
  for r, text in ipairs(comm:allgatherv(why or "")) do
    if text ~= "" then return ("rank %d: %s"):format(r - 1, text) end
  end
  return ""
end

return M
