--- Lower limit of a training step: the best time of its convolutions and matrix products, each by itself, and the share
--- of their sum in the step's time (scripts/bench_nn.lua --limit).
--   local step_limit = require "atomo.tools.step_limit"
--   local limit = step_limit.measure(step_limit.parts(steps, run_step), {rounds = 5, step = seconds_of_a_step})
--   print(limit:text())
-- A share of 1 is a step that spends no time outside convolutions and products, and runs each of them at its best.
-- The rest to 1 is for norms, activations, softmax, gates, rounding to bf16, the optimizer and the tape. The share can
-- exceed 1 slightly: the runtime's own Winograd may be faster than oneDNN, and times vary. A machine's speed drifts, so
-- measurements are in rounds: training steps, then all convolutions and products. The share is computed in each round,
-- from times that were measured together; the result is the median.
local median = require "atomo.core.median"
local conv_limit = require "atomo.tools.conv_limit"
local product_limit = require "atomo.tools.product_limit"
local profiles = require "atomo.tools.profile"

local Limit = {}
Limit.__index = Limit

--- Runs training steps and returns what they consist of: the parts that measure() measures, and the profile.
---@param steps integer
---@param step fun()  runs one step
---@return table[] parts
---@return table profile
local function parts(steps, step)
  local profile
  local products = product_limit.record(function()
    profile = profiles.start()
    local ok, why = pcall(function() for _ = 1, steps do step() end end)
    profile:stop()
    if not ok then error(why, 0) end
  end)
  local list = {conv_limit.new(profile, steps)}
  list[#list + 1] = product_limit.new(products, steps)
  return list, profile
end

--- Measures parts together with training steps.
---@param list table[]  result of parts
---@param opts {rounds: integer, step: fun(): number}  step: runs some training steps, returns the seconds of one
local function measure(list, opts)
  local self = setmetatable({parts = list, steps = {}, shares = {}}, Limit)
  for r = 1, opts.rounds do
    self.steps[r] = opts.step()
    for _, part in ipairs(list) do part:run_round() end
  end
  for _, part in ipairs(list) do part:conclude() end
  for r = 1, opts.rounds do
    local sum = 0
    for _, part in ipairs(list) do sum = sum + part:seconds_of_round(r) end
    self.shares[r] = sum / self.steps[r]
  end
  return self
end

--- Returns the tables of the parts, and the share with the lowest and the highest of the rounds.
function Limit:text()
  local lines, sums = {}, {}
  for i, part in ipairs(self.parts) do lines[i], sums[i] = part:text(), part:summary() end
  if #sums == 0 then sums[1] = "no convolutions and no products" end
  lines[#lines + 1] = ("limit: %s; whole step %.1f ms; share of the limit %.2f (%d rounds, %.2f to %.2f)"):format(
    table.concat(sums, "; "), 1e3 * median(self.steps), median(self.shares), #self.shares,
    math.min(unpack(self.shares)), math.max(unpack(self.shares)))
  return table.concat(lines, "\n")
end

return {parts = parts, measure = measure}
