--- The figures of a run as comma-separated values: a row per step and per epoch, for spreadsheets and data frames.
local f = require "atomo.ffi"
local files = require "atomo.core.files"
local raise = f.raise

local M = {}

local columns = {"event", "step", "epoch", "time", "loss", "accuracy", "test_loss", "test_accuracy", "lr",
  "images_per_s", "bytes_out", "bytes_in", "dense_bytes", "variance", "relative_variance", "ms_data", "ms_forward",
  "ms_backward", "ms_encode", "ms_exchange", "ms_decode", "ms_update", "ms_step"}
local HEADER = table.concat(columns, ",")

---@class atomo.CsvFile
local CsvFile = {}
CsvFile.__index = CsvFile

--- Returns the first line of a file and whether its last line is complete; nil if it is empty or absent.
local function first_line(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*l"
  local whole = true
  if text then
    file:seek("end", -1)
    whole = file:read(1) == "\n"
  end
  if file then file:close() end
  return text, whole
end

--- Opens a file to append to; a new one gets a header. Raises for a file with other columns.
---@param path string
---@return atomo.CsvFile
function M.open(path)
  local before, whole = first_line(path)
  if before and before ~= HEADER then
    raise(("csv: %s begins with '%s', which are other columns than those of a run: name a new file"):format(path,
      before:sub(1, 40)))
  end
  local file = files.open("csv", path, true)
  if not before then file:write(HEADER .. "\n") elseif not whole then file:write "\n" end
  return setmetatable({file = file}, CsvFile)
end

local function cell(v)
  if type(v) == "number" then return ("%.17g"):format(v) end
  return v == nil and "" or tostring(v)
end

local function add(self, values)
  local cells = {}
  for i, name in ipairs(columns) do cells[i] = cell(values[name]) end
  self.file:write(table.concat(cells, ",") .. "\n")
end

--- Appends a step of a run. info: as on_step gets it; seconds: since the start of the run.
function CsvFile:step(info, seconds)
  local values = {event = "step", time = seconds}
  for _, name in ipairs(columns) do
    if values[name] == nil then values[name] = info[name] end
  end
  for name, ms in pairs(info.ms) do values["ms_" .. name] = ms end
  add(self, values)
end

--- Appends the end of an epoch.
function CsvFile:epoch(info, seconds)
  add(self, {event = "epoch", step = info.step, epoch = info.epoch, time = seconds, loss = info.loss,
    accuracy = info.accuracy, test_loss = info.test_loss, test_accuracy = info.test_accuracy})
end

function CsvFile:close() self.file:close() end

return M
