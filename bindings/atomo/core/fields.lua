--- Reads of a field that an object does not have are refused, with the nearest name: ex.stat, loader.batch_size. A
--- field that is nil for a while is listed as one that may be absent.
local suggest = require "atomo.core.suggest"
local raise = require("atomo.ffi").raise

--- The nearest of names to a word, or to a part of it: batch for bach_size.
local function nearest(word, names)
  local near = suggest(word, names)
  for part in word:gmatch "[^_]+" do near = near or suggest(part, names) end
  return near
end

local function words(text)
  local list, set = {}, {}
  for word in (text or ""):gmatch "%S+" do list[#list + 1], set[word] = word, true end
  return list, set
end

--- The names that a message offers: public fields, and methods of the class.
local function names_of(class, fields)
  local names = {unpack(fields)}
  for key, value in pairs(class) do
    if type(key) == "string" and type(value) == "function" and key:sub(1, 2) ~= "__" then names[#names + 1] = key end
  end
  table.sort(names)
  return names
end

--- Its objects (of a class that is its own __index) refuse unknown names. what: for messages; fields: public ones;
--- absent: names that may be nil. Texts with spaces between the names.
---@param class table
---@param what string
---@param fields string?
---@param absent string?
---@return table class
return function(class, what, fields, absent)
  local public = words(fields)
  local _, may_be_nil = words(absent)
  return setmetatable(class, {__index = function(_, key)
    if may_be_nil[key] or type(key) == "string" and key:sub(1, 2) == "__" then return nil end
    local names = names_of(class, public)
    local near = type(key) == "string" and nearest(key, names)
    raise(("%s.%s: it has no such field (%s)"):format(what, tostring(key),
      near and ("did you mean '%s'?"):format(near) or "it has " .. table.concat(names, ", ")))
  end})
end
