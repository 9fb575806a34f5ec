--- Checks that constructors of layers share.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"

local M = {}

--- Returns v, a whole number >= least (default 1); raises otherwise.
function M.count(layer, name, v, least)
  local n = number.whole(v, least or 1)
  if not n then raise(("%s: %s is %s, expected a whole number >= %d"):format(layer, name, brief(v), least or 1)) end
  return n
end

--- Returns v, a number from 0 to `most`; raises otherwise.
function M.within(layer, name, v, most)
  if type(v) ~= "number" or not (v >= 0 and v <= most) then
    raise(("%s: %s is %s, expected 0 to %g"):format(layer, name, brief(v), most))
  end
  return v
end

return M
