--- The contents of one file of a checkpoint: state_dicts of several sections ("model", "optimizer", ...). Tensors are
-- named "SECTION/NAME"; numbers, strings and booleans are metadata with such names, stored as text with their type. A
-- name that is a number, as in a list, is stored as "#1".
local brief = require "atomo.core.brief"
local file = require "atomo.train.checkpoint.file"
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise

---@class atomo.Bag
---@field tensors table<string, atomo.Tensor>
---@field values table<string, string>  results of M.text
local Bag = {}
Bag.__index = Bag

local M = {}

---@return atomo.Bag
function M.new() return setmetatable({tensors = {}, values = {}}, Bag) end

local coders = {
  number = function(v) return ("n:%.17g"):format(v) end,
  boolean = function(v) return "b:" .. tostring(v) end,
  string = function(v) return "s:" .. v end,
}

--- Encodes a number, string or boolean as text; nil for other values.
function M.text(v)
  local coder = coders[type(v)]
  return coder and coder(v)
end

--- Decodes a result of M.text; nil for other texts.
function M.value(text)
  local kind, rest = text:match "^([nbs]):(.*)$"
  if kind == "n" then return tonumber(rest) end
  if kind == "b" then return rest == "true" end
  return kind and rest
end

--- Returns a name as text; raises for one that is no text or number, and for a text that looks like a stored number.
local function name_text(name, room)
  if type(name) == "number" then return ("#%.17g"):format(name) end
  if type(name) == "string" and not (name:sub(1, 1) == "#" and tonumber(name:sub(2))) then return name end
  raise(("checkpoint: the name %s of %s is %s, expected a text (not # and a number) or a number"):format(brief(name),
    room, type(name) == "string" and "a number with #" or "a " .. type(name)))
end

--- Returns the name that name_text stored.
local function name_of(text)
  return text:sub(1, 1) == "#" and tonumber(text:sub(2)) or text
end

--- Adds a state_dict as a section; raises for values that are no tensor, number, string or boolean.
---@param room string  name of the section
---@param state table
function Bag:put(room, state)
  if type(state) ~= "table" or T.is_tensor(state) then
    raise(("checkpoint: %s: state_dict returned %s, expected a table"):format(room, brief(state)))
  end
  for name, v in pairs(state) do
    local key = ("%s/%s"):format(room, name_text(name, room))
    if T.is_tensor(v) then
      self.tensors[key] = v
    else
      self.values[key] = M.text(v) or raise(("checkpoint: '%s' of %s is a %s; a state may hold tensors, numbers, " ..
        "texts and booleans"):format(brief(name), room, type(v)))
    end
  end
end

--- Returns the state_dict of a section; empty if it has none.
function Bag:section(room)
  local state, first = {}, room .. "/"
  for key, t in pairs(self.tensors) do
    if key:sub(1, #first) == first then state[name_of(key:sub(#first + 1))] = t end
  end
  for key, text in pairs(self.values) do
    if key:sub(1, #first) == first then state[name_of(key:sub(#first + 1))] = M.value(text) end
  end
  return state
end

function Bag:is_empty() return not next(self.tensors) and not next(self.values) end

--- Returns a checksum of the contents.
function Bag:digest() return file.digest(self.tensors, self.values) end

--- Writes the bag; returns the checksum of its contents.
function Bag:write(path)
  local metadata = {}
  for key, text in pairs(self.values) do metadata[key] = text end
  return file.write(path, self.tensors, metadata)
end

--- Reads a bag from a file.
---@return atomo.Bag
---@return string checksum
function M.read(path)
  local bag = M.new()
  local tensors, metadata = file.read(path)
  bag.tensors = tensors
  for key, text in pairs(metadata) do
    if key:find("/", 1, true) then bag.values[key] = text end
  end
  return bag, metadata.checksum
end

function Bag:free()
  for _, t in pairs(self.tensors) do t:free() end
end

return M
