--- Repeats the exchange of a random training script on fixed gradients in its network's shapes, and checks that the
-- mean of the results is the mean of the ranks' gradients: to rounding for "none", by a statistical test for unbiased
-- compressors.
local atomo = require "atomo"
local Run = require "support.random_training_run"
local world = atomo.mpi.world

local M = {}

--- Number of draws in the first test, and in the second one that must confirm it. If sums are normal, |t| > 6 has
--- probability 3e-7 with 47 degrees of freedom, 5e-9 with 383. Sums of few atoms are skew, so the first test gives more
--- false alarms. A tensor with fewer than LEAST nonempty draws is not tested here. A false alarm needs both tests: for
--- 10 tensors and 2 directions its probability is 1e-7 per script, by the second test alone. Ratios above 4 are reduced
--- to 4.
local FIRST, SECOND, LIMIT, LEAST = 48, 384, 6, 40

local function inner(a, b) return a:view(-1):dot(b:view(-1)):item() end

--- Returns this rank's gradients (a common mean plus heavy tails), their average over the ranks, and two directions per
--- tensor for projections.
function M.gradients(shapes, seed)
  local grads, averages, directions = {}, {}, {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(1000 * seed + 10 * i + world.rank)
    local g = atomo.randn(shape)
    grads[i] = (g * g * g):add_(atomo.full(shape, 0.2))
    averages[i] = world:allreduce(grads[i]:clone(), "sum"):mul_(1 / world.size)
    atomo.manual_seed(77 + i)
    directions[i] = {averages[i], atomo.randn(shape)}
  end
  return grads, averages, directions
end

--- Returns the largest |mean error| along the directions, in standard errors, over `draws` steps.
local function worst_score(ex, draws, grads, averages, directions)
  local work, sums, worst = {}, {}, 0
  for i, g in ipairs(grads) do work[i], sums[i] = g:clone(), {{0, 0}, {0, 0}, some = 0} end
  for _ = 1, draws do
    for i, g in ipairs(grads) do work[i]:copy_(g) end
    for i = #grads, 1, -1 do ex:push(i, work[i]) end
    ex:finish()
    for i, each in ipairs(sums) do
      local error = work[i] - averages[i]
      if work[i]:norm_value(math.huge) > 0 then each.some = each.some + 1 end
      for k, s in ipairs(each) do
        local x = inner(directions[i][k], error)
        s[1], s[2] = s[1] + x, s[2] + x * x
      end
      error:free()
    end
  end
  for i, each in ipairs(sums) do
    for k, s in ipairs(each.some >= math.min(draws, LEAST) and each or {}) do
      local rounding = 1e-6 * directions[i][k]:norm_value(2) * averages[i]:norm_value(2)
      local mean = s[1] / draws
      local deviation = math.sqrt(math.max(s[2] / draws - mean * mean, 0) / (draws - 1))
      worst = math.max(worst, math.abs(mean) / (deviation + rounding))
    end
  end
  return worst
end

--- Returns a text about a bias, or nil. [collective]
function M.fault(script)
  local exchange = {}
  for key, value in pairs(script.exchange) do exchange[key] = value end
  exchange.budgets = nil
  exchange.compress = exchange.compress:gsub("ratio=%d+", function(text)
    return tonumber(text:match "%d+") > 4 and "ratio=4" or text
  end)
  local c = atomo.compressor(exchange.compress)
  if not c.unbiased then return nil end
  local run = Run.new({seed = script.seed, model = script.model, exchange = exchange}, {})
  run:build()
  local shapes = {}
  for i, p in ipairs(run.model:parameters()) do shapes[i] = p:shape() end
  local grads, averages, directions = M.gradients(shapes, script.seed)
  local exact = c.name == "none"
  local t = worst_score(run.exchange, exact and 2 or FIRST, grads, averages, directions)
  if exact and t > 1 then return ("mean: off by %g roundings"):format(t) end
  if exact or t < LIMIT then return nil end
  local again = worst_score(run.exchange, SECOND, grads, averages, directions)
  if again > LIMIT then return ("mean: off by %g standard errors, then by %g"):format(t, again) end
end

return M
