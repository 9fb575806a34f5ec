--- Tables of options: a name that is not known is refused, with the nearest one that is.
local raise = require("atomo.ffi").raise
local suggest = require "atomo.suggest"

local M = {}

--- Raises for an option that there is not.
---@param who string  whose option: "conv2d"
---@param name any
---@param names string[]  that there are
function M.unknown(who, name, names)
  table.sort(names)
  local near = suggest(tostring(name), names)
  raise(("%s: unknown option '%s', options are %s%s"):format(who, tostring(name),
    #names > 0 and table.concat(names, ", ") or "none", near and (" (did you mean '%s'?)"):format(near) or ""))
end

local function names_of(...)
  local names = {}
  for i = 1, select("#", ...) do
    for k in pairs((select(i, ...))) do names[#names + 1] = k end
  end
  return names
end

--- Raises unless opts is a table whose keys are all in one of the tables that follow.
function M.check(who, opts, ...)
  if type(opts) ~= "table" then raise(("%s: options are a %s, expected a table"):format(who, type(opts))) end
  for name in pairs(opts) do
    local found = false
    for i = 1, select("#", ...) do
      if (select(i, ...))[name] ~= nil then found = true end
    end
    if not found then M.unknown(who, name, names_of(...)) end
  end
end

return M
