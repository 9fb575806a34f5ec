--- Checks with gradients that change: what a compressor keeps from earlier gradients (bases, choices, prices,
-- residuals) must not make later messages wrong. Each check gets the subject (init.lua) and adds rows.
local T = require "atomo.tensor"
local draws = require "atomo.tools.verify.draws"

local M = {}

local function noise(g, random)
  local t = T.empty(g:shape())
  local p = t:data()
  for i = 0, t:numel() - 1 do p[i] = random() + random() + random() - 1.5 end
  return t
end

--- Returns g with element i (from 0) set to 0 unless keep(i, n).
local function part_of(g, keep)
  local t = g:clone()
  local p, n = t:data(), t:numel()
  for i = 0, n - 1 do if not keep(i, n) then p[i] = 0 end end
  return t
end

--- Returns a random matrix of rank 1 in g's shape.
local function rank_one(g, random)
  local rows = g:size(1)
  local t, left = T.empty(g:shape()), {}
  local p, across = t:data(), t:numel() / rows
  for i = 1, rows do left[i] = random() - 0.5 end
  for j = 0, across - 1 do
    local right = random() - 0.5
    for i = 0, rows - 1 do p[i * across + j] = left[i + 1] * right end
  end
  return t
end

--- Returns a list of {name, earlier gradient, later gradient, which is checked}.
local function changes(subject)
  local g, random = subject.g, subject.random()
  local one, two = rank_one(g, random), rank_one(g, random)
  local first_half = part_of(g, function(i, n) return i < n / 2 end)
  local other_half = part_of(noise(g, random), function(i, n) return i >= n / 2 end)
  return {
    {"filters come alive", part_of(g, function(i, n) return i < n / 8 end), g}, {"1000 times", g, g * 1000},
    {"a thousandth", g, g * 1e-3}, {"another direction", one, two}, {"signs", g, g * -1},
    {"other places", first_half, other_half}, {"zero, then dense", g * 0, g}, {"more directions", one, g},
  }
end

--- Checks mean and variance of the later gradient for every kind of change. Each draw has its own tensor number, so
--- that steps and kept state are the same in all draws.
function M.after_change(subject, add)
  if not subject.c.unbiased then return end
  local mean, spread, count = {figure = 0}, {figure = 0}, math.ceil(subject.draws / 5)
  local list = changes(subject)
  for _, change in ipairs(list) do
    local name, before, g = unpack(change)
    local c = subject.make "as is"
    local drawn = draws.draw(function(k)
      c:encode(before, {step = 1, tensor = k})
      return c:decode(c:encode(g, {step = 2, tensor = k}))
    end, g, count, 8, function() return c:stats().variance end)
    local u, v = draws.unbiased(drawn), draws.variance(drawn, drawn.stated, nil, 0.1)
    if u.figure >= mean.figure then mean = {figure = u.figure, bound = u.bound, name = name} end
    if v.figure >= spread.figure then
      spread = {figure = v.figure, bound = v.bound, name = ("%s: measured %.3g, stated %.3g x ||g||^2"):format(name,
        v.measured / drawn.energy, v.closed_form / drawn.energy)}
    end
  end
  add {check = "unbiased after a change", figure = mean.figure, bound = mean.bound, pass = mean.figure <= mean.bound,
    note = ("standard errors, worst of %d: %s"):format(#list, mean.name)}
  add {check = "variance after a change", figure = spread.figure, bound = spread.bound,
    pass = spread.figure <= spread.bound, note = "standard errors beyond 10 %; " .. spread.name}
end

local function square(t) return t:norm_value(2) ^ 2 end

--- Checks that the residual e of error feedback stays bounded for changing gradients of norm 1. A message removes on
--- average at least the fraction d of the encoded gradient, so E||e||^2 < 4 / d^2. For an unbiased compressor of
--- relative variance w, d = 1 / (1 + w).
function M.bounded(subject, add)
  local c, plain, random = subject.make "feedback", subject.make "as is", subject.random()
  if not c then return end
  local sum, d, list, steps = 0, 1, changes(subject), 96
  local held = T.zeros(subject.g:shape())
  for step = 1, steps do
    local g = list[1 + (step - 1) % #list][3] * 1
    g:mul_(1 / g:norm_value(2))
    g:axpy_(0.5 / math.sqrt(g:numel()), noise(g, random))
    g:mul_(1 / g:norm_value(2))
    local x = held + g
    c:encode(g, {step = step})
    local s = c:stats()
    if plain.unbiased then
      plain:encode(x, {step = step})
      s = plain:stats()
      d = math.min(d, 1 / (1 + s.variance / s.square))
    else
      d = math.min(d, 1 - s.variance / s.square)
    end
    held = c:residual(1)
    sum = sum + square(held)
  end
  local figure, bound = math.sqrt(sum / steps), d > 0 and 2 / d or 0
  add {check = "residual bounded", figure = figure, bound = bound, pass = figure <= bound,
    note = ("root mean square of the residual over %d changing gradients of norm 1; 2 / d"):format(steps)}
end

return M
