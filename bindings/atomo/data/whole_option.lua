--- The options of loaders that are whole numbers (stage 2).
local number = require "atomo.core.number"

--- Returns option `key`, a whole number of at least `least`; the default if it is absent. Raises for other values.
---@param what string  the loader, for error texts
---@param o table
---@param key string
---@param default integer
---@param least integer
---@return integer
return function(what, o, key, default, least)
  local v = o[key]
  if v == nil then v = default end
  return number.expect_whole(v, ("%s: %s"):format(what, key), least, key == "seed" and 2 ^ 53 or 2 ^ 31 - 1)
end
