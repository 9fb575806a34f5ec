-- Error feedback with every compressor: the residual stays bounded for changing gradients, and training reaches the
-- dense result. The bound: if a message leaves at most the fraction 1 - d of a gradient, residuals of gradients of norm
-- 1 stay below 2 / d (Karimireddy et al. 2019, lemma 3); d = 1 / (1 + w) for an unbiased compressor of relative
-- variance w, which is measured by the same compressor without ef on the same gradients.
-- test: slow
local atomo = require "atomo"
local root = require "support.root"
local codec = require "support.codec"
local f = require "atomo.ffi"
local square = codec.square

for _, name in ipairs {"haar", "block_fourier", "head_tail"} do
  dofile(root .. "scripts/atoms/" .. name .. ".lua")
end
require("support.svd_atoms")("svd_feedback", {bits = 4})

local function with_feedback(text) return text .. (text:find ":" and ",ef=true" or ":ef=true") end

--- Gradients of norm 1 with a direction that stays, one that turns, filters that die and come alive, and noise.
local function changing(shape, steps)
  local fixed, list = atomo.randn(shape), {}
  for step = 1, steps do
    local g = fixed * 0.3 + atomo.randn(shape)
    for row = 1, shape[1] do
      if (math.floor(step / 10) + row) % 3 == 0 then g:select(1, row):zero_() end
    end
    list[step] = g:mul_(1 / g:norm_value(2))
  end
  return list
end

local texts = {"qsgd:bits=2", "qsgd:bits=2,bucket=0", "entry:ratio=64", "entry:ratio=64,sampling=systematic",
  "svd:ratio=16,bits=8", "svd:atoms=0.5", "svd:ratio=64,every=5", "taps:ratio=64", "rotated:ratio=64",
  "auto:ratio=128,keep=7,every=9",
  "terngrad:clip=2.5", "atomo-published:atoms=0.5", "rows:ratio=64,bits=2", "topk:ratio=64", "randk:ratio=64",
  "powersgd:rank=1", "haar_lua:ratio=64", "head_tail:ratio=64", "svd_feedback:ratio=64"}
for _, entry in ipairs(atomo.compressors()) do
  if not entry.make then texts[#texts + 1] = entry.name end
end

describe("the residual of error feedback stays bounded:", function()
  for _, text in ipairs(texts) do
    it(text, function()
      atomo.manual_seed(11)
      local c, plain = atomo.compressor(with_feedback(text)), atomo.compressor(text)
      local shape, steps, d, most = {12, 3, 3, 8}, 200, 1, 0
      for step, g in ipairs(changing(shape, steps)) do
        local before = step > 1 and c:residual() or atomo.zeros(shape)
        c:encode(g, {step = step})
        local held, s = square(c:residual()), c:stats()
        if s.variance > s.square / 4 then -- below, compressors that contract alone state what they expect
          assert.near(1, held / s.variance, 1e-3, "the error that is stated is what is held back")
        end
        if plain.unbiased then
          plain:encode(before + g, {step = step})
          s = plain:stats()
          d = math.min(d, 1 / (1 + s.variance / s.square))
          assert.is_true(held <= square(before + g) * (1 + 1e-5), "no draw leaves more than it found")
        else
          d = math.min(d, 1 - s.variance / s.square)
        end
        most = math.max(most, math.sqrt(held))
      end
      assert.is_true(d > 0 and most <= 2 / d, ("%g is held back, 2 / d is %g"):format(most, 2 / d))
      assert.is_true(most < 60, ("%g is held back"):format(most))
    end)
  end
end)

describe("the factor is the same whichever way a message is written and read:", function()
  for _, text in ipairs {"entry:ratio=16", "svd:ratio=8", "fourier:ratio=8", "qsgd:bits=2", "auto:ratio=16",
    "haar_lua:ratio=8", "head_tail:ratio=8", "svd_feedback:ratio=8"} do
    it(text, function()
      atomo.manual_seed(12)
      local shapes, grads = {{8, 3, 3, 6}, {20, 30}}, {}
      for i, shape in ipairs(shapes) do grads[i] = atomo.randn(shape) end
      local c, d = atomo.compressor(with_feedback(text)), atomo.compressor(with_feedback(text))
      local messages = c:encode_all(grads, {step = 3})
      d:prepare(shapes)
      local out, accs = atomo.zeros(d:wire_max(), "u8"), {}
      local bytes = d:encode_step(grads, {step = 3, out = out})
      for i, shape in ipairs(shapes) do accs[i] = atomo.zeros(shape) end
      d:decode_step(out, 0, bytes, 1, accs)
      for i, g in ipairs(grads) do
        local ghat = c:decode(messages[i])
        assert.is_true((ghat + c:residual(i) - g):norm_value(math.huge) < 1e-5)
        assert.is_true((ghat - accs[i]):norm_value(math.huge) < 1e-6)
        assert.is_true((ghat * 0.5 - c:decode_add(messages[i], 0.5, g * 0)):norm_value(math.huge) < 1e-6)
        local two = c:decode_add(messages[i], 1, c:decode_add(messages[i], 1, g * 0))
        assert.is_true((ghat * 2 - two):norm_value(math.huge) < 1e-5)
      end
      d:begin_step(4, 0)
      local at, ends = 0, {}
      for i, g in ipairs(grads) do
        at = at + d:push(i, g, out, at)
        ends[i] = at
      end
      d:end_step()
      for i, g in ipairs(grads) do
        local from = i > 1 and ends[i - 1] or 0
        local data = f.ffi.cast("const uint8_t *", out.h.data) + from
        local acc = atomo.zeros(shapes[i])
        d:decode_tensor(i, 4, {{data = data, left = ends[i] - from}, {data = data, left = ends[i] - from}}, 0.5, acc)
        assert.is_true((accs[i] + acc + d:residual(i) - g * 2):norm_value(math.huge) < 1e-4)
      end
    end)
  end
end)

describe("with error feedback a small training comes to the dense result:", function()
  --- Least squares of 60 numbers from batches of noisy measurements; returns the loss at the end.
  local function train(text)
    atomo.manual_seed(13)
    local c, n = text and atomo.compressor(text), 60
    local truth, x = atomo.randn(6, 10), atomo.zeros(6, 10)
    for step = 1, 1500 do
      local g = (x - truth) + atomo.randn(6, 10) * 0.05
      if c then g = c:decode(c:encode(g, {step = step})) end
      x:axpy_(-0.02, g)
    end
    return (x - truth):norm_value(2) / math.sqrt(n)
  end
  local dense = train()
  for _, text in ipairs {"qsgd:bits=2,ef=true", "entry:ratio=8,ef=true", "svd:ratio=4,bits=8,ef=true",
    "taps:ratio=8,ef=true", "topk:ratio=8,ef=true", "signsgd:ef=true", "powersgd:rank=1,ef=true",
    "haar_lua:ratio=8,ef=true", "svd_feedback:ratio=4,ef=true"} do
    it(text, function()
      local loss = train(text)
      assert.is_true(loss < 4 * dense + 0.02, ("%g, dense %g"):format(loss, dense))
    end)
  end
end)
