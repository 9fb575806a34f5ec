--- How much travels at once: the size of dense buckets, chosen by the clock. Small buckets start early, large ones save
-- latency. In a run's first steps each size of a short list is used for a few steps; then all ranks take the one for
-- which they waited least, for good. The bits do not depend on it (exchange/bucket/dense.lua), so neither does a run's
-- result.
local T = require "atomo.tensor"
local buckets = require "atomo.exchange.bucket.dense"
local queue = require "atomo.exchange.scheduler"

local SIZES = {4 * 2 ^ 20, 2 ^ 20, 16 * 2 ^ 20, math.huge} -- bytes; the first is the standard
local STEPS = 4 -- of a trial; the first of them does not count
local GAIN = 0.95 -- another size than the standard must wait at most so much of what that does

local M = {}

--- Plans the trials of an exchange whose units are dense buckets.
function M.plan(self)
  local trials, seen = {}, {}
  for _, bytes in ipairs(SIZES) do
    local grouping = buckets.group(self.buckets, bytes)
    if not seen[#grouping.list] then
      seen[#grouping.list] = true
      grouping.queue, grouping.waits = queue.new {unpack(grouping.list)}, {}
      trials[#trials + 1] = grouping
    end
  end
  if #trials > 0 then M.take(self, trials[1]) end
  if #trials > 1 and self.overlap then self.trials = {list = trials, now = 1, steps = 0} end
end

function M.take(self, grouping)
  buckets.take(self.buckets, grouping)
  self.queue = grouping.queue
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

--- The grouping that all ranks together waited least for. [collective]
local function choose(self, list)
  local waits = T.zeros(#list)
  local p = waits:data()
  for k, grouping in ipairs(list) do p[k - 1] = median(grouping.waits) end
  self.comm:allreduce(waits, "sum")
  local best = 1
  for k = 2, #list do
    if p[k - 1] < (best == 1 and GAIN or 1) * p[best - 1] then best = k end
  end
  return list[best]
end

--- A step is over, for which this rank waited so many seconds: goes on with the trials. [collective]
function M.step(self, waited)
  local trials = self.trials
  if not trials then return end
  trials.steps = trials.steps + 1
  if trials.steps > 1 then table.insert(trials.list[trials.now].waits, waited) end
  if trials.steps < STEPS then return end
  trials.now, trials.steps = trials.now + 1, 0
  local following = trials.list[trials.now]
  if not following then
    following = choose(self, trials.list)
    self.trials = nil
  end
  M.take(self, following)
end

return M
