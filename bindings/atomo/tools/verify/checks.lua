--- Checks of a compressor except mean and variance: sizes, keys, linearity, damaged messages, unusual inputs. Each gets
-- the subject (init.lua) and returns {check=, figure=, bound=, pass=, note=}.
local T = require "atomo.tensor"
local draws = require "atomo.tools.verify.draws"

local M = {}

local function row(check, figure, bound, note)
  return {check = check, figure = figure, bound = bound, pass = figure <= bound, note = note}
end

--- Returns the largest difference between a and b, divided by the largest entry of b.
local function distance(a, b) return (a - b):norm_value(math.huge) / math.max(b:norm_value(math.huge), 1e-30) end

--- Checks that a sufficient budget with full precision reproduces the gradient.
function M.full_budget(subject)
  local c = subject.make "exact"
  if not c then return nil end
  local worst = 0
  for step = 1, 2 do worst = math.max(worst, distance(c:decode(c:encode(subject.g, {step = step})), subject.g)) end
  return row("full budget reproduces g", worst, 2e-5, "largest error over largest entry")
end

--- Checks that atoms are orthonormal: squared coefficients sum to ||g||^2, for the gradient, noise, and gradients with
--- one or two nonzero entries.
function M.parseval(subject)
  local g, worst = subject.g, 0
  local function look(x)
    local c = subject.make "as is" -- a new one, without a residual of error feedback
    c:encode(x, {step = 1})
    local square = x:norm_value(2) ^ 2
    worst = math.max(worst, math.abs(c:stats().square / square - 1))
  end
  look(g)
  local n, random = g:numel(), subject.random()
  local x = T.empty(g:shape())
  local p = x:data()
  for _ = 1, 4 do
    for i = 0, n - 1 do p[i] = random() - 0.5 end
    look(x)
  end
  for k = 1, 32 do
    x:zero_()
    p[math.floor(random() * n)] = 1
    if k % 2 == 0 then p[math.floor(random() * n)] = 1 end
    look(x)
  end
  return row("Parseval: atoms are orthonormal", worst, 5e-6, "relative error of ||g||^2, worst of 37 gradients")
end

--- Checks that the stated variance is not below the least of any unbiased code of this length, by the classes of a
--- random basis; nil for compressors without such a bound. 5 % are allowed, because entries are not quite normal.
function M.rate(subject)
  local c, stated, bound = subject.make "as is", 0, 0
  for step = 1, 20 do
    c:encode(subject.g, {step = step})
    local stats = c:stats()
    stated, bound = stated + stats.variance, bound + (stats.bound or 0)
  end
  if bound == 0 then return nil end
  return row("variance not below the bound", bound / stated, 1.05, ("bound of its classes over the stated variance, " ..
    "which is %.2f times as large"):format(stated / bound))
end

--- Checks that equal keys give equal bytes in two compressor objects.
function M.same_key(subject)
  local different = 0
  for step = 1, 3 do
    local a, b = subject.make "as is", subject.make "as is"
    local key = {step = step, rank = 2, tensor = 3}
    if a:encode(subject.g, key):bytes() ~= b:encode(subject.g, key):bytes() then different = different + 1 end
  end
  return row("same key, same bytes", different, 0, "of 3 keys")
end

--- Checks that no message is longer than planned.
function M.planned_size(subject)
  local c, most = subject.make "as is", 0
  for step = 1, 100 do most = math.max(most, c:encode(subject.g, {step = step}).nbytes) end
  return row("message no longer than planned", most, c:wire_max(), "bytes, longest of 100")
end

--- Checks that decode_add returns acc + scale * ghat.
function M.linear(subject)
  local c, g = subject.make "as is", subject.g
  local m = c:encode(g, {step = 5})
  local ghat, worst = c:decode(m), 0
  local size = ghat:norm_value(math.huge)
  for _, scale in ipairs {0, 1, -0.5, 3} do
    local acc = T.ones(g:shape())
    c:decode_add(m, scale, acc)
    local error = (acc - (ghat * scale + 1)):norm_value(math.huge) / (1 + size * math.abs(scale))
    worst = math.max(worst, error)
  end
  return row("decode_add linear in scale", worst, 2e-6, "relative, at 0, 1, -0.5 and 3")
end

local function refused(c, bytes, acc) return not pcall(c.decode_add, c, bytes, 1, acc) end

