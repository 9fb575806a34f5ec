--- Chooses the size of dense buckets by measured waiting times. Small buckets start early, large ones save latency. In
-- a run's first steps each size of a short list is tried for a few steps; then all ranks keep the one for which they
-- waited least. Results are bit-identical for all sizes (bucket/dense.lua).
local T = require "atomo.tensor"
local median = require "atomo.core.median"

local SIZES = {4 * 2 ^ 20, 2 ^ 20, 16 * 2 ^ 20, math.huge} -- bytes; the first is the default
local STEPS = 4 -- steps per size; the first is not counted
local GAIN = 0.95 -- another size is chosen if its waiting time is less than this fraction of the default's

local M = {}

--- Returns the trials of a plan with dense buckets only: {list = {{plan=, waits=}, ...}, now=, steps=}; false if all
--- sizes give the same buckets or nothing overlaps.
function M.plan(plan)
  local list, seen = {}, {}
  for k, bytes in ipairs(SIZES) do
    local other = k == 1 and plan or plan:with_buckets(bytes)
    if not seen[#other.buckets] then
      seen[#other.buckets] = true
      list[#list + 1] = {plan = other, waits = {}}
    end
  end
  return #list > 1 and plan.overlap and {list = list, now = 1, steps = 0}
end

--- Returns the plan with the smallest median waiting time, summed over the ranks. [collective]
local function choose(comm, list)
  local waits = T.zeros(#list)
  local p = waits:data()
  for k, trial in ipairs(list) do p[k - 1] = median(trial.waits) end
  comm:allreduce(waits, "sum")
  local best = 1
  for k = 2, #list do
    if p[k - 1] < (best == 1 and GAIN or 1) * p[best - 1] then best = k end
  end
  return list[best].plan
end

--- Called after a step. waited: seconds that this rank waited in it. Returns the next step's plan and the trials, false
--- when they are complete. [collective]
function M.step(trials, plan, waited)
  trials.steps = trials.steps + 1
  if trials.steps > 1 then table.insert(trials.list[trials.now].waits, waited) end
  if trials.steps < STEPS then return plan, trials end
  trials.now, trials.steps = trials.now + 1, 0
  local following = trials.list[trials.now]
  if following then return following.plan, trials end
  return choose(plan.comm, trials.list), false
end

return M
