--- Checkpoints: parameters, buffers, optimizer state and place in the run, in one safetensors file (names "model.*",
--- "optimizer.*"); a run that goes on from one ends with the same bits as the run that was not stopped.
-- Rank 0 writes; every rank reads. Randomness needs no saving: every stream is named by seed, step and rank. What a
-- rank's compressor remembers (error feedback, PowerSGD's factors) is that rank's own: it goes to PATH.rankN beside it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local safetensors = require "atomo.safetensors"
local raise = f.raise

local M = {}

local FORMAT = "atomo-checkpoint-1"

--- Writes this rank's compressor's memory, where it has any.
local function save_memory(path, run)
  local comm, memory = run.exchange.comm, run.exchange.compressor:state_dict()
  if not next(memory) then return end
  safetensors.save(("%s.rank%d"):format(path, comm.rank), memory,
    {format = FORMAT, step = ("%d"):format(run.step), ranks = ("%d"):format(comm.size)})
end

--- Puts it back, where it is of this step and of a run of as many ranks; else the memory begins anew.
local function load_memory(path, run, step)
  local comm = run.exchange.comm
  local name = ("%s.rank%d"):format(path, comm.rank)
  local file = io.open(name, "rb")
  if not file then return end
  file:close()
  local memory, metadata = safetensors.load(name)
  if metadata.format == FORMAT and tonumber(metadata.step) == step and tonumber(metadata.ranks) == comm.size then
    run.exchange.compressor:load_state_dict(memory)
  end
  for _, t in pairs(memory) do t:free() end
end

--- Writes where the run stands. Compressors forget their steering here, in the run that goes on as in one that is
--- resumed, so that both have the same bits. [collective]
---@param path string
---@param run {model: table, optimizer: atomo.Optimizer, exchange: atomo.Exchange, step: integer, epoch: integer}
function M.save(path, run)
  local comm = run.exchange.comm
  save_memory(path, run)
  local problem
  if comm.rank == 0 then
    local tensors = {}
    for name, t in pairs(run.model:state_dict()) do tensors["model." .. name] = t end
    local metadata = {format = FORMAT, step = ("%d"):format(run.step), epoch = ("%d"):format(run.epoch)}
    metadata["exchange.choice"] = run.exchange.choice and run.exchange:choice() or nil
    for name, v in pairs(run.optimizer:state_dict()) do
      if T.is_tensor(v) then tensors["optimizer." .. name] = v
      else metadata["optimizer." .. name] = ("%.17g"):format(v) end
    end
    local ok, text = pcall(safetensors.save, path, tensors, metadata)
    problem = not ok and text
  end
  if problem then raise(("checkpoint: %s"):format(problem)) end
  comm:barrier() -- no rank goes on before the file is there
  run.exchange:restart()
end

--- Puts model and optimizer back; returns step and epoch. Every rank calls it.
---@param path string
function M.load(path, run)
  local tensors, metadata = safetensors.load(path)
  if metadata.format ~= FORMAT then
    raise(("checkpoint: %s is no checkpoint of this version: format '%s', expected '%s'"):format(path,
      tostring(metadata.format), FORMAT))
  end
  local model, optimizer = {}, {}
  for name, t in pairs(tensors) do
    local room, rest = name:match "^(%a+)%.(.+)$"
    if room == "model" then model[rest] = t
    elseif room == "optimizer" then optimizer[rest] = t
    else raise(("checkpoint: %s holds '%s', which belongs nowhere"):format(path, name)) end
  end
  for name, text in pairs(metadata) do
    local rest = name:match "^optimizer%.(.+)$"
    if rest then optimizer[rest] = tonumber(text) end
  end
  run.model:load_state_dict(model)
  run.optimizer:load_state_dict(optimizer)
  for _, t in pairs(tensors) do t:free() end
  local step, epoch = tonumber(metadata.step), tonumber(metadata.epoch)
  if not step or not epoch then raise(("checkpoint: %s lacks its step or epoch"):format(path)) end
  if metadata["exchange.choice"] and run.exchange.restore then run.exchange:restore(metadata["exchange.choice"]) end
  run.exchange.step = step
  load_memory(path, run, step)
  return step, epoch
end

return M
