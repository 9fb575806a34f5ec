--- Learning-rate schedules: functions of the 0-based step that return the rate. Any function(step) can be used as one.
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local raise = require("atomo.ffi").raise

local M = {}

local rate, count = O.number(0), O.whole(1)
local function is_schedule(v) return type(v) ~= "function" and "a schedule: a function of the step" or nil end
local function is_milestones(v)
  if type(v) ~= "table" then return "a list of steps" end
  for _, m in ipairs(v) do
    if type(m) ~= "number" or m ~= m then return "a list of steps" end
  end
end

local rules = {
  warmup = {steps = O.whole(0), after = is_schedule},
  constant = {lr = rate, warmup = O.whole(0)},
  cosine = {lr = rate, steps = count, min = rate, warmup = O.whole(0)},
  step = {lr = rate, every = count, gamma = rate, warmup = O.whole(0)},
  multistep = {lr = rate, milestones = is_milestones, gamma = rate, warmup = O.whole(0)},
  one_cycle = {lr = rate, steps = O.whole(2), rise = true, div = O.number(1e-300), final_div = O.number(1e-300),
    anneal = O.one_of("cos", "linear")},
}

--- Returns the options after checking them, int64_t converted to numbers.
local function read(name, opts)
  O.check("schedule." .. name, opts, rules[name])
  local plain = {}
  for key, v in pairs(opts) do plain[key] = number.of(v) or v end
  return plain
end

local function need(name, opts, key, least)
  local v = opts[key]
  if type(v) ~= "number" or v ~= v or v < least then
    raise(("schedule.%s: %s is %s, expected a number >= %g"):format(name, key, brief(v), least))
  end
  return v
end

--- Multiplies schedule `after` by (step + 1) / steps in the first `steps` steps.
---@param opts {steps: integer, after: fun(step: integer): number}
---@return fun(step: integer): number step counts from 0
---@usage schedule.warmup({steps = 10, after = schedule.constant {lr = 1}})(4) --> 0.5
function M.warmup(opts)
  opts = read("warmup", opts)
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

--- Returns a schedule with one rate for all steps.
---@param opts {lr: number, warmup: integer?}
---@return fun(step: integer): number step counts from 0
---@usage schedule.constant({lr = 0.1})(5) --> 0.1
function M.constant(opts)
  opts = read("constant", opts)
  local lr = need("constant", opts, "lr", 0)
  return with_warmup(opts, function() return lr end)
end

--- Half a cosine from lr to min (default 0) over `steps` steps.
---@param opts {lr: number, steps: integer, min: number?, warmup: integer?}
---@return fun(step: integer): number step counts from 0
---@usage schedule.cosine({lr = 0.1, steps = 100})(0) --> 0.1
function M.cosine(opts)
  opts = read("cosine", opts)
  local lr, steps, least = need("cosine", opts, "lr", 0), need("cosine", opts, "steps", 1), opts.min or 0
  return with_warmup(opts, function(step)
    local t = math.min(step / steps, 1)
    return least + 0.5 * (lr - least) * (1 + math.cos(math.pi * t))
  end)
end

--- lr * gamma^floor(step / every).
---@param opts {lr: number, every: integer, gamma: number?, warmup: integer?}
---@return fun(step: integer): number step counts from 0
---@usage schedule.step({lr = 1, every = 10, gamma = 0.5})(10) --> 0.5
function M.step(opts)
  opts = read("step", opts)
  local lr, every, gamma = need("step", opts, "lr", 0), need("step", opts, "every", 1), opts.gamma or 0.1
  return with_warmup(opts, function(step) return lr * gamma ^ math.floor(step / every) end)
end

--- lr * gamma^(number of milestones passed).
---@param opts {lr: number, milestones: integer[], gamma: number?, warmup: integer?}
---@return fun(step: integer): number step counts from 0
---@usage schedule.multistep({lr = 1, milestones = {3}, gamma = 0.5})(3) --> 0.5
function M.multistep(opts)
  opts = read("multistep", opts)
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

--- One cycle [Smith & Topin 2018], as torch.optim.lr_scheduler.OneCycleLR: rises from lr / div to lr in the first
--- fraction `rise` of the steps, then falls to lr / div / final_div; along cosines, or linearly with anneal = "linear".
---@param opts {lr: number, steps: integer, rise: number?, div: number?, final_div: number?, anneal: string?}
---@return fun(step: integer): number step counts from 0
---@usage schedule.one_cycle({lr = 0.1, steps = 100})(0) < 0.1 --> true
function M.one_cycle(opts)
  opts = read("one_cycle", opts)
  local top, steps = need("one_cycle", opts, "lr", 0), need("one_cycle", opts, "steps", 2)
  local rise, anneal = opts.rise or 0.3, opts.anneal or "cos"
  if anneal ~= "cos" and anneal ~= "linear" then
    raise(("schedule.one_cycle: anneal is '%s', expected cos or linear"):format(brief(anneal)))
  end
  if type(rise) ~= "number" or not (rise > 0 and rise < 1) then
    raise(("schedule.one_cycle: rise is %s, expected a number between 0 and 1"):format(brief(rise)))
  end
  local start = top / (opts.div or 25)
  local final, peak = start / (opts.final_div or 1e4), rise * steps - 1
  local function between(from, to, t)
    return from + (to - from) * (anneal == "cos" and (1 - math.cos(math.pi * t)) / 2 or t)
  end
  return function(step)
    if step <= peak and peak > 0 then return between(start, top, step / peak) end
    return between(top, final, math.min(1, (step - peak) / (steps - 1 - peak)))
  end
end

return require("atomo.core.strict").module(M, "schedule")
