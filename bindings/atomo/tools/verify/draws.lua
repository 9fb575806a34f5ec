--- Statistical tests of a compressor over independent draws. A sampler is any function (k, g) -> ghat, the k-th draw, a
-- tensor of g's shape.
local T = require "atomo.tensor"

local M = {}

--- Returns a bound that the largest of `count` standard normals exceeds in magnitude with probability below alpha,
--- since P(|z| > b) <= exp(-b^2/2).
local function bound(alpha, count) return math.sqrt(2 * math.log(count / alpha)) end

--- Returns the directions on which errors are projected: g itself (finds errors of scale), its signs (errors of
--- rounding), and random signs.
local function directions(g, count, seed)
  local list = {g:clone(), T.empty(g:shape())}
  local p, q = g:contiguous():data(), list[2]:data()
  for i = 0, g:numel() - 1 do q[i] = p[i] < 0 and -1 or 1 end
  local state = seed or 1
  for j = 3, count do
    local d = T.empty(g:shape())
    local r = d:data()
    for i = 0, g:numel() - 1 do -- a separate generator, independent of the compressor's random streams
      state = (state * 16807) % 2147483647
      r[i] = state % 65536 < 32768 and -1 or 1
    end
    list[j] = d
  end
  return list
end

local function moments() return {n = 0, mean = 0, m2 = 0} end

local function add(m, x) -- Welford
  m.n = m.n + 1
  local d = x - m.mean
  m.mean = m.mean + d / m.n
  m.m2 = m.m2 + d * (x - m.mean)
end

local function standard_error(m) return math.sqrt(m.m2 / math.max(1, m.n - 1) / m.n) end

local function dot(a, b, n)
  local s = 0
  for i = 0, n - 1 do s = s + a[i] * b[i] end
  return s
end

--- Draws `draws` times. Returns moments of <ghat - g, direction> for each direction, moments of ||ghat - g||^2, and the
--- mean of stated().
---@param sample fun(k: integer, g: atomo.Tensor): atomo.Tensor
---@param g atomo.Tensor
---@param draws integer
---@param looks integer?  number of directions, default 16
---@param stated (fun(): number)?  closed form of the last draw, which may change if a compressor chooses in each step
function M.draw(sample, g, draws, looks, stated)
  g = g:contiguous()
  local n, list, along, square = g:numel(), directions(g, looks or 16), {}, moments()
  local data, sum = {}, 0
  for j, d in ipairs(list) do
    along[j], data[j] = moments(), d:data()
    along[j].length = math.sqrt(dot(data[j], data[j], n))
  end
  for k = 1, draws do
    T.scope(function()
      local difference = sample(k, g) - g
      local p = difference:data()
      if stated then sum = sum + stated() end
      for j = 1, #list do add(along[j], dot(p, data[j], n)) end
      add(square, dot(p, p, n))
    end)
  end
  return {along = along, square = square, energy = dot(g:data(), g:data(), n), draws = draws,
    stated = stated and sum / draws}
end

--- Tests whether the mean of the draws is g. figure: the largest |mean - g| over the directions, in standard errors. A
--- correct sampler exceeds `bound` with probability at most alpha (default 1e-6). A rounding error of 1e-6 ||g|| is
--- allowed.
function M.unbiased(drawn, alpha)
  alpha = alpha or 1e-6
  local worst, norm = 0, math.sqrt(drawn.energy)
  for _, m in ipairs(drawn.along) do
    local slack = 1e-6 * norm * m.length
    local z = math.max(0, math.abs(m.mean) - slack) / math.max(standard_error(m), 1e-300)
    worst = math.max(worst, z)
  end
  local most = bound(alpha, #drawn.along)
  return {check = "unbiased", figure = worst, bound = most, pass = worst <= most, alpha = alpha, draws = drawn.draws}
end

--- Tests whether E||ghat - g||^2 is the closed form. figure: their distance in standard errors, after subtracting 1 %
--- of the closed form, which is its accuracy (or the fraction `accuracy`, plus 1e-6 ||g||^2 for rounding). alpha: as
--- above.
function M.variance(drawn, closed_form, alpha, accuracy)
  alpha = alpha or 1e-6
  local m = drawn.square
  local slack = (accuracy or 0.01) * closed_form + (accuracy and 1e-6 or 1e-11) * drawn.energy
  local figure = math.max(0, math.abs(m.mean - closed_form) - slack) / math.max(standard_error(m), 1e-300)
  local most = bound(alpha, 1)
  return {check = "variance", figure = figure, bound = most, pass = figure <= most, measured = m.mean,
    closed_form = closed_form, alpha = alpha, draws = drawn.draws}
end

--- Tests whether the mean of every entry is that of the gradient, for draws in which only rounding is random. Noise is
--- then bounded and similar in all entries, so that each mean is nearly normal. This finds errors that are too small in
--- projections. Standard errors are taken as at least 0.3 of the typical one, for entries that are rarely rounded.
function M.each_entry(sample, g, draws, alpha)
  alpha = alpha or 1e-6
  g = g:contiguous()
  local n, norm = g:numel(), g:norm_value(math.huge)
  local sum, square, gp = T.zeros(n), T.zeros(n), g:data()
  local s, q = sum:data(), square:data()
  for k = 1, draws do
    T.scope(function()
      local p = sample(k):data()
      for i = 0, n - 1 do
        local d = p[i] - gp[i]
        s[i], q[i] = s[i] + d, q[i] + d * d
      end
    end)
  end
  local typical, worst = 0, 0
  for i = 0, n - 1 do typical = typical + q[i] / draws / n end
  for i = 0, n - 1 do
    local mean = s[i] / draws
    local se = math.sqrt(math.max(q[i] / draws - mean * mean, 0.09 * typical, 1e-300) / draws)
    worst = math.max(worst, math.max(0, math.abs(mean) - 2e-6 * norm) / se)
  end
  local most = bound(alpha, n)
  return {check = "rounding", figure = worst, bound = most, pass = worst <= most, alpha = alpha, draws = draws}
end

--- Returns the sampler of a compressor on one gradient; draw k is step k.
function M.sampler(c, g)
  return function(k) return c:decode(c:encode(g, {step = k})) end
end

--- Returns the sampler of both ways, for topologies that encode averages again: two ranks' messages are decoded,
--- averaged, encoded by the second way's compressor and decoded. make(variant, way) makes the compressors. The ranks
--- have gradients 3 g and -g, whose mean is g.
function M.whole_way(make)
  local up, down = make("as is", "up"), make("as is", "down")
  return function(k, g)
    local average = T.zeros(g:shape())
    up:decode_add(up:encode(g * 3, {step = k, rank = 0}), 0.5, average)
    up:decode_add(up:encode(g * -1, {step = k, rank = 1}), 0.5, average)
    return down:decode(down:encode(average, {step = k, rank = 2}))
  end
end

return M
