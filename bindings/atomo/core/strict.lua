--- Unknown names of a module, such as nn.Conv3d, are errors that say what to write, or which name is nearest.
local advice = require "atomo.core.advice"
local brief = require "atomo.core.brief"
local instead = require "atomo.core.instead"
local suggest = require "atomo.core.suggest"
local raise = require("atomo.ffi").raise

--- Returns the public names of the modules, each once, sorted.
local function names_of(...)
  local names, met = {}, {}
  for i = 1, select("#", ...) do
    for key in pairs((select(i, ...))) do
      if type(key) == "string" and not key:find "^_" and not met[key] then names[#names + 1], met[key] = key, true end
    end
  end
  table.sort(names)
  return names
end

--- Returns the name nearest to a word, or else one of at least 4 letters that it begins with ("optim" for "optimizer"),
--- or else the name nearest to a part of it ("cosine" for "CosineAnnealingLR"); nil if none is near.
local function nearest(word, names)
  local near = suggest(word, names)
  for _, name in ipairs(names) do
    if not near and #name >= 4 and word:lower():find(name:lower(), 1, true) == 1 then near = name end
  end
  for part in word:gmatch "%u?%l+" do near = near or #part >= 3 and suggest(part, names) end
  return near
end

local M = {}

--- Raises that `what` has no name `key`. The tables that follow have the known names as keys.
---@param what string  the module in errors: "nn"
---@param key any
function M.unknown(what, key, ...)
  local text = instead[what] and instead[what][key] or what == "atomo" and instead.tensor[key]
  if text then raise(("%s.%s: there is no such name; %s"):format(what, brief(key), advice(text))) end
  local names = names_of(...)
  local near = type(key) == "string" and nearest(key, names)
  text = near and ("did you mean '%s'?"):format(near) or ("it has %s"):format(table.concat(names, ", "))
  raise(("%s.%s: there is no such name (%s)"):format(what, brief(key), text))
end

--- Makes an unknown name of a module raise when it is read; names with "__" stay nil. Returns the module. rawget tells
--- whether a name exists.
---@param module table
---@param what string
---@return table module
function M.module(module, what)
  local meta = getmetatable(module) or {}
  function meta.__index(self, key)
    if type(key) == "string" and key:find "^__" then return nil end
    M.unknown(what, key, self)
  end
  return setmetatable(module, meta)
end

return M
