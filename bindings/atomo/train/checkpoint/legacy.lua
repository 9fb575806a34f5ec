--- Reads checkpoints of earlier versions: one file PATH with parameters, buffers, optimizer and position ("model.*",
-- "optimizer.*", "outer.*"), and files PATH.rankN-CHECKSUM (still earlier PATH.rankN) with the state of each rank. They
-- were written after complete epochs. This version does not write them.
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local disk = require "atomo.train.checkpoint.disk"
local file = require "atomo.train.checkpoint.file"
local together = require "atomo.train.checkpoint.together"
local raise = require("atomo.ffi").raise

local M = {}

--- Sorts entries named "SECTION.NAME" into {SECTION = state_dict}; raises for other names. rooms: the known sections.
local function read_states(path, tensors, metadata, rooms)
  local states = {}
  for _, room in ipairs(rooms) do states[room] = {} end
  for name, t in pairs(tensors) do
    local room, rest = name:match "^(%a+)%.(.+)$"
    if not states[room] then
      raise(("checkpoint: %s holds '%s', which has no place in this run"):format(path, name))
    end
    states[room][rest] = t
  end
  for name, text in pairs(metadata) do
    local room, rest = name:match "^(%a+)%.(.+)$"
    if states[room] then states[room][rest] = tonumber(text) end
  end
  return states
end

--- Restores this rank's own state from file `name`.
local function restore_rank(name, run, step)
  local tensors, metadata = file.read(name)
  if tonumber(metadata.step) ~= step or tonumber(metadata.ranks) ~= run.comm.size then
    raise(("checkpoint: %s was written in step %s on %s ranks, expected step %d on %d ranks"):format(name,
      brief(metadata.step), brief(metadata.ranks), step, run.comm.size))
  end
  local states = read_states(name, tensors, metadata, {"memory", "optimizer"})
  run.exchange:load_state_dict(states.memory)
  if run.local_sgd and states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  for _, t in pairs(tensors) do t:free() end
end

--- Returns the name of this rank's own file, nil if there is none. The oldest checkpoints do not record whether there
--- are such files: if any rank finds PATH.rankN, all ranks need theirs. [collective]
local function find_rank_file(path, run, metadata)
  local rank = run.comm.rank
  if metadata.ranks then
    local checksum = metadata["own.rank" .. rank]
    return checksum and ("%s.rank%d-%s"):format(path, rank, checksum)
  end
  local name = ("%s.rank%d"):format(path, rank)
  local any = run.comm:allreduce(T.full({1}, disk.kind(name) and 1 or 0), "max"):item() > 0
  return any and name or nil
end

--- Restores each rank's own state, unless number of ranks, compressor or topology have changed. [collective]
local function load_rank(path, run, step, metadata, made_for, say)
  local ranks = tonumber(metadata.ranks)
  if ranks and ranks ~= run.comm.size then
    if metadata["own.rank0"] then say.ranks(ranks) end
    return
  elseif metadata.coder and metadata.coder ~= made_for then
    if metadata["own.rank0"] then say.coder(metadata.coder) end
    return
  end
  local name = find_rank_file(path, run, metadata)
  together.run(run.comm, function()
    if not name then return end
    if not disk.kind(name) then raise(("checkpoint: %s is missing, %s needs it"):format(name, path)) end
    restore_rank(name, run, step)
  end)
end

--- Restores model, optimizer and compressor memories; sets run.step and run.place. Returns the number of ranks of the
--- run that saved it, nil if unknown. [collective]
---@param path string
---@param run table
---@param made_for string   the exchange's compressor and topology
---@param say {ranks: fun(n: integer), coder: fun(text: string)}   report state that is reset
---@param compare fun()     called when the state that all ranks share has been loaded
function M.load(path, run, made_for, say, compare)
  local tensors, metadata = unpack(together.run(run.comm, function() return {file.read(path)} end))
  local states = read_states(path, tensors, metadata,
    run.local_sgd and {"model", "outer", "optimizer"} or {"model", "optimizer"})
  run.model:load_state_dict(states.model)
  if states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  if run.local_sgd and states.outer.steps then run.local_sgd.optimizer:load_state_dict(states.outer) end
  for _, t in pairs(tensors) do t:free() end
  local step, epoch = tonumber(metadata.step), tonumber(metadata.epoch)
  if not step or not epoch then raise(("checkpoint: %s lacks its step or epoch"):format(path)) end
  if metadata["exchange.choice"] and run.exchange.restore then run.exchange:restore(metadata["exchange.choice"]) end
  run.exchange:set_step(tonumber(metadata.exchanges) or step)
  run.runner.unit = tonumber(metadata.unit)
  run.step, run.place = step, {epoch = epoch, taken = 0}
  compare()
  load_rank(path, run, step, metadata, made_for(), say)
  return tonumber(metadata.ranks)
end

return M
