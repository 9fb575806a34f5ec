--- The structure of a model as texts that ranks compare (consistency.lua). Checksums of parameters do not show layers
-- without parameters, such as an activation or dropout and its p.
local T = require "atomo.tensor"

local M = {}

--- Returns a function's name in atomo.F, else "a function": ranks may have different user-defined functions.
local function function_text(fn)
  for name, known in pairs(require "atomo.nn.functional") do
    if known == fn then return "F." .. tostring(name) end
  end
  return "a function"
end

local function is_plain(v)
  local kind = type(v)
  return kind == "number" or kind == "boolean" or kind == "string"
end

local fields_text

--- Returns a field's value as text: a number, string, boolean or function, or a plain table of these; nil for others.
local function value_text(v)
  if type(v) == "function" then return function_text(v) end
  if type(v) == "number" then return ("%.17g"):format(v) end
  if is_plain(v) then return tostring(v) end
  return type(v) == "table" and not getmetatable(v) and "{" .. fields_text(v) .. "}" or nil
end

--- Returns the fields of a table as text, sorted: "eps = 1e-05, relu = false". Keys that begin with _ are private and
--- left out.
function fields_text(t)
  local parts = {}
  for key, v in pairs(t) do
    local text = not (type(key) == "string" and key:sub(1, 1) == "_") and is_plain(key) and value_text(v)
    if text then parts[#parts + 1] = ("%s = %s"):format(tostring(key), text) end
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

--- Returns the text of a module: "Dropout(p=0.5) p = 0.5", its description, and its fields if it is of atomo.nn. Fields
--- of user-defined classes are left out, because they may differ from rank to rank.
local function module_text(m, training)
  local is_ours = rawget(require "atomo.nn", m.class_name) == getmetatable(m)
  local fields = is_ours and fields_text(m) or ""
  return ("%s(%s)%s%s"):format(m.class_name, m:describe(), fields ~= "" and " " .. fields or "",
    training and not m.training and ", in evaluation mode" or "")
end

--- Appends an item for every module of the model.
local function module_items(items, what, model)
  for _, entry in ipairs(model:named_modules()) do
    local name, m = entry[1], entry[2]
    local label = name == "" and what or ("%s '%s'"):format(what == "model" and "layer" or what, name)
    items[#items + 1] = {label, module_text(m, model.training), structure = true}
  end
end

--- Returns a list of {name, text, structure = true}: the kind and options of every module of a model, or of a loss that
--- is a module. For other values the list is empty.
---@param what string  "model" or "loss", for the names
---@param model any
---@return table[]
function M.items(what, model)
  local items = {}
  local is_module = type(model) == "table" and not T.is_tensor(model) and type(model.named_modules) == "function"
  if is_module then module_items(items, what, model) end
  return items
end

return M
