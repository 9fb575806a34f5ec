--- Saves a run after every epoch, or every N steps or minutes; at its end; and when a test result is the best so far.
-- Removes old checkpoints. Also resumes a run.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local checkpoint = require "atomo.train.checkpoint"
local disk = require "atomo.train.checkpoint.disk"
local step_folders = require "atomo.train.checkpoint.step_folders"
local number = require "atomo.core.number"
local probe = require "atomo.train.checkpoint.probe"
local C, raise = f.C, f.raise

---@class atomo.Saver
---@field saved integer?   step of the newest checkpoint
local Saver = {}
Saver.__index = Saver

local M = {}

local seconds_in = {s = 1, m = 60, h = 3600}

--- Parses option save_every, a number of steps or a text "500", "30s", "10m", "2h", to {steps=} or {seconds=}; {} for
--- nil.
---@param v integer|string|nil
function M.interval(v)
  if v == nil then return {} end
  local amount, unit = tostring(v):match "^(%d+)([smh]?)$"
  amount = tonumber(amount)
  if not amount or amount < 1 then
    raise(("train: save_every is %s, expected a number of steps, or a time: 30s, 10m, 2h"):format(brief(v)))
  end
  if unit == "" then return {steps = number.expect_whole(amount, "train: save_every", 1)} end
  return {seconds = amount * seconds_in[unit]}
end

--- Makes a saver; checks the folder. run: state of atomo.train, with save, save_every, keep. [collective]
---@return atomo.Saver
function M.new(run)
  local self = setmetatable({run = run, dir = run.save, every = M.interval(run.save_every), keep = run.keep or 3},
    Saver)
  if self.keep == 0 then self.keep = math.huge end
  self.vote, self.since = T.outside_scope(T.zeros, 3), C.atomo_time()
  local gone, note = probe.run(run)
  if note then run.report:line(note) end
  if #gone > 0 then
    run.report:line(("%s: removed what unfinished saves had left: %s"):format(self.dir, table.concat(gone, ", ")))
  end
  return self
end

--- Returns three answers, the same on all ranks: is a timed save due by rank 0's clock, has a signal asked any rank to
--- save, has one asked to save and stop. [collective]
local function ask(self)
  local p, asked, seconds = self.vote:data(), C.atomo_requests_take(), self.every.seconds
  p[0] = seconds and self.run.comm.rank == 0 and C.atomo_time() - self.since >= seconds and 1 or 0
  p[1], p[2] = asked % 2, asked >= 2 and 1 or 0
  self.run.comm:allreduce(self.vote, "max")
  return p[0] > 0, p[1] > 0, p[2] > 0
end

local function save(self)
  local run = self.run
  if self.saved == run.step then return end
  local name = checkpoint.save(self.dir, run)
  self.saved, self.since = run.step, C.atomo_time()
  if self.best_step == run.step then checkpoint.point_best(self.dir, run.comm, name, self.best_text) end
  checkpoint.prune(self.dir, run.comm, self.keep)
end

--- Reports that the run was saved because a signal asked for it. With stop, ends the program with code 75 on all ranks.
local function answer(self, stop)
  local run, name = self.run, self.dir .. "/" .. step_folders.name_of(self.saved)
  if not stop then return run.report:line(name .. " is saved, as SIGUSR1 asks") end
  run.report:line(name .. " is saved, and the run stops, as SIGTERM asks: --resume auto continues it")
  os.exit(C.atomo_requests_stop())
end

--- Called after a step within an epoch; saves if it is due. Within a round of local steps, signals are noticed only if
--- saves are timed, because the ranks wait for each other to agree on a save. [collective]
function Saver:after_step()
  local every, run = self.every, self.run
  local due, asked, stop = every.steps and run.step % every.steps == 0, false, false
  if every.seconds or run.in_round == 0 then
    local timed
    timed, asked, stop = ask(self)
    due = due or timed or asked or stop
  end
  if due then save(self) end
  if asked or stop then answer(self, stop) end
end

