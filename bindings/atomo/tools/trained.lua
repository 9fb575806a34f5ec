--- Opens the result of a training run. Reads the model's tensors from a folder of checkpoints, one checkpoint, a
-- checkpoint of an earlier version, or a safetensors, NumPy or PyTorch file. Makes a model with the number of classes
-- and channels of these tensors.
local check = require "atomo.train.checkpoint"
local disk = require "atomo.train.checkpoint.disk"
local file = require "atomo.train.checkpoint.file"
local step_folders = require "atomo.train.checkpoint.step_folders"
local manifest = require "atomo.train.checkpoint.manifest"
local npy = require "atomo.tensor.npy"
local safetensors = require "atomo.tensor.safetensors"
local torch = require "atomo.nn.torch"
local torch_file = require "atomo.nn.torch.file"
local raise = require("atomo.ffi").raise

local M = {}

---@class atomo.Trained
---@field path string                          the file that was read
---@field tensors table<string, atomo.Tensor>?  the model's, by name; nil of a PyTorch file
---@field torch boolean?                       a PyTorch file: read when the model is known
---@field step integer?                        of a checkpoint
---@field epoch integer?
---@field identity table<string, string>       settings of the run, as texts; empty if unknown
---@field settings table                       of the run, as its script's options; empty if unknown
---@field inputs table                         {shape = {h, w, c}, mean=, std=, classes=}; empty if unknown

--- Returns the tensors whose names begin with `first`, without it.
local function section(tensors, first)
  local list = {}
  for name, t in pairs(tensors) do
    if name:sub(1, #first) == first then list[name:sub(#first + 1)] = t end
  end
  return list
end

--- Returns the folder of the checkpoint that a path names: DIR (its newest one), DIR/step-N, DIR/best or DIR/latest;
--- nil for other paths.
---@param path string
---@return string?
function M.checkpoint_of(path)
  local folder, pointer = path:match "^(.-)/?(%a+)$"
  if disk.kind(path) == "file" then
    local name = (pointer == "best" or pointer == "latest") and step_folders.pointed(folder == "" and "." or folder,
      pointer)
    return name and ("%s/%s"):format(folder == "" and "." or folder, name)
  elseif disk.kind(path) ~= "folder" then
    raise(("%s is not there: expected a file of weights or a folder of checkpoints"):format(path))
  elseif step_folders.split(path) then
    return (path:gsub("/+$", ""))
  end
  local sound, others = step_folders.list(path)
  if not sound[1] then
    raise(("%s has no complete checkpoint%s"):format(path, others[1] and (": %s: %s"):format(others[1].name,
      others[1].why) or ", no folder step-N"))
  end
  return ("%s/%s"):format(path, sound[1].name)
end

local function of_checkpoint(folder)
  local body, why = manifest.read(folder)
  if not body then raise(("%s is no complete checkpoint: %s"):format(folder, why)) end
  local path = folder .. "/model.safetensors"
  for _, entry in ipairs(body.files) do
    local problem = entry.name == "model.safetensors" and manifest.problem(folder, entry)
    if problem then raise(("%s: %s"):format(folder, problem)) end
  end
  return {path = path, tensors = section(check.read(path), "model/"), step = body.step, epoch = body.epoch,
    identity = body.identity or {}, inputs = type(body.inputs) == "table" and body.inputs or {},
    settings = type(body.settings) == "table" and body.settings or {}}
end

local function of_safetensors(path)
  local tensors, metadata = safetensors.load(path)
  if metadata.format ~= file.FORMAT then return {path = path, tensors = tensors, identity = {}, inputs = {}} end
  tensors = check.read(path) -- again, with its checksum
  local own = section(tensors, "model/")
  return {path = path, tensors = next(own) and own or section(tensors, "model."), step = tonumber(metadata.step),
    epoch = tonumber(metadata.epoch), identity = {}, inputs = {}}
end

--- Raises if nothing was found; returns it.
local function not_empty(found)
  if not next(found.tensors) then raise(("%s holds no tensors of a model"):format(found.path)) end
  return found
end

--- A file of PyTorch. Its tensors are matched with those of the model when the model is known.
local function of_torch(path)
  local shapes = {}
  for _, entry in ipairs(torch_file.open(path).tensors) do
    if not entry.name:match "num_batches_tracked$" then shapes[#shapes + 1] = entry.spec.size end
  end
  local first, last = shapes[1], shapes[#shapes]
  return {path = path, torch = true, channels = #first == 4 and first[2] or nil, classes = last[1], identity = {},
    inputs = {}}
end

local function read(path)
  local folder = M.checkpoint_of(path)
  if folder then return not_empty(of_checkpoint(folder)) end
  if path:match "%.npz$" then
    return not_empty {path = path, tensors = npy.from_npz(path), identity = {}, inputs = {}}
  end
  if path:match "%.pth?$" then return of_torch(path) end
  return not_empty(of_safetensors(path))
end

--- Reads the model's tensors. Raises if the path has none.
---@param path string
---@return atomo.Trained
function M.read(path)
  local found = read(path)
  found.settings = found.settings or {}
  return found
end

--- Returns the file's tensor with the name of a model's first or last parameter.
local function like(model, found, at)
  local list = model:named_parameters()
  return found.tensors and found.tensors[list[at > 0 and at or #list][1]]
end

--- Returns an error text of load_state_dict, at most about 200 characters of it.
function M.shortened(why)
  local text = tostring(why):gsub("^.-load_state_dict of %w+: ", "")
  return #text > 200 and text:sub(1, 200):gsub(",[^,]*$", "") .. ", ..." or text
end

--- Makes the model of a name with the classes and channels that the weights have, and loads them.
---@param found atomo.Trained
---@param name string?  default: that of the run that saved it
---@param open fun(name: string, opts: table): atomo.Module  models.open
---@param shape integer[]?  {h, w, c} of the images, if the checkpoint does not say it
---@return atomo.Module
---@return string name
function M.model(found, name, open, shape)
  name = name ~= "" and name or found.identity.model
  if not name then raise(("%s does not say its model: name it, --model resnet20"):format(found.path)) end
  shape = found.inputs.shape or shape
  local probe = open(name, {shape = shape})
  local first, last = like(probe, found, 1), like(probe, found, 0)
  local model = open(name, {shape = shape, classes = found.classes or last and last:dim() > 0 and last:size(1) or nil,
    channels = found.channels or first and first:dim() == 4 and first:size(4) or nil})
  if found.torch then
    torch.load(found.path, model, {channels = found.channels or shape and shape[3] or 3})
    return model, name
  end
  local ok, why = pcall(model.load_state_dict, model, found.tensors)
  if not ok then
    local of = found.identity.model
    if of == name and not found.inputs.shape then
      raise(("%s does not say the size of its images, and is no %s of %s; name it, --data or --size: %s"):format(
        found.path, name, shape and table.concat(shape, " x ") or "the default", M.shortened(why)))
    end
    raise(("%s holds no %s%s: %s"):format(found.path, name, of and (", it is of a run of %s"):format(of) or "",
      M.shortened(why)))
  end
  return model, name
end

return M