--- Checks that messages truncated at every byte, extended, or with any bit flipped are refused, and that the
--- accumulator is then unchanged.
function M.refusals(subject)
  local c, g = subject.make "as is", subject.small
  local bytes = c:encode(g, {step = 3}):bytes()
  local acc, taken, tried = T.zeros(g:shape()), 0, 0
  local function look(bad)
    tried = tried + 1
    if not refused(c, bad, acc) then taken = taken + 1 end
  end
  local stride = math.max(1, math.floor(#bytes / 400))
  for n = 0, #bytes - 1, stride do look(bytes:sub(1, n)) end
  look(bytes .. "x")
  look(bytes .. bytes)
  for i = 1, #bytes, stride do
    for b = 0, 7 do look(bytes:sub(1, i - 1) .. string.char(bit.bxor(bytes:byte(i), 2 ^ b)) .. bytes:sub(i + 1)) end
  end
  taken = taken + (acc:norm_value(math.huge) > 0 and 1 or 0)
  return row("damaged messages refused", taken, 0, ("taken, of %d truncated, extended, flipped"):format(tried))
end

local function filled(shape, v) return T.full(shape, v) end

--- Returns unusual gradients, {name, tensor}. The squares of the huge one overflow f32; its entries divided by p do
--- not.
local function odd_inputs(subject)
  local shape, random = subject.small:shape(), subject.random()
  local function noise(s, size)
    local t = T.empty(s)
    local p = t:data()
    for i = 0, t:numel() - 1 do p[i] = size * (random() - 0.5) end
    return t
  end
  local rows, columns = noise({9, 1}, 1), noise({1, 14}, 1)
  return {
    {"zero", filled(shape, 0)}, {"one element", filled({1}, -3)}, {"prime length", noise({97}, 1)},
    {"odd sizes", noise({7, 3, 5, 3}, 1)}, {"rank one", rows:matmul(columns)}, {"all equal", filled(shape, 2)},
    {"huge", noise(shape, 1e30)}, {"tiny", noise(shape, 1e-37)}, {"denormal", noise(shape, 1e-40)},
  }
end

--- Checks that unusual gradients are encoded and decoded to finite numbers with a finite closed form, and zero to zero.
function M.inputs(subject)
  local wrong, first = 0, nil
  for k, item in ipairs(odd_inputs(subject)) do
    local c = subject.make "as is"
    local ok, good = pcall(function()
      local ghat = c:decode(c:encode(item[2], {step = k}))
      local s = c:stats()
      return ghat:count_nonfinite() == 0 and s.variance >= 0 and s.variance < math.huge and
        (k > 1 or ghat:norm_value(math.huge) == 0)
    end)
    if not (ok and good) then
      wrong = wrong + 1
      first = first or item[1] .. (ok and ": wrong" or ": " .. tostring(good))
    end
  end
  return row("zero, odd, huge, tiny ... inputs", wrong, 0, first or "wrong, of 9")
end

--- Checks that NaN and Inf are refused with a text that names them, and that the compressor works afterwards.
function M.nonfinite(subject)
  local taken, note = 0, "taken, of 3"
  for _, bad in ipairs {0 / 0, math.huge, -math.huge} do
    local c = subject.make "as is"
    local g = subject.small:clone()
    g:data()[3] = bad
    local ok, text = pcall(c.encode, c, g, {step = 1})
    if ok or not tostring(text):find "NaN or Inf" or not pcall(c.encode, c, subject.small, {step = 1}) then
      taken = taken + 1
      note = ok and "was encoded" or "says: " .. tostring(text)
    end
  end
  return row("NaN, Inf refused by name", taken, 0, note)
end

--- Checks that the squared error stated by a biased compressor is the measured one.
function M.stated_error(subject)
  local c
  local drawn = draws.draw(function(step)
    c = subject.make "as is"
    return c:decode(c:encode(subject.g, {step = step}))
  end, subject.g, subject.draws, 2, function() return c:stats().variance end)
  local v = draws.variance(drawn, drawn.stated)
  return row("biased; squared error as stated", v.figure, v.bound,
    ("standard errors; measured %.4g, stated %.4g x ||g||^2"):format(v.measured / drawn.energy,
      v.closed_form / drawn.energy))
end

--- Checks error feedback: the sum of all that was sent and the residual equals the sum of all gradients.
function M.feedback(subject)
  local c, g = subject.make "feedback", subject.g
  if not c then return nil end
  local sent, steps = T.zeros(g:shape()), 20
  for step = 1, steps do c:decode_add(c:encode(g, {step = step}), 1, sent) end
  sent:add_(c:residual(1))
  return row("error feedback loses nothing", distance(sent, g * steps), 1e-4, "sent + held back over all gradients")
end

return M
