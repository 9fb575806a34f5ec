--- Functions that users hand over to be called, checked before anything is done: no_grad(tensor) says what came.
local raise = require("atomo.ffi").raise

local function kind_of(v)
  local meta = type(v) == "table" and getmetatable(v)
  local name = type(meta) == "table" and rawget(meta, "__name")
  return name and "a " .. name or v == nil and "nothing" or "a " .. type(v)
end

--- Raises unless v is a function, or can be called as one (a module); returns it.
---@param who string  for messages
---@param v any
return function(who, v)
  if type(v) == "function" then return v end
  local meta = type(v) == "table" and getmetatable(v)
  if type(meta) == "table" and meta.__call then return v end
  raise(("%s: expected a function, got %s"):format(who, kind_of(v)))
end
