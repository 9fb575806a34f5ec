--- Objects whose fields are all made by their constructor: a field that is set later and was not made is refused. An
-- absent value is false, so that its field exists.
local raise = require("atomo.ffi").raise

--- Seals a class: its objects take no new fields once they have it as their metatable.
---@param class table
---@param name string  for messages
---@return table class
return function(class, name)
  class.__index = class.__index or class
  class.__newindex = function(_, key)
    raise(("%s: field '%s' is not made by the constructor"):format(name, tostring(key)))
  end
  return class
end
