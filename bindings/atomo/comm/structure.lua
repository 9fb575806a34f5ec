--- The structure of a model as texts that ranks compare (consistency.lua). Checksums of parameters do not show layers
-- without parameters, such as an activation or dropout and its p.
local visit = require "atomo.nn.visit"

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

--- Returns the texts of a module: its description, "Dropout(p=0.5)", and its fields, " p = 0.5", if it is of atomo.nn.
--- Fields of user-defined classes are left out, because they may differ from rank to rank.
local function module_texts(m)
  local is_ours = rawget(require "atomo.nn", m.class_name) == getmetatable(m)
  local fields = is_ours and fields_text(m) or ""
  return ("%s(%s)"):format(m.class_name, m:describe()), fields ~= "" and " " .. fields or ""
end

local function module_label(what, name)
  return name == "" and what or ("%s '%s'"):format(what == "model" and "layer" or what, name)
end


--- Returns a list of {name, text, structure = true}: the kind and options of every module of a model, or of a loss that
--- is a module. For other values the list is empty. Of a model in evaluation mode, which training will switch, modes
--- are left out.
---@param what string  "model" or "loss", for the names
---@param model any
---@return table[]
function M.items(what, model)
  local items = {}
  for _, entry in ipairs(visit.is_module(model) and model:named_modules() or {}) do
    local kind, fields = module_texts(entry[2])
    local mode = model.training and not entry[2].training and ", in evaluation mode" or ""
    items[#items + 1] = {module_label(what, entry[1]), kind .. fields .. mode, structure = true}
  end
  return items
end

--- Appends {name, text} to list for every module of a model or loss: kind, mode and options; of other values nothing.
---@param list table[]
---@param what string  "model" or "loss", for the names
function M.add(list, what, model)
  for _, entry in ipairs(visit.is_module(model) and model:named_modules() or {}) do
    local kind, fields = module_texts(entry[2])
    list[#list + 1] = {module_label(what, entry[1]), ("%s in %s mode%s"):format(kind,
      entry[2].training and "training" or "evaluation", fields)}
  end
end

return M
