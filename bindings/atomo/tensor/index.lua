--- Refuses field accesses that would silently do nothing: t[1], t[mask] = v, t.requires_gard = true, t.shape = {...},
--- t.shape[1], and names of other libraries: t.T, t.ndim.
-- Elements are not fields. Assigning to the name of a method, or to a misspelt field of the library, raises; so does
-- reading a misspelt name. Any other string key is free for the user.
local advice = require "atomo.core.advice"
local brief = require "atomo.core.brief"
local T = require "atomo.tensor.core"
local suggest = require "atomo.core.suggest"
local instead = require("atomo.core.instead").tensor
local raise = require("atomo.ffi").raise
local Tensor = T.Tensor

local public = {"requires_grad", "grad"}
-- All fields that the library sets, in every operator: they must not get as far as the search for a near name.
local known = {h = true, node = true, slot = true, requires_grad = true, grad = true, base = true, link = true,
  seen = true, rebased = true, count = true, kept = true, passed = true, guarded = true, shared = true, refs = true,
  version = true, is_parameter = true, leaf = true, borrowed = true}

local function element(key)
  if type(key) == "number" then return ("t[%s]"):format(brief(key)) end
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
  if rawget(Tensor, key) ~= nil then
    raise(("tensor.%s = value: '%s' is a method; t:copy_(u) and t:fill_(number) change elements"):format(key, key))
  end
  local near = suggest(key, public)
  if near then raise(("tensor.%s = value: a tensor has no such field (did you mean '%s'?)"):format(key, near)) end
  rawset(t, key, value)
end

local nearest = {} -- name -> the nearest name of a tensor, or false

--- Returns the field or method nearest to an unknown name of at least 4 letters, up to 2 letters longer; nil if none is
--- near. (Own fields may be named freely: "count" is not taken for count_nonfinite.)
local function near_of(key)
  local near = nearest[key]
  if near == nil then
    local names = {unpack(public)}
    for name, value in pairs(Tensor) do
      if type(value) == "function" and name:sub(1, 2) ~= "__" then names[#names + 1] = name end
    end
    table.sort(names)
    near = #key >= 4 and suggest(key, names) or false
    if near and #near > #key + 2 then near = false end
    nearest[key] = near
  end
  return near or nil
end

-- ---- operators of Lua that have one result for a whole tensor -------------------------------------------------------

local function refuse_order()
  raise("a < b of tensors: Lua takes only true or false as its result; a:lt(b) compares elements, as do le, gt, ge, " ..
    "eq and ne; of scalars write a:item() < b:item()")
end
Tensor.__lt, Tensor.__le = refuse_order, refuse_order

function Tensor.__concat()
  raise('a .. b joins texts, and a tensor is none: write tostring(t), or t:item() for the number of a scalar; ' ..
    "atomo.cat({a, b}, dim) joins tensors")
end

-- Called for a name that is neither a field nor a method; __call for atomo.Tensor(3, 4), which is the class.
setmetatable(Tensor, {__call = function()
  raise("atomo.Tensor(...): it is the class of tensors, and makes none; write atomo.zeros(3, 4), or " ..
    "atomo.tensor(table)")
end, __index = function(_, key)
  if known[key] then return nil end
  if is_index(key) then
    raise(element(key) .. ": a tensor has no such index; use t:get(i, j, ...) for a number, t:select(dim, i) or " ..
      "t:narrow(dim, start, length) for a part")
  end
  if key:sub(1, 2) == "__" then return nil end
  if instead[key] then raise(("tensor.%s: a tensor has no such name; %s"):format(key, advice(instead[key]))) end
  local near = near_of(key)
  if near then
    raise(("tensor.%s: a tensor has no such name (did you mean '%s'?); a field of your own must be set before it is " ..
      "read"):format(key, near))
  end
end})

-- ---- methods used as properties: t.shape[1], #t.shape --------------------------------------------------------------

--- Returns the name of a method of tensors; nil for another function.
local function method_name(fn)
  for name, value in pairs(Tensor) do
    if value == fn then return name end
  end
end

local function used_as_property(fn, other)
  local name = method_name(fn)
  if not name then error("attempt to " .. other, 3) end
  raise(("tensor.%s is a method: write t:%s(...)%s"):format(name, name,
    (name == "shape" or name == "size") and "; t:size(1) is the size of the first dimension, t:shape() a table" or ""))
end

-- LuaJIT has one metatable for all functions, used here only where Lua would raise anyway. One that another library has
-- set stays.
if not debug.getmetatable(print) then
  debug.setmetatable(print, {
    __index = function(fn, key) used_as_property(fn, ("index a function value with '%s'"):format(brief(key))) end,
    __len = function(fn) used_as_property(fn, "get length of a function value") end,
  })
end
