--- What a network is made of, for ranks to compare (consistency.lua): layers without parameters (an activation, dropout
--- and its p) leave no trace in what checksums of parameters see.
local T = require "atomo.tensor"

local M = {}

--- A function by its name in atomo.F; of a user's, ranks may have different ones.
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

--- A field's value as text: numbers, texts, booleans, functions, and plain tables of these; nil for others.
local function value_text(v)
  if type(v) == "function" then return function_text(v) end
  if type(v) == "number" then return ("%.17g"):format(v) end
  if is_plain(v) then return tostring(v) end
  return type(v) == "table" and not getmetatable(v) and "{" .. fields_text(v) .. "}" or nil
end

--- "eps = 1e-05, relu = false", sorted by the key; keys with _ in front are the library's own.
function fields_text(t)
  local parts = {}
  for key, v in pairs(t) do
    local text = not (type(key) == "string" and key:sub(1, 1) == "_") and is_plain(key) and value_text(v)
    if text then parts[#parts + 1] = ("%s = %s"):format(tostring(key), text) end
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

--- "Dropout(p=0.5) p = 0.5": what a module says of itself, and the fields of one of atomo.nn. A user's class may hold
--- what is this rank's own.
local function module_text(m, training)
  local is_ours = require("atomo.nn")[m.class_name] == getmetatable(m)
  local fields = is_ours and fields_text(m) or ""
  return ("%s(%s)%s%s"):format(m.class_name, m:describe(), fields ~= "" and " " .. fields or "",
    training and not m.training and ", in evaluation mode" or "")
end

local function module_items(items, what, model)
  for _, entry in ipairs(model:named_modules()) do
    local name, m = entry[1], entry[2]
    local label = name == "" and what or ("%s '%s'"):format(what == "model" and "layer" or what, name)
    items[#items + 1] = {label, module_text(m, model.training), structure = true}
  end
end

--- Items {name, text, structure = true} of a model, or of a loss that is a module: every module's kind and options.
--- What is no module has none.
---@param what string  "model"
---@param model any
---@return table[]
function M.items(what, model)
  local items = {}
  local is_module = type(model) == "table" and not T.is_tensor(model) and type(model.named_modules) == "function"
  if is_module then module_items(items, what, model) end
  return items
end

return M
