--- Classes whose objects get all fields in their constructor: assigning a new field later raises. An absent value is
-- stored as false, so that its field exists.
local raise = require("atomo.ffi").raise

--- Seals a class: an object accepts no new fields once the class is its metatable.
---@param class table
---@param name string  for error texts
---@return table class
return function(class, name)
  class.__index = class.__index or class
  class.__newindex = function(_, key)
    raise(("%s: field '%s' is not made by the constructor"):format(name, tostring(key)))
  end
  return class
end
