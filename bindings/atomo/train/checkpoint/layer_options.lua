--- Options of layers (a dropout's p, a normalisation's momentum) that a run has set since its start, for checkpoints.
-- Layers of atomo.nn only: other classes have fields of any meaning.
local bags = require "atomo.train.checkpoint.bag"
local visit = require "atomo.nn.visit"

local M = {}

--- Calls fn(label, module, key) for the options of the model's layers: fields that are numbers, booleans or texts.
local function each(run, fn)
  local classes = require "atomo.nn"
  for _, entry in ipairs(visit.is_module(run.model) and run.model:named_modules() or {}) do
    local name, m = entry[1], entry[2]
    for key, v in pairs(rawget(classes, m.class_name) == getmetatable(m) and m or {}) do
      local is_option = type(key) == "string" and key:sub(1, 1) ~= "_" and key ~= "training" and bags.text(v)
      if is_option then fn(name .. "\t" .. key, m, key) end
    end
  end
end

--- Returns the options of all layers as texts, "LAYER\tOPTION" -> value.
---@param run table  state of atomo.train
---@return table<string, string>
function M.of(run)
  local list = {}
  each(run, function(label, m, key) list[label] = bags.text(m[key]) end)
  return list
end

--- Returns the options that differ from those at the start of the run, a line for each: "LAYER\tOPTION\tFIRST\tNOW".
---@return string
function M.changed(run)
  local lines = {}
  for label, now in pairs(M.of(run)) do
    local first = run.options_at_start[label]
    if first and first ~= now then lines[#lines + 1] = ("%s\t%s\t%s"):format(label, first, now) end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- Restores a result of M.changed. An option whose value is not the saved run's first one is the user's, and stays.
---@param saved string?  nil in checkpoints of earlier versions
function M.restore(run, saved)
  local first, now = {}, {}
  for name, key, a, b in (saved or ""):gmatch "([^\t\n]*)\t([^\t\n]*)\t([^\t\n]*)\t([^\t\n]*)" do
    first[name .. "\t" .. key], now[name .. "\t" .. key] = a, b
  end
  each(run, function(label, m, key)
    if first[label] == bags.text(m[key]) then rawset(m, key, bags.value(now[label])) end
  end)
end

return M
