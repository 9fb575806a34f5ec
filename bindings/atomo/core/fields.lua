--- Strict reading of fields: an unknown field of an object, such as ex.stat, is an error that names the nearest one.
-- Fields that may be nil are listed as absent ones.
local advice = require "atomo.core.advice"
local brief = require "atomo.core.brief"
local suggest = require "atomo.core.suggest"
local raise = require("atomo.ffi").raise

--- Returns the name nearest to a word, or else to a part of it: "batch" for "bach_size"; nil if none is near.
local function nearest(word, names)
  local near = suggest(word, names)
  for part in word:gmatch "[^_]+" do near = near or suggest(part, names) end
  return near
end

--- Returns the words of a text (or nil) as a list and as a set.
local function words(text)
  local list, set = {}, {}
  for word in (text or ""):gmatch "%S+" do list[#list + 1], set[word] = word, true end
  return list, set
end

--- Returns the names that an error may suggest, sorted: public fields, and methods of the class.
local function names_of(class, fields)
  local names = {unpack(fields)}
  for key, value in pairs(class) do
    if type(key) == "string" and type(value) == "function" and key:sub(1, 2) ~= "__" then names[#names + 1] = key end
  end
  table.sort(names)
  return names
end

--- Makes objects of a class raise an error when a field that they do not have is read. Returns the class.
---@param class table      its own __index
---@param what string      the object in errors: "exchange"
---@param fields string?   public fields, separated by spaces
---@param absent string?   names that may be nil, separated by spaces
---@param instead table<string, string>?  other libraries' names -> what to write here (core/advice.lua)
---@return table class
return function(class, what, fields, absent, instead)
  local public = words(fields)
  local _, may_be_nil = words(absent)
  return setmetatable(class, {__index = function(_, key)
    if may_be_nil[key] or type(key) == "string" and key:sub(1, 2) == "__" then return nil end
    local text = instead and instead[key]
    if text then raise(("%s.%s: it has no such field; %s"):format(what, brief(key), advice(text))) end
    local names = names_of(class, public)
    local near = type(key) == "string" and nearest(key, names)
    raise(("%s.%s: it has no such field (%s)"):format(what, brief(key),
      near and ("did you mean '%s'?"):format(near) or "it has " .. table.concat(names, ", ")))
  end})
end
