--- Reads settings for a script: --config (a Lua or JSON file) and --repeat (an earlier run).
local disk = require "atomo.train.checkpoint.disk"
local json = require "atomo.core.json"
local manifest = require "atomo.train.checkpoint.manifest"
local runs = require "atomo.tools.runs"
local trained = require "atomo.tools.trained"

local M = {}

local function from_lua(path)
  local chunk, why = loadfile(path)
  if not chunk then error(why, 0) end
  return chunk()
end

local function from_json(path)
  local text, why = disk.read_text(path)
  if not text then error(why, 0) end
  local ok, value = pcall(json.decode, text)
  if not ok then error(("%s: %s"):format(path, value), 0) end
  return value
end

--- Returns the table that a file has: option name -> value.
---@param path string  *.lua (a file that returns a table) or *.json (an object)
---@return table<string, any>
function M.config(path)
  local read = path:match "%.lua$" and from_lua or path:match "%.json$" and from_json
  if not read then error(("'%s': expected a file *.lua or *.json"):format(path), 0) end
  local settings = read(path)
  if type(settings) ~= "table" then
    error(("%s has a %s, expected a table of option values: {batch = 64}"):format(path, type(settings)), 0)
  end
  for name in pairs(settings) do
    if type(name) ~= "string" then
      error(("%s has a value without a name ([%s]), expected a table of option values: {batch = 64}"):format(path,
        tostring(name)), 0)
    end
  end
  return settings
end

local function of_log(path)
  local list = runs.read(path)
  local last = list[#list]
  if not last then error(("%s has no run (an event \"run\" of a log)"):format(path), 0) end
  if not next(last.settings) then error(("%s: its last run has no settings"):format(path), 0) end
  return last.settings
end

local function of_checkpoint(path)
  local folder = trained.checkpoint_of(path)
  local body, why = manifest.read(folder)
  if not body then error(("%s is no complete checkpoint: %s"):format(folder, why), 0) end
  if type(body.settings) ~= "table" then
    error(("%s has no settings: an earlier version or a program without settings saved it; name the run's log"):format(
      folder), 0)
  end
  return body.settings
end

--- Returns the settings of a run, and true. path: a log (*.jsonl; of several runs the last), a folder of checkpoints or
--- one of them.
---@param path string
---@return table<string, any>
---@return boolean
function M.of_run(path)
  local kind = disk.kind(path)
  local is_log = kind == "file" and not path:match "%f[^/%z]latest$" and not path:match "%f[^/%z]best$"
  if kind ~= "file" and kind ~= "folder" then
    error(("%s is not there: expected a log or a folder of checkpoints"):format(path), 0)
  end
  return (is_log and of_log or of_checkpoint)(path), true
end

return M
