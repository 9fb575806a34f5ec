--- Checkpoints: parameters, buffers, optimizer state and place in the run, in one safetensors file (names "model.*",
--- "optimizer.*", "outer.*"); a run that goes on from one ends with the same bits as the run that was not stopped.
-- Rank 0 writes; every rank reads. Randomness needs no saving: every stream is named by seed, step and rank. What is a
-- rank's own goes to PATH.rankN-CHECKSUM beside it: what its compressor remembers (error feedback, PowerSGD's factors)
-- and, with local steps, its optimizer's state. These are written first; PATH, renamed into place when all are there,
-- names them by their checksums. So the files that PATH names are always one generation: a kill at any moment leaves
-- the last one whole. Every file carries a checksum of all that it says: damaged ones are refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local safetensors = require "atomo.tensor.safetensors"
local C, raise = f.C, f.raise

local M = {}

local FORMAT = "atomo-checkpoint-2"

--- CRC-32 of all names, types, shapes, bytes and metadata, as text.
local function digest(tensors, metadata)
  local lines = {}
  for name, t in pairs(tensors) do
    lines[#lines + 1] = ("%s %s %s %08x"):format(name, t:dtype(), T.shape_text(t), T.crc(t))
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
---@return string checksum
function M.write(path, tensors, metadata)
  metadata.format = FORMAT
  metadata.checksum = digest(tensors, metadata)
  safetensors.save(path, tensors, metadata)
  return metadata.checksum
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

--- fn() on every rank; what it returns on this one. An error on any rank is raised on all. [collective]
local function together(comm, fn)
  local ok, result = pcall(fn)
  for rank, text in ipairs(comm:allgatherv(ok and "" or "!" .. tostring(result))) do
    if text ~= "" then
      raise(("checkpoint: rank %d: %s"):format(rank - 1, (text:sub(2):gsub("^[^\n]-checkpoint: ", ""))))
    end
  end
  return result
end

local function own_name(path, rank, checksum) return ("%s.rank%d-%s"):format(path, rank, checksum) end

local held = {} -- by path: the file of this rank's own that the path's generation names

--- Writes what is this rank's own, where there is any; returns its checksum, else "".
local function save_own(path, run)
  local comm, tensors = run.exchange.comm, {}
  local metadata = {step = ("%d"):format(run.step), ranks = ("%d"):format(comm.size), format = FORMAT}
  put(tensors, metadata, "memory.", run.exchange:state_dict())
  if run.outer then put(tensors, metadata, "optimizer.", run.optimizer:state_dict()) end
  if not next(tensors) and not run.outer then return "" end
  return M.write(own_name(path, comm.rank, digest(tensors, metadata)), tensors, metadata)
end

--- What the compressor's memory was made for.
local function coder(run)
  local c = run.exchange.compressor
  return c and not run.exchange.choice and ("%s, topology %s"):format(tostring(c), run.exchange.topology) or nil
end

--- Puts back what is this rank's own, from the file `name`.
local function take_own(name, run, step)
  local tensors, metadata = M.read(name)
  if tonumber(metadata.step) ~= step or tonumber(metadata.ranks) ~= run.exchange.comm.size then
    raise(("checkpoint: %s is of step %s of a run of %s ranks, the checkpoint of step %d of %d"):format(name,
      tostring(metadata.step), tostring(metadata.ranks), step, run.exchange.comm.size))
  end
  local states = take(name, tensors, metadata, {"memory", "optimizer"})
  run.exchange:load_state_dict(states.memory)
  if run.outer and states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  for _, t in pairs(tensors) do t:free() end
end

local function exists(name)
  local file = io.open(name, "rb")
  return file ~= nil and file:close()
end

--- The name of this rank's own file, nil where there is none. A checkpoint of an earlier version does not say whether
--- there were any: one rank's file, PATH.rankN, means that all had theirs. [collective]
local function find_own(path, run, metadata)
  local comm = run.exchange.comm
  if metadata.ranks then
    local checksum = metadata["own.rank" .. comm.rank]
    return checksum and own_name(path, comm.rank, checksum)
  end
  local name = ("%s.rank%d"):format(path, comm.rank)
  local any = comm:allreduce(T.full({1}, exists(name) and 1 or 0), "max"):item() > 0
  return any and name or nil
end

--- Puts back what is each rank's own. Returns a line for what begins anew instead, or nil. [collective]
local function load_own(path, run, step, metadata)
  local comm, ranks, made_for = run.exchange.comm, tonumber(metadata.ranks), coder(run)
  local other = metadata.coder and made_for and metadata.coder ~= made_for
  if ranks and ranks ~= comm.size then
    local text = "what each of %d ranks remembered (compressor, local optimizer) begins anew on %d"
    return metadata["own.rank0"] and text:format(ranks, comm.size)
  elseif other then
    return metadata["own.rank0"] and ("what %s remembered begins anew for %s"):format(metadata.coder, made_for)
  end
  local name = find_own(path, run, metadata)
  together(comm, function()
    if not name then return end
    if not exists(name) then raise(("checkpoint: %s is missing, %s needs it"):format(name, path)) end
    take_own(name, run, step)
  end)
  held[path] = name
end

local function save_main(path, run, checksums)
  local tensors, metadata = {}, {step = ("%d"):format(run.step), epoch = ("%d"):format(run.epoch),
    exchanges = ("%d"):format(run.exchange.step), ranks = ("%d"):format(run.exchange.comm.size), coder = coder(run)}
  for rank, checksum in ipairs(checksums) do
    if checksum ~= "" then metadata["own.rank" .. rank - 1] = checksum end
  end
  metadata["exchange.choice"] = run.exchange.choice and run.exchange:choice() or nil
  metadata.unit = run.runner and run.runner.unit and ("%.17g"):format(run.runner.unit) or nil
  put(tensors, metadata, "model.", run.model:state_dict())
  if run.outer then put(tensors, metadata, "outer.", run.outer.optimizer:state_dict())
  else put(tensors, metadata, "optimizer.", run.optimizer:state_dict()) end
  M.write(path, tensors, metadata)
end

--- Writes where the run stands. Compressors forget their steering here, in the run that goes on as in one that is
--- resumed, so that both have the same bits. An error on any rank is raised on all; the generation before stays.
--- [collective]
---@param path string
---@param run {model: table, optimizer: atomo.Optimizer, exchange: atomo.Exchange, outer: atomo.Outer?, runner:
--- atomo.Step?, step: integer, epoch: integer}
function M.save(path, run)
  local comm = run.exchange.comm
  local checksum = together(comm, function() return save_own(path, run) end)
  local checksums = comm:allgatherv(checksum)
  together(comm, function()
    if comm.rank == 0 then save_main(path, run, checksums) end
  end)
  local name = checksum ~= "" and own_name(path, comm.rank, checksum) or nil
  if held[path] and held[path] ~= name then os.remove(held[path]) end
  held[path] = name
  run.exchange:restart()
end

--- Refuses a path that save could not write, before the training; what is there is left alone. [collective]
---@param path string
---@param comm table
function M.probe(path, comm)
  together(comm, function()
    local name = ("%s.rank%d.probe"):format(path, comm.rank)
    M.write(name, {}, {})
    os.remove(name)
    local file = io.open(path, "rb")
    if not file then return end
    local head, why = file:read(4096)
    file:close()
    if why then raise(("checkpoint: %s cannot be read: %s"):format(path, why)) end
    if head and not head:find(FORMAT:match "^%a+%-%a+", 1, true) then
      raise(("checkpoint: %s is there already and is no checkpoint: it is not overwritten"):format(path))
    end
  end)
end

--- Puts model and optimizer back; returns step, epoch, the number of ranks that it was saved by (nil: unknown), and a
--- line for what begins anew or nil. [collective]
---@param path string
function M.load(path, run)
  local comm = run.exchange.comm
  local tensors, metadata = unpack(together(comm, function() return {M.read(path)} end))
  local states = take(path, tensors, metadata, run.outer and {"model", "outer", "optimizer"} or {"model", "optimizer"})
  run.model:load_state_dict(states.model)
  if states.optimizer.steps then run.optimizer:load_state_dict(states.optimizer) end
  if run.outer and states.outer.steps then run.outer.optimizer:load_state_dict(states.outer) end
  for _, t in pairs(tensors) do t:free() end
  local step, epoch = tonumber(metadata.step), tonumber(metadata.epoch)
  if not step or not epoch then raise(("checkpoint: %s lacks its step or epoch"):format(path)) end
  if metadata["exchange.choice"] and run.exchange.restore then run.exchange:restore(metadata["exchange.choice"]) end
  run.exchange:set_step(tonumber(metadata.exchanges) or step)
  if run.runner then run.runner.unit = tonumber(metadata.unit) end
  return step, epoch, tonumber(metadata.ranks), load_own(path, run, step, metadata)
end

return M
