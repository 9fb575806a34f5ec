--- The named fields of a value at the prompt, for help and completion.
local own_fields = require "atomo.core.own_fields"

--- Returns name -> value of a table's fields, of those that it loads on first use, and of its class.
---@param x any
---@return table<string, any>
return function(x)
  local all = {}
  local function add(fields)
    for name, value in next, fields do
      if type(name) == "string" and not name:match "^_" and all[name] == nil then all[name] = value end
    end
  end
  if type(x) == "table" then add(own_fields(x)) end
  local meta = debug.getmetatable(x)
  if type(meta) ~= "table" then return all end
  local class = rawget(meta, "__index")
  add(type(class) == "table" and class or meta)
  return all
end
