--- Describes the files and folders that training writes, as lines for people (scripts/inspect.lua).
local T = require "atomo.tensor"
local disk = require "atomo.train.checkpoint.disk"
local step_folders = require "atomo.train.checkpoint.step_folders"
local log = require "atomo.core.log"
local manifest = require "atomo.train.checkpoint.manifest"
local npy = require "atomo.tensor.npy"
local runs = require "atomo.tools.runs"
local safetensors = require "atomo.tensor.safetensors"
local settings_text = require("atomo.tools.cli_help").settings_text
local torch_file = require "atomo.nn.torch.file"
local raise = require("atomo.ffi").raise

local M = {}

local function sorted_keys(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = tostring(key) end
  table.sort(list)
  return list
end

-- ---- tensors -----------------------------------------------------------------------------------------------------

local function figure(v) return ("%.4g"):format(v) end

--- Returns the row of a tensor: name, dtype, shape, bytes, norm, least and largest value, NaN and Inf.
local function tensor_row(name, t)
  local row = {name, t:dtype(), T.shape_text(t), log.bytes(t:numel() * t:element_size())}
  if t:numel() == 0 then return {row[1], row[2], row[3], row[4], "-", "-", "-", "-"} end
  local bad = t:dtype() == "f32" and t:count_nonfinite() or 0
  for _, v in ipairs {t:norm(), t:min(), t:max()} do row[#row + 1] = figure(v:item()) end
  row[#row + 1] = bad > 0 and tostring(bad) or "-"
  return row
end

--- Adds a table of tensors to lines. only: a text that the names of the tensors shown contain. unread: name -> the
--- reason why a tensor cannot be read.
local function add_tensors(lines, tensors, only, unread)
  local rows = {{"tensor", "type", "shape", "size", "norm", "least", "largest", "NaN, Inf"}}
  local elements, bytes, count = 0, 0, 0
  for _, name in ipairs(sorted_keys(tensors)) do
    if name:find(only, 1, true) then
      local t = tensors[name]
      T.scope(function() rows[#rows + 1] = tensor_row(name, t) end)
      count, elements = count + 1, elements + t:numel()
      bytes = bytes + t:numel() * t:element_size()
    end
  end
  lines[#lines + 1] = ("%d tensor%s, %.0f elements, %s"):format(count, count == 1 and "" or "s", elements,
    log.bytes(bytes))
  if #rows > 1 then lines[#lines + 1] = log.table(rows) end
  for _, name in ipairs(sorted_keys(unread or {})) do
    if name:find(only, 1, true) then lines[#lines + 1] = ("%s is not read: it %s"):format(name, unread[name]) end
  end
end

local function of_safetensors(lines, path, only)
  local tensors, metadata, unread = safetensors.load(path)
  for _, key in ipairs(sorted_keys(metadata)) do
    local text = metadata[key]
    lines[#lines + 1] = ("  %s = %s"):format(key, #text > 80 and text:sub(1, 77) .. "..." or text)
  end
  add_tensors(lines, tensors, only, unread)
end

local function of_npz(lines, path, only)
  local tensors, unread = npy.from_npz(path)
  add_tensors(lines, tensors, only, unread)
end

local function of_torch(lines, path, only)
  local opened, tensors = torch_file.open(path), {}
  for _, entry in ipairs(opened.tensors) do tensors[entry.name] = torch_file.tensor(opened, entry) end
  add_tensors(lines, tensors, only)
end

local function of_npy(lines, path) add_tensors(lines, {array = npy.from_npy(path)}, "") end

-- ---- checkpoints -------------------------------------------------------------------------------------------------

local function bytes_of(body)
  local sum = 0
  for _, entry in ipairs(body.files) do sum = sum + entry.bytes end
  return sum
end

--- Returns a checkpoint's settings, without the layers, which a resumed run compares.
local function settings_of(identity)
  local list = {}
  for _, name in ipairs(sorted_keys(identity)) do
    local text = tonumber(identity[name]) and ("%.10g"):format(identity[name]) or identity[name]
    if text ~= "" and text ~= "nil" and not name:find(":", 1, true) and not name:find "^version" and
      not name:find "^layer '" and not name:find "^loss '" then
      list[#list + 1] = ("%s=%s"):format(name:gsub(" ", "_"), text)
    end
  end
  return list
end

local function of_checkpoint(lines, folder, only)
  local body, why = manifest.read(folder)
  if not body then raise(("%s is no complete checkpoint: %s"):format(folder, why)) end
  local identity = body.identity or {}
  lines[#lines + 1] = ("checkpoint of %s: step %d, epoch %d, %d rank%s, %s"):format(identity.model or "a model",
    body.step, body.epoch, body.ranks, body.ranks == 1 and "" or "s", body.coder)
  local shape = type(body.inputs) == "table" and body.inputs.shape
  if shape then
    lines[#lines + 1] = ("images: %s high x wide x channels, %s classes"):format(table.concat(shape, " x "),
      tostring(body.inputs.classes or "?"))
  end
  if next(identity) then lines[#lines + 1] = settings_text(settings_of(identity)) end
  local rows = {{"file", "size", "checksum"}}
  for _, entry in ipairs(body.files) do
    rows[#rows + 1] = {entry.name, log.bytes(entry.bytes), manifest.problem(folder, entry) or "sound"}
  end
  lines[#lines + 1] = log.table(rows)
  if disk.kind(folder .. "/model.safetensors") == "file" then
    local tensors, shown = safetensors.load(folder .. "/model.safetensors"), {}
    for name, t in pairs(tensors) do shown[name:gsub("^model/", "")] = t end
    add_tensors(lines, shown, only)
  end
end

--- The history of a run: its checkpoints, in the order in which they were saved.
local function of_run(lines, folder)
  local sound, others = step_folders.list(folder)
  local latest, best = step_folders.pointed(folder, "latest"), step_folders.pointed(folder, "best")
  local best_text = best and disk.read_text(folder .. "/best"):match "^%S+%s+(.-)%s*$" or ""
  local rows = {{"checkpoint", "model", "epoch", "step", "ranks", "size", ""}}
  for i = #sound, 1, -1 do
    local name, body = sound[i].name, sound[i].body
    local notes = {}
    if name == latest then notes[#notes + 1] = "latest" end
    if name == best then notes[#notes + 1] = "best" .. (best_text ~= "" and ": " .. best_text or "") end
    rows[#rows + 1] = {name, body.identity and body.identity.model or "-", body.epoch, body.step, body.ranks,
      log.bytes(bytes_of(body)), table.concat(notes, ", ")}
  end
  if #sound + #others == 0 then raise(("%s has no checkpoint, no folder step-N"):format(folder)) end
  lines[#lines + 1] = ("%d complete checkpoint%s"):format(#sound, #sound == 1 and "" or "s")
  if #sound > 0 then lines[#lines + 1] = log.table(rows) end
  for _, each in ipairs(others) do lines[#lines + 1] = ("%s is not complete: %s"):format(each.name, each.why) end
end

-- ---- logs --------------------------------------------------------------------------------------------------------

local function number_or(v, format, scale) return type(v) == "number" and format:format(v * (scale or 1)) or "-" end

local function add_run(lines, run)
  local seconds = runs.seconds(run)
  lines[#lines + 1] = ("run %d: %s, compressor %s, %s rank%s, %d steps, %s%s"):format(run.number,
    tostring(run.settings.model or "a model"), tostring(run.settings.compress or "-"), tostring(run.ranks or "?"),
    run.ranks == 1 and "" or "s", #run.steps, seconds and log.duration(seconds) or "no time",
    run.finish and "" or ", no end")
  local rows = {{"epoch", "loss", "accuracy", "test loss", "test accuracy", "sent by rank 0", "time"}}
  for _, e in ipairs(run.epochs) do
    rows[#rows + 1] = {e.epoch or "-", number_or(e.loss, "%.4f"), number_or(e.accuracy, "%.2f %%", 100),
      number_or(e.test_loss, "%.4f"), number_or(e.test_accuracy, "%.2f %%", 100), log.bytes(e.bytes),
      e.time and log.duration(e.time) or "-"}
  end
  if #rows > 1 then lines[#lines + 1] = log.table(rows) end
end

local function of_log(lines, path)
  local list, bad = runs.read(path)
  if #list == 0 then raise(("%s holds no run: no line with \"event\":\"run\""):format(path)) end
  for _, run in ipairs(list) do add_run(lines, run) end
  if #bad > 0 then lines[#lines + 1] = ("%d lines cannot be read: %s"):format(#bad, bad[1]) end
end

-- ---- any ---------------------------------------------------------------------------------------------------------

--- End of a file's name -> what it holds, and function(lines, path, only) that adds lines about it.
local kinds = {
  {"%.safetensors$", "safetensors", of_safetensors}, {"%.npz$", "NumPy archive", of_npz},
  {"%.npy$", "NumPy array", of_npy}, {"%.jsonl$", "log", of_log}, {"%.pth?$", "PyTorch state_dict", of_torch},
}

--- First bytes of a file -> its kind, for files whose name does not tell it.
local signatures = {{"^\147NUMPY", 3}, {"^PK\3\4", 2}, {'^{"', 4}, {"^........{", 1}}

local function kind_of_file(path)
  for _, kind in ipairs(kinds) do
    if path:find(kind[1]) then return kind end
  end
  local file, why = io.open(path, "rb")
  if not file then raise(why) end
  local head = file:read(9) or ""
  file:close()
  for _, entry in ipairs(signatures) do
    if head:find(entry[1]) then return kinds[entry[2]] end
  end
  raise(("%s is of no known kind: expected a folder of checkpoints, .safetensors, .npz, .npy, .pt or a log"):format(
    path))
end

--- Returns lines about a file or folder. Raises if it is of no known kind, or damaged.
---@param path string
---@param only string?  only tensors whose names contain this text
---@return string[]
function M.describe(path, only)
  local kind, lines = disk.kind(path), {}
  only = only or ""
  if not kind then raise(("%s is not there"):format(path)) end
  local folder, pointer = path:match "^(.-)/?(%a+)$"
  local pointed = kind == "file" and (pointer == "best" or pointer == "latest") and
    step_folders.pointed(folder == "" and "." or folder, pointer)
  if pointed then path, kind = ("%s/%s"):format(folder == "" and "." or folder, pointed), "folder" end
  if kind == "folder" and not step_folders.split(path) then
    lines[1] = path .. ": folder of checkpoints"
    of_run(lines, path)
  elseif kind == "folder" then
    lines[1] = path
    of_checkpoint(lines, path, only)
  else
    local of = kind_of_file(path)
    lines[1] = ("%s: %s, %s"):format(path, of[2], log.bytes((disk.checksum(path))))
    of[3](lines, path, only)
  end
  return lines
end

return M
