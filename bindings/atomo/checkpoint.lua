--- Checkpoints: parameters, buffers, optimizer state and place in the run, in one safetensors file (names "model.*",
--- "optimizer.*"); a run that goes on from one ends with the same bits as the run that was not stopped.
-- Rank 0 writes; every rank reads. Randomness needs no saving: every stream is named by seed, step and rank.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local safetensors = require "atomo.safetensors"
local raise = f.raise

local M = {}

local FORMAT = "atomo-checkpoint-1"

--- Writes where the run stands. [collective]
---@param path string
---@param run {model: table, optimizer: atomo.Optimizer, exchange: atomo.Exchange, step: integer, epoch: integer}
function M.save(path, run)
  local comm = run.exchange.comm
  local problem
  if comm.rank == 0 then
    local tensors = {}
    for name, t in pairs(run.model:state_dict()) do tensors["model." .. name] = t end
    local metadata = {format = FORMAT, step = ("%d"):format(run.step), epoch = ("%d"):format(run.epoch)}
    for name, v in pairs(run.optimizer:state_dict()) do
      if T.is_tensor(v) then tensors["optimizer." .. name] = v
      else metadata["optimizer." .. name] = ("%.17g"):format(v) end
    end
    local ok, text = pcall(safetensors.save, path, tensors, metadata)
    problem = not ok and text
  end
  if problem then raise(("checkpoint: %s"):format(problem)) end
  comm:barrier() -- no rank goes on before the file is there
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
  run.exchange.step = step
  return step, epoch
end

return M
