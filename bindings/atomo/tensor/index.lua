--- Refuses field accesses that would silently do nothing: t[1], t[mask] = v, t.requires_gard = true, t.shape = {...}.
-- Elements are not fields. Assigning to the name of a method, or to a misspelt field of the library, raises. Any other
-- string key is free for the user.
local T = require "atomo.tensor.core"
local suggest = require "atomo.core.suggest"
local raise = require("atomo.ffi").raise
local Tensor = T.Tensor

local public = {"requires_grad", "grad"}
-- Fields that the library sets in every step; this test comes first because it is fast.
local known = {h = true, node = true, requires_grad = true, grad = true, base = true, kept = true, passed = true,
  guarded = true, shared = true, refs = true, version = true, is_parameter = true}

local function element(key)
  if type(key) == "number" then return ("t[%s]"):format(tostring(key)) end
  return ("t[%s]"):format(T.is_tensor(key) and "tensor" or type(key))
end

local function is_index(key) return type(key) ~= "string" end

function Tensor.__newindex(t, key, value)
  if known[key] then return rawset(t, key, value) end
  if is_index(key) then
    raise(element(key) .. " = value: a tensor has no such assignment; use t:set(i, j, ..., number), " ..
      "t:select(dim, i):copy_(u), t:narrow(dim, start, length):fill_(number), or with a mask of 0 and 1 " ..
      "t:copy_(t * (1 - mask) + u * mask)")
  end
  if Tensor[key] ~= nil then
    raise(("tensor.%s = value: '%s' is a method; t:copy_(u) and t:fill_(number) change elements"):format(key, key))
  end
  local near = suggest(key, public)
  if near then raise(("tensor.%s = value: a tensor has no such field (did you mean '%s'?)"):format(key, near)) end
  rawset(t, key, value)
end

-- Called for a name that is neither a field nor a method.
setmetatable(Tensor, {__index = function(_, key)
  if is_index(key) then
    raise(element(key) .. ": a tensor has no such index; use t:get(i, j, ...) for a number, t:select(dim, i) or " ..
      "t:narrow(dim, start, length) for a part")
  end
end})
