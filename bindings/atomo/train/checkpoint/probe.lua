--- Checks the folder of a run's checkpoints before training starts: all ranks can write to it, all hosts share it, it
-- has enough room, and its contents belong to this run.
local disk = require "atomo.train.checkpoint.disk"
local step_folders = require "atomo.train.checkpoint.step_folders"
local identity = require "atomo.train.checkpoint.identity"
local log = require "atomo.core.log"
local together = require "atomo.train.checkpoint.together"
local updates = require "atomo.optim.update"
local raise = require("atomo.ffi").raise

local M = {}

--- Raises if the path of the folder is a file. An empty file (made by mktemp) is removed instead.
local function free_place(dir)
  local kind = disk.kind(dir)
  if kind == "other" then raise(("checkpoint: %s is no folder"):format(dir)) end
  if kind ~= "file" then return end
  local text, why = disk.read_text(dir)
  if not text then raise(("checkpoint: %s cannot be read: %s"):format(dir, why)) end
  if text:find("atomo-checkpoint", 1, true) then
    raise(("checkpoint: %s is a checkpoint of an earlier version, one file; checkpoints are folders now: save to " ..
      "another name (and resume from this one)"):format(dir))
  elseif text ~= "" then
    raise(("checkpoint: %s is there already and is no checkpoint: it is not overwritten"):format(dir))
  end
  disk.remove(dir)
end

--- Does this folder contain only files of a checkpoint? A damaged checkpoint may lack some of them.
local function is_checkpoint(path)
  if disk.kind(path) ~= "folder" then return false end
  for _, name in ipairs(disk.names(path)) do
    if name ~= "manifest" and not name:match "%.safetensors$" then return false end
  end
  return true
end

--- Raises for entries with the name of a checkpoint or pointer that this program has not written: they would be
--- replaced.
local function check_entries(dir)
  for _, name in ipairs(disk.names(dir)) do
    local pointer = name == "latest" or name == "best"
    if pointer and not step_folders.pointed(dir, name) or
      name:match "^step%-%d+$" and not is_checkpoint(dir .. "/" .. name) then
      raise(("checkpoint: %s/%s is there already and is no %s of this program: save to another folder"):format(dir,
        name, pointer and "file" or "checkpoint"))
    end
  end
end

--- Raises if the folder holds checkpoints of another run, with other settings, data or model, which this run does not
--- resume: it would replace or remove them. If they are of a run with the same settings, which starts again from the
--- beginning, returns a text about it; else nil.
---@param run table
local function check_owner(run)
  local dir, resume = run.save, run.resume
  local newest = step_folders.list(dir)[1]
  if not newest or resume == "auto" then return end
  local from = resume and (step_folders.split(resume) or resume:match "^(.-)/+%a+$" or resume)
  local mark = ("/.probe-%d"):format(run.comm.rank) -- a file in `dir`, however that is written
  for _, folder in ipairs {from or dir, resume or dir} do
    if resume and disk.kind(folder .. mark) == "file" then return end
  end
  local differs = identity.differences(newest.body.identity or {}, run.identity, identity.of_a_start)
  if differs then
    raise(("checkpoint: %s holds checkpoints of another run, the newest is %s: save to another folder, or continue " ..
      "it (resume = 'auto', --resume auto). It differs in: %s"):format(dir, newest.name, differs))
  end
  return ("%s holds checkpoints of such a run up to %s, which are replaced in time: resume = 'auto' would continue it")
    :format(dir, newest.name)
end

local function bytes_of_optimizer(optimizer)
  local bytes = 0
  for _, group in ipairs(optimizer.groups) do
    for _, kept in pairs(updates.state[optimizer.kind]) do bytes = bytes + (kept(group) and 4 * group.n or 0) end
  end
  return bytes
end

--- Returns the bytes of this rank's part of a checkpoint that are known before the first step: model and optimizer,
--- without the memories of compressors.
local function bytes_needed(run)
  local bytes = 0
  if run.comm.rank == 0 then
    for _, t in pairs(run.model:state_dict()) do bytes = bytes + t:numel() * t:element_size() end
    bytes = bytes + bytes_of_optimizer(run.local_sgd and run.local_sgd.optimizer or run.optimizer)
  end
  return bytes + (run.local_sgd and bytes_of_optimizer(run.optimizer) or 0)
end

local function reserve(run, path)
  local bytes = bytes_needed(run)
  local ok, why = pcall(disk.reserve, path, bytes)
  if ok then return end
  raise(("checkpoint: cannot write %s, where this rank's part of a checkpoint takes %s or more: %s"):format(run.save,
    log.bytes(bytes), why:match "checkpoint: (.*)" or why))
end

--- Raises, before training, if the folder run.save is not writable, not shared by all hosts, has no room for a
--- checkpoint, or holds what this run must not replace. Removes files of unfinished saves and returns their names.
--- [collective]
---@param run table  state of atomo.train
---@return string[] gone
---@return string?  note   on rank 0: the folder holds this very run, which begins anew
function M.run(run)
  local dir, comm, gone, note = run.save, run.comm, {}, nil
  local function probe(rank) return ("%s/.probe-%d"):format(dir, rank) end
  local function remove() disk.remove(probe(comm.rank)) end
  local function on_first(fn)
    together.run(comm, function() if comm.rank == 0 then fn() end end, remove)
  end
  on_first(function()
    free_place(dir)
    local ok, why = pcall(disk.make, dir)
    if not ok then raise(("checkpoint: cannot write %s: %s"):format(dir, why:match "checkpoint: (.*)" or why)) end
    check_entries(dir)
  end)
  together.run(comm, function() reserve(run, probe(comm.rank)) end, remove)
  on_first(function()
    for rank = 0, comm.size - 1 do
      if not disk.kind(probe(rank)) then
        raise(("checkpoint: rank 0 does not see a file that rank %d wrote to %s: the folder must be one that all " ..
          "hosts share"):format(rank, dir))
      end
    end
    note = check_owner(run)
    for rank = 0, comm.size - 1 do disk.remove(probe(rank)) end
    gone = step_folders.clean(dir)
  end)
  return gone, note
end

return M
