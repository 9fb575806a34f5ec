--- Finds NaN and Inf at the stages of a step where they can first appear (stages 3, 8 and 9), and describes them.
local T = require "atomo.tensor"

local M = {}

--- Returns a text about the first tensor with NaN or Inf entries; nil if all are finite.
---@param what string          first words of the text, "gradient of"
---@param tensors table        tensors 1 .. n; false or nil is skipped
---@param n integer
---@param names string[]|nil   names of the tensors
---@return string?
function M.look(what, tensors, n, names)
  local i = T.find_nonfinite(tensors, n)
  if not i then return end
  local bad, first = tensors[i]:count_nonfinite()
  return ("%s %s: %d of %d entries are NaN or Inf, the first is number %d"):format(what,
    names and names[i] or "number " .. i, bad, tensors[i]:numel(), first)
end

--- Returns a text about the loss of micro-batch k if it is NaN or Inf, else nil.
---@return string?
function M.loss(value, k)
  if value ~= value or math.abs(value) == math.huge then
    return ("the loss is %g%s"):format(value, k > 1 and (" in micro-batch %d"):format(k) or "")
  end
end

--- Returns on all ranks the text of the first rank that has one: "rank 1: gradient of fc.weight: ...". why: this rank's
--- text or nil. [collective]
---@return string
function M.told(comm, why)
  for r, text in ipairs(comm:allgatherv(why or "")) do
    if text ~= "" then return ("rank %d: %s"):format(r - 1, text) end
  end
  return ""
end

return M
