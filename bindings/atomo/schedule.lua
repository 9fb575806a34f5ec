--- Learning-rate schedules: functions of the step (0-based) that return the rate. Any function(step) serves as one.
local raise = require("atomo.ffi").raise

local M = {}

local function need(name, opts, key, least)
  local v = opts[key]
  if type(v) ~= "number" or v ~= v or v < least then
    raise(("schedule.%s: %s is %s, expected a number >= %g"):format(name, key, tostring(v), least))
  end
  return v
end

--- Linear from 0 over the first `steps` steps (step 0 gets lr / steps), then `after` (a schedule).
---@param opts {steps: integer, after: fun(step: integer): number}
function M.warmup(opts)
  local steps = need("warmup", opts, "steps", 0)
  if type(opts.after) ~= "function" then raise "schedule.warmup: after is missing, expected a schedule" end
  return function(step)
    local lr = opts.after(step)
    return step < steps and lr * (step + 1) / steps or lr
  end
end

local function with_warmup(opts, schedule)
  if not opts.warmup or opts.warmup == 0 then return schedule end
  return M.warmup {steps = opts.warmup, after = schedule}
end

---@param opts {lr: number, warmup: integer?}
function M.constant(opts)
  local lr = need("constant", opts, "lr", 0)
  return with_warmup(opts, function() return lr end)
end

--- Half a cosine from lr to min over `steps` steps.
---@param opts {lr: number, steps: integer, min: number?, warmup: integer?}
function M.cosine(opts)
  local lr, steps, least = need("cosine", opts, "lr", 0), need("cosine", opts, "steps", 1), opts.min or 0
  return with_warmup(opts, function(step)
    local t = math.min(step / steps, 1)
    return least + 0.5 * (lr - least) * (1 + math.cos(math.pi * t))
  end)
end

--- lr * gamma^(number of whole periods of `every` steps).
---@param opts {lr: number, every: integer, gamma: number?, warmup: integer?}
function M.step(opts)
  local lr, every, gamma = need("step", opts, "lr", 0), need("step", opts, "every", 1), opts.gamma or 0.1
  return with_warmup(opts, function(step) return lr * gamma ^ math.floor(step / every) end)
end

--- lr * gamma^(number of milestones passed).
---@param opts {lr: number, milestones: integer[], gamma: number?, warmup: integer?}
function M.multistep(opts)
  local lr, gamma = need("multistep", opts, "lr", 0), opts.gamma or 0.1
  if type(opts.milestones) ~= "table" then raise "schedule.multistep: milestones, a list of steps, is missing" end
  return with_warmup(opts, function(step)
    local passed = 0
    for _, m in ipairs(opts.milestones) do
      if step >= m then passed = passed + 1 end
    end
    return lr * gamma ^ passed
  end)
end

return M
