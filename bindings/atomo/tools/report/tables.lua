--- Tables of a report: results of runs, and settings in which they differ.
local log = require "atomo.core.log"
local runs = require "atomo.tools.runs"

local M = {}

local function percent(v) return type(v) == "number" and ("%.2f %%"):format(100 * v) or "-" end

local function loss_text(v) return type(v) == "number" and ("%.4f"):format(v) or "-" end

--- Columns of the table of results: title, and a function that returns a run's cell. aim: the test accuracy for the
--- column of time to accuracy; 0: no such column.
M.columns = {
  {"model", function(run) return tostring(run.settings.model or "-") end},
  {"compress", function(run) return tostring(run.settings.compress or "-") end},
  {"ranks", function(run) return tostring(run.ranks or "-") end},
  {"steps", function(run) return tostring(#run.steps) end},
  {"test", function(run) return percent((run.finish or run.epochs[#run.epochs] or {}).test_accuracy) end},
  {"best", function(run) return percent((runs.best(run) or {}).test_accuracy) end},
  {"test loss", function(run) return loss_text((run.finish or run.epochs[#run.epochs] or {}).test_loss) end},
  {"ms/step", function(run)
    local ms = runs.mean_times(run)
    return ms and ms.step and ("%.1f"):format(ms.step) or "-"
  end},
  {"sent/step", function(run) return #run.steps > 0 and log.bytes(run.bytes / #run.steps) or "-" end},
  {"less", function(run) return run.bytes > 0 and run.dense > 0 and log.ratio(run.dense / run.bytes) or "-" end},
  {"time", function(run)
    local seconds = runs.seconds(run)
    return seconds and log.duration(seconds) .. (run.finish and "" or " (unfinished)") or "-"
  end},
}

--- Returns the table of results: a header, and a row for each run.
---@param list atomo.Run[]
---@param aim number    test accuracy whose time is shown; 0: none
---@param title string  of the first column
---@param name fun(run: atomo.Run): string  its cells
---@return string[][]
function M.results(list, aim, title, name)
  local header, rows = {title}, {}
  for i, column in ipairs(M.columns) do header[i + 1] = column[1] end
  if aim > 0 then header[#header + 1] = ("to %g %%"):format(100 * aim) end
  for k, run in ipairs(list) do
    local row = {name(run)}
    for i, column in ipairs(M.columns) do row[i + 1] = column[2](run) end
    if aim > 0 then
      local e = runs.reached(run, aim)
      row[#row + 1] = e and ("epoch %d, %s"):format(e.epoch, log.duration(e.time)) or "-"
    end
    rows[k] = row
  end
  table.insert(rows, 1, header)
  return rows
end

--- A setting's value as text.
local function value_text(v)
  if type(v) == "table" then
    local parts = {}
    for i, each in ipairs(v) do parts[i] = value_text(each) end
    return table.concat(parts, ", ")
  end
  return v == nil and "-" or type(v) == "number" and ("%.10g"):format(v) or v == "" and "-" or tostring(v)
end

--- Settings that name outputs and never matter to the results.
local outputs = {log = true, save = true, csv = true, tensorboard = true}

--- Returns two tables of settings: those in which runs differ (a row a setting, a column a run), and those they share
--- (name and value). Versions and the number of ranks and threads count as settings.
---@param list atomo.Run[]
---@return string[][] differ  without a header
---@return string[][] shared
function M.settings(list)
  local values, names = {}, {}
  local function set(name, k, v)
    if not values[name] then
      values[name] = {}
      names[#names + 1] = name
    end
    values[name][k] = v
  end
  for k, run in ipairs(list) do
    for name, v in pairs(run.settings) do
      if not outputs[name] then set(tostring(name), k, value_text(v)) end
    end
    for name, v in pairs(run.versions) do set("version of " .. tostring(name), k, value_text(v)) end
    set("ranks", k, value_text(run.ranks))
    set("threads of a rank", k, value_text(run.threads))
  end
  table.sort(names)
  local differ, shared = {}, {}
  for _, name in ipairs(names) do
    local row, alike = {name}, true
    for k = 1, #list do
      row[k + 1] = values[name][k] or "-"
      alike = alike and row[k + 1] == row[2]
    end
    if not alike then differ[#differ + 1] = row
    elseif row[2] ~= "-" then shared[#shared + 1] = {name, row[2]} end
  end
  return differ, shared
end

return M
