-- Random training scripts: replicas are bit-identical after every step; overlap, a second run, a sharded optimizer and
-- a resume change no bit; steps that are given up have no effect; the exchange is unbiased; and no more bytes are sent
-- than for dense gradients. Runs on 1 to 4 ranks.
--   ATOMO_RANDOM_SEED=N          the first seed (1)      ATOMO_RANDOM_SCRIPTS=N   how many (24; 12 with sanitizers)
-- A failure prints the seed and the settings; ATOMO_RANDOM_SEED=seed ATOMO_RANDOM_SCRIPTS=1 on as many ranks repeats
-- it.
local atomo = require "atomo"
local scripts = require "support.random_training"
local Run = require "support.random_training_run"
local loops = require "support.random_training_loops"
local mean = require "support.random_training_mean"
local spawn = require "support.spawn"
local world = atomo.mpi.world
local checkpoints = require "support.checkpoints"

--- Returns the texts of all ranks, each once.
local function gathered(text)
  local list, seen = {}, {}
  for rank, other in ipairs(world:allgatherv(text)) do
    if other ~= "" and not seen[other] then list[#list + 1] = ("rank %d: %s"):format(rank - 1, other) end
    seen[other] = true
  end
  return list
end

local function run_of(script, how)
  local run = Run.new(script, how)
  loops[script.driver](run)
  run:check_bytes()
  run.final = run:state()
  return run
end

--- Returns where run b differs from run a, the step or the state at the end, or nil. resumed: b is only the end of a.
local function parting(a, b, resumed)
  local skipped = #a.trace - #b.trace
  if skipped ~= 0 and not resumed then return ("%d steps and %d"):format(#a.trace, #b.trace) end
  for i, digest in ipairs(b.trace) do
    if a.trace[skipped + i] ~= digest then
      return ("step %d of %d: %s; %s"):format(skipped + i, #a.trace, tostring(a.trace[skipped + i]), digest)
    end
  end
  local names = Run.difference(a.final, b.final, true)
  return names and "at the end " .. names
end

--- Has a run without the given-up steps the same random draws? Not if these steps are counted.
local function same_without(script)
  local counted = script.schedule or script.model.dropout > 0 or script.local_steps
  return script.driver == "loop" or not counted
end

--- Runs a script in all variants that must give the same result; returns the faults.
local function faults_of(script)
  local train, paths = script.driver == "train", {}
  for k = 1, train and 6 or 0 do paths[k] = checkpoints.path() end
  local whole = run_of(script, {save = paths[1]})
  local faults = whole.faults
  local function compare(what, resumed, how)
    local text = parting(whole, run_of(script, how), resumed)
    if text then faults[#faults + 1] = ("%s: %s"):format(what, text) end
  end
  compare("a second run, without overlap", false, {save = paths[2], overlap = false})
  if same_without(script) then compare("without the lost steps", false, {save = paths[4], lost = false}) end
  local sharded = not script.local_steps and script.seed % 2 == 0
  if sharded then compare("with a sharded optimizer", false, {save = paths[6], sharded = true}) end
  if train then run_of(script, {save = paths[3], stop = true, sharded = sharded}) end
  compare("resumed", true, {resume = train and paths[3] or whole.saved, save = paths[5]})
  for _, path in ipairs(paths) do checkpoints.remove(path) end
  faults[#faults + 1] = mean.fault(script)
  return faults
end

--- Runs scripts `first` to `last`; returns texts of the failures, and the number of refused scripts.
local function run_all(first, last, told)
  local failures, refused = {}, 0
  for seed = first, last do
    told(("script %d"):format(seed))
    local script = scripts.draw(seed)
    local ok, faults = pcall(faults_of, script)
    if not ok then told(("script %d, rank %d: %s"):format(seed, world.rank, tostring(faults)), true) end
    local texts = gathered(ok and table.concat(faults, "\n  ") or tostring(faults))
    if not ok and texts[1]:find("empty messages", 1, true) then
      refused = refused + 1
    elseif #texts > 0 then
      failures[#failures + 1] = ("script %d on %d ranks: %s\n  %s"):format(seed, world.size, scripts.text(script),
        table.concat(texts, "\n  "))
      told(failures[#failures])
    end
  end
  return failures, refused
end

describe("random training scripts", function()
  it("keep the invariants of every run", function()
    local asked = tonumber(os.getenv "ATOMO_RANDOM_SCRIPTS")
    local first = tonumber(os.getenv "ATOMO_RANDOM_SEED") or 1
    local total = asked or spawn.sanitized and 12 or 24
    local failures, refused = run_all(first, first + total - 1, function(text, every_rank)
      if asked and (every_rank or world.rank == 0) then io.stderr:write(text, "\n") end
    end)
    if asked and world.rank == 0 then
      print(("%d scripts, %d refused, %d failed"):format(total, refused, #failures))
    end
    assert.equal("", table.concat(failures, "\n", 1, math.min(#failures, 5)), #failures .. " scripts failed")
    assert.is_true(refused <= total / 4)
  end)
end)
