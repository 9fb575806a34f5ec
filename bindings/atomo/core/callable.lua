--- Checks of arguments that must be functions, such as that of no_grad, before anything is done with them.
local raise = require("atomo.ffi").raise

local function kind_of(v)
  local meta = type(v) == "table" and getmetatable(v)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return name and "a " .. name or v == nil and "nothing" or "a " .. type(v)
end

--- Returns v if it is a function, or can be called like one (a module); else raises.
---@param who string  the caller, for errors
---@param v any
return function(who, v)
  if type(v) == "function" then return v end
  local meta = type(v) == "table" and getmetatable(v)
  if type(meta) == "table" and meta.__call then return v end
  raise(("%s: expected a function, got %s"):format(who, kind_of(v)))
end
