-- No step is far over its budget whatever the gradients are: a walk through gradients of all kinds and sizes (dense,
-- zero, sparse, of rank one, constant, with one entry, with a few large ones, one live filter), in which probes of the
-- entries miss what matters, all coefficients are alike, or values take more steps than a message can count.
-- test: slow
local atomo = require "atomo"
local T = require "atomo.tensor"

local shapes = {{64, 3, 3, 32}, {128, 64}, {10, 128}, {64, 3, 3, 64}, {16, 3, 3, 3}}

--- Returns g with element i (from 0) set to 0 unless keep(i, n).
local function part_of(g, keep)
  local p, n = g:data(), g:numel()
  for i = 0, n - 1 do if not keep(i, n) then p[i] = 0 end end
  return g
end

local kinds = {
  function(g) return g end,
  function(g) return g * 0 end,
  function(g) return part_of(g, function(i) return i % 97 == 0 end) end,
  function(g, rows) return (atomo.randn(rows, 1) * atomo.randn(1, g:numel() / rows)):reshape(g:shape()) end,
  function(g) return g * 0 + 1 end,
  function(g) return part_of(g, function(i, n) return i == n - 1 end) end,
  function(g) return g:pow(3) end,
  function(g, rows) return part_of(g, function(i, n) return i < n / rows end) end,
  function(g) g:data()[7] = 1e5 return g end,
  function(g) return part_of(g, function(i) return i % 1009 == 0 end) end,
}
local sizes = {1, 1, 1, 1000, 1e-3, 1e6, 1e-6}

--- Returns the largest bytes / budget of a walk of `steps` steps, and its step. whole: all tensors of a step at once.
local function walk(spec, steps, whole)
  local state, c, total, worst, at = 12345, atomo.compressor(spec), 0, 0, 0
  local function random(n)
    state = (state * 1103515245 + 12345) % 2 ^ 31
    return math.floor(state / 65536) % n + 1
  end
  for _, s in ipairs(shapes) do total = total + 4 * atomo.zeros(s):numel() end
  c:prepare(shapes, nil, {step_bytes = total, dense_bytes = 0})
  local out = T.empty({c:wire_max()}, "u8")
  for step = 0, steps do
    local grads, alike, size, bytes = {}, random(3) == 1 and random(10) or nil, sizes[random(7)], 0
    for i, shape in ipairs(shapes) do
      local kind = kinds[alike or random(10)]
      atomo.manual_seed(step * 10 + i)
      grads[i] = kind(atomo.randn(shape), shape[1]) * (size * (random(4) == 1 and 100 or 1))
    end
    if whole then
      bytes = c:encode_step(grads, {step = step, out = out})
    else
      c:begin_step(step, 0)
      for i = #shapes, 1, -1 do bytes = bytes + c:push(i, grads[i], out, bytes) end
      c:end_step()
    end
    local spent = bytes / (total / spec:match "ratio=(%d+)")
    if spent > worst then worst, at = spent, step end
  end
  return worst, at
end

describe("a walk through gradients of all kinds stays near the budget:", function()
  for spec, steps in pairs {["entry:ratio=32"] = 60, ["entry:ratio=2"] = 30, ["hadamard:ratio=32"] = 40,
    ["haar:ratio=32"] = 100, ["taps:ratio=32"] = 80, ["rotated:ratio=32"] = 140, ["auto:ratio=32"] = 40} do
    for _, whole in ipairs {false, true} do
      it(spec .. (whole and ", all tensors at once" or ", tensor by tensor"), function()
        local worst, at = walk(spec, steps, whole)
        assert.is_true(worst < 1.25, ("step %d: %.3f of the budget"):format(at, worst))
      end)
    end
  end
end)
