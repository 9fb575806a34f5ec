--- Checkpoints: parameters, buffers, optimizer state and place in the run, in one safetensors file (names "model.*",
--- "optimizer.*", "outer.*"); a run that goes on from one ends with the same bits as the run that was not stopped.
-- Rank 0 writes; every rank reads. Randomness needs no saving: every stream is named by seed, step and rank. What is a
-- rank's own goes to PATH.rankN beside it: what its compressor remembers (error feedback, PowerSGD's factors) and, with
-- local steps, its optimizer's state. Every file carries a checksum of all that it says: damaged ones are refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local safetensors = require "atomo.safetensors"
local C, check, raise = f.C, f.check, f.raise

local M = {}

local FORMAT = "atomo-checkpoint-2"

--- CRC-32 of all names, types, shapes, bytes and metadata, as text.
local function digest(tensors, metadata)
  local lines, crc = {}, f.ffi.new "double[1]"
  for name, t in pairs(tensors) do
    local whole = t:is_contiguous() and t or t:detach():contiguous()
    check(C.atomo_tensor_crc(whole.h, crc))
    lines[#lines + 1] = ("%s %s %s %08x"):format(name, t:dtype(), T.shape_text(t), crc[0])
  end
  for key, text in pairs(metadata) do
    if key ~= "checksum" then lines[#lines + 1] = ("%s=%s"):format(key, text) end
  end
  table.sort(lines)
  local text = table.concat(lines, "\n")
  return ("%08x"):format(C.atomo_crc32(text, #text))
end

--- Writes one file of the format; metadata gets the format's name and the checksum.
---@param path string
---@param tensors table<string, atomo.Tensor>
---@param metadata table<string, string>
function M.write(path, tensors, metadata)
  metadata.format = FORMAT
  metadata.checksum = digest(tensors, metadata)
  safetensors.save(path, tensors, metadata)
end

--- Reads one; what is of another format, or was changed since it was written, is refused.
---@param path string
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> metadata
function M.read(path)
  local tensors, metadata = safetensors.load(path)
  if metadata.format ~= FORMAT then
    raise(("checkpoint: %s is no checkpoint of this version: format '%s', expected '%s'"):format(path,
      tostring(metadata.format), FORMAT))
  end
  local found = digest(tensors, metadata)
  if metadata.checksum ~= found then
    raise(("checkpoint: %s is damaged: it says checksum %s, its contents have %s"):format(path,
      tostring(metadata.checksum), found))
  end
  return tensors, metadata
end

--- A state_dict into tensors and metadata, both under names that begin with `room`.
local function put(tensors, metadata, room, state)
  for name, v in pairs(state) do
    if T.is_tensor(v) then tensors[room .. name] = v else metadata[room .. name] = ("%.17g"):format(v) end
  end
end

--- The reverse: {room = state_dict} of names "room.name"; other names raise.
local function take(path, tensors, metadata, rooms)
  local states = {}
  for _, room in ipairs(rooms) do states[room] = {} end
  for name, t in pairs(tensors) do
    local room, rest = name:match "^(%a+)%.(.+)$"
    if not states[room] then
      raise(("checkpoint: %s holds '%s', which belongs nowhere in this run"):format(path, name))
    end
    states[room][rest] = t
  end
  for name, text in pairs(metadata) do
    local room, rest = name:match "^(%a+)%.(.+)$"
    if states[room] then states[room][rest] = tonumber(text) end
  end
  return states
end

--- Writes what is this rank's own, where there is any.
local function save_own(path, run)
  local comm, tensors = run.exchange.comm, {}
  local metadata = {step = ("%d"):format(run.step), ranks = ("%d"):format(comm.size)}
  put(tensors, metadata, "memory.", run.exchange:state_dict())
  if run.outer then put(tensors, metadata, "optimizer.", run.optimizer:state_dict()) end
  if next(tensors) or run.outer then M.write(("%s.rank%d"):format(path, comm.rank), tensors, metadata) end
end

--- Puts it back, where it is of this step and of a run of as many ranks; else it begins anew.
local function load_own(path, run, step)
  local comm = run.exchange.comm
  local name = ("%s.rank%d"):format(path, comm.rank)
  local file = io.open(name, "rb")
  if not file then return end
  file:close()
  local tensors, metadata = M.read(name)
  if tonumber(metadata.step) == step and tonumber(metadata.ranks) == comm.size then
    local states = take(name, tensors, metadata, {"memory", "optimizer"})
    run.exchange:load_state_dict(states.memory)
    if run.outer and states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  end
  for _, t in pairs(tensors) do t:free() end
end

--- Writes where the run stands. Compressors forget their steering here, in the run that goes on as in one that is
--- resumed, so that both have the same bits. [collective]
---@param path string
---@param run {model: table, optimizer: atomo.Optimizer, exchange: atomo.Exchange, outer: atomo.Outer?, step: integer,
--- epoch: integer}
function M.save(path, run)
  local comm = run.exchange.comm
  save_own(path, run)
  local problem
  if comm.rank == 0 then
    local tensors, metadata = {}, {step = ("%d"):format(run.step), epoch = ("%d"):format(run.epoch),
      exchanges = ("%d"):format(run.exchange.step)}
    metadata["exchange.choice"] = run.exchange.choice and run.exchange:choice() or nil
    put(tensors, metadata, "model.", run.model:state_dict())
    if run.outer then put(tensors, metadata, "outer.", run.outer.optimizer:state_dict())
    else put(tensors, metadata, "optimizer.", run.optimizer:state_dict()) end
    local ok, text = pcall(M.write, path, tensors, metadata)
    problem = not ok and text
  end
  if problem then raise(("checkpoint: %s"):format(problem)) end
  comm:barrier() -- no rank goes on before the file is there
  run.exchange:restart()
end

--- Puts model and optimizer back; returns step and epoch. Every rank calls it.
---@param path string
function M.load(path, run)
  local tensors, metadata = M.read(path)
  local states = take(path, tensors, metadata, run.outer and {"model", "outer", "optimizer"} or {"model", "optimizer"})
  run.model:load_state_dict(states.model)
  if states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  if run.outer and states.outer.steps then run.outer.optimizer:load_state_dict(states.outer) end
  for _, t in pairs(tensors) do t:free() end
  local step, epoch = tonumber(metadata.step), tonumber(metadata.epoch)
  if not step or not epoch then raise(("checkpoint: %s lacks its step or epoch"):format(path)) end
  if metadata["exchange.choice"] and run.exchange.restore then run.exchange:restore(metadata["exchange.choice"]) end
  run.exchange:set_step(tonumber(metadata.exchanges) or step)
  load_own(path, run, step)
  return step, epoch
end

return M