--- Records a test result, the accuracy of a run that measures it, else the loss; returns whether it is the best so far.
local function is_best(self, info)
  local kind = self.run.accuracy and "accuracy" or "loss"
  local result = info["test_" .. kind]
  local value = result and (kind == "loss" and -result or result)
  if not value or value ~= value or self.best and self.best_kind == kind and value <= self.best then return false end
  self.best, self.best_kind, self.best_step = value, kind, self.run.step
  self.best_text = ("test_%s %.17g"):format(kind, result)
  return true
end

--- Called after an epoch, or when the run stops within one (which has then been saved); saves if it is due.
--- [collective]
function Saver:after_epoch(info, last)
  local best, every, step = is_best(self, info), self.every, self.run.step
  local timed, asked, stop = ask(self)
  local due = last or timed or asked or stop or not (every.steps or every.seconds) or
    every.steps and step % every.steps == 0
  if best and self.saved == step then
    checkpoint.point_best(self.dir, self.run.comm, step_folders.name_of(step), self.best_text)
  elseif best or due then
    save(self)
  end
  if asked or stop then answer(self, stop) end
end

--- Called when the run stops within an epoch; saves. [collective]
function Saver:stop() save(self) end

--- Called when no step is left to train; saves, unless the folder has a checkpoint of this step. [collective]
function Saver:stop_at_once()
  local run, p = self.run, self.vote:zero_():data()
  local path = self.dir .. "/" .. step_folders.name_of(run.step)
  p[0] = run.comm.rank == 0 and disk.kind(path) == "folder" and 1 or 0
  run.comm:allreduce(self.vote, "max")
  if p[0] == 0 then save(self) end
end

--- Called when the run is complete. A signal that arrived after the last save ends the program here.
function Saver:close()
  C.atomo_requests_open(0)
  if C.atomo_requests_take() >= 2 and self.saved then answer(self, true) end
end

--- Called when the run was resumed from a checkpoint.
function Saver:resumed(from)
  local run = self.run
  local dir, name = step_folders.split(from)
  if dir ~= self.dir:gsub("/+$", "") then return end
  self.saved = run.step == tonumber(name:match "%d+$") and run.step or nil
  self.best, self.best_kind = step_folders.best(dir)
end

-- ---- the position of a resumed run -------------------------------------------------------------------------------

--- Converts step and position if an epoch now has another number of steps (other number of ranks, other batch size): by
--- the number of samples seen, which the schedule then follows. Returns a text about it, or nil. values: the position
--- in the manifest, or nil.
local function find_place(run, ranks, values)
  local place, batches = run.place, run.train_loader.steps
  local a_step = math.ceil(batches / run.accumulate)
  local before = values and values.batches or batches
  local other = ranks and ranks ~= run.comm.size
  if not other and before == batches and (not values or values.accumulate == run.accumulate) then return end
  local steps = math.floor(place.taken / math.max(before, 1) * a_step + 0.5)
  if place.taken > 0 and steps >= a_step then steps = a_step - 1 end
  local there = run.step
  run.step, place.taken, run.in_round = place.epoch * a_step + steps, steps * run.accumulate, 0
  if other then
    return ("saved by %d rank%s, resumed on %d: step %d there is step %d here"):format(ranks, ranks == 1 and "" or "s",
      run.comm.size, there, run.step)
  end
  return ("an epoch had %d batches, %d a step, and has %d, %d a step: step %d there is step %d here"):format(before,
    values and values.accumulate or run.accumulate, batches, run.accumulate, there, run.step)
end

--- Returns the source from which a run resumes. A job that mpirun.sh --restarts has started again resumes from the
--- newest checkpoint of `save` if there is one, whatever option resume says. [local]
---@param o {save: string?, resume: string?}
---@return string?
function M.from(o)
  local again = o.save and os.getenv "ATOMO_RESTART" and step_folders.list(o.save)[1]
  return again and "auto" or o.resume
end

--- Resumes from run.resume; sets run.step and run.place. Returns the source; nil if "auto" found none. [collective]
---@param run table
---@param compare fun()  called when the state that all ranks share has been loaded
function M.resume(run, compare)
  local function say(text) run.report:line(text) end
  local from, ranks, values = checkpoint.load(run.resume, run, say, compare)
  if not from then return end
  local line = find_place(run, ranks, values)
  if line then say(line) end
  return from
end

return M
