--- Classes whose objects get all fields in their constructor: assigning or reading another field later raises. An
-- absent value is stored as false, so that its field exists.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"
local strict_fields = require "atomo.core.fields"

--- Seals a class: an object accepts no new fields once the class is its metatable.
---@param class table
---@param name string  for error texts
---@param fields string?  public ones, and absent: names that may be nil (core/fields.lua)
---@param absent string?
---@return table class
return function(class, name, fields, absent)
  class.__index = class.__index or class
  class.__newindex = function(_, key)
    raise(("%s: field '%s' is not made by the constructor"):format(name, brief(key)))
  end
  return strict_fields(class, name, fields, absent)
end
