--- What trains: which parameters of the optimizer are frozen, and which modules are in evaluation mode or frozen
-- (m:freeze). A run may change this between steps, as when layers are unfrozen after some epochs, so a checkpoint has
-- it.
local visit = require "atomo.nn.visit"

local M = {}

--- Calls fn(name, parameter) for the optimizer's parameters.
local function each_parameter(run, fn)
  for i, p in ipairs(run.optimizer.params) do fn(run.names and run.names[i] or ("parameter %d"):format(i), p) end
end

--- Calls fn(name, module) for the model and its modules.
local function each_module(run, fn)
  if not visit.is_module(run.model) then return end
  for _, entry in ipairs(run.model:named_modules()) do fn(entry[1], entry[2]) end
end

--- Returns what is frozen or in evaluation mode, a line for each: the kind and a name. "before" is of a frozen module
--- that unfreeze() leaves in evaluation mode.
---@param run table  state of atomo.train
---@return string
function M.text(run)
  local lines = {}
  local function add(kind, name) lines[#lines + 1] = kind .. " " .. name end
  each_parameter(run, function(name, p)
    if not p.requires_grad then add("fixed", name) end
  end)
  each_module(run, function(name, m)
    if m._frozen then add("frozen", name) end
    if m._frozen and not m._mode_before then add("before", name) end
    if not m.training then add("eval", name) end
  end)
  return table.concat(lines, "\n")
end

local function apply(run, text)
  local has = {}
  for line in text:gmatch "[^\n]+" do has[line] = true end
  each_parameter(run, function(name, p) p.requires_grad = not has["fixed " .. name] end)
  each_module(run, function(name, m)
    local frozen = has["frozen " .. name] == true
    rawset(m, "_frozen", frozen)
    if frozen then rawset(m, "_mode_before", not has["before " .. name]) end
    rawset(m, "training", not has["eval " .. name])
  end)
end

--- Restores a result of M.text, unless this run began with other parameters or modes than the saved one: these are the
--- user's wish then, and stay.
---@param saved string?  at the time of saving; nil in checkpoints of earlier versions
---@param saved_start string?  at the start of the run that saved it
---@param say fun(text: string)  gets a line if the saved ones are not restored
function M.restore(run, saved, saved_start, say)
  if not saved or saved == M.text(run) then return end
  if saved_start == run.modes_at_start then return apply(run, saved) end
  say "frozen parameters and evaluation modes are as this run sets them, not as they were saved"
end

return M
