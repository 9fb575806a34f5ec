-- Encoding must not change other random streams, the gradient, or memory beside the accumulator; draws with different
-- keys, and of tensors with equal shapes, must be independent.
local atomo = require "atomo"

local sampled = {"entry:ratio=8", "hadamard:ratio=8", "qsgd", "qsgd:bits=2,coding=elias", "qsgd:coding=dither",
  "terngrad", "natural",
  "fp16:round=stochastic", "bf16:round=stochastic", "svd:ratio=4,bits=8"}
local all = {"none", "auto:ratio=8", "fourier:ratio=8", "dct:ratio=8", "haar:ratio=8", "rows:ratio=4", "randk",
  "topk", "signsgd", "signsgd:vote=true", "powersgd", "fp16", "bf16", "atomo-published", "topk:ef=true",
  "powersgd:ef=true", unpack(sampled)}

local function errors(c, g, key)
  return (c:decode(c:encode(g, key)) - g):view(-1)
end

describe("encoding", function()
  it("neither draws from atomo's and Lua's generators nor depends on them", function()
    atomo.manual_seed(1)
    local g = atomo.randn(16, 3, 3, 8)
    local function run(seed, encode)
      atomo.manual_seed(seed)
      local bytes = {}
      for k, text in ipairs(encode and all or {}) do
        local c = atomo.compressor(text, {seed = 9})
        bytes[k] = c:encode(g, {step = 5}):bytes()
        c:decode(bytes[k])
      end
      return atomo.randn(8):bytes() .. math.random(), bytes
    end
    local alone = run(3, false)
    local after, first = run(3, true)
    local _, second = run(4, true)
    assert.equal(alone, after)
    assert.same(first, second)
  end)

  it("changes neither the gradient nor the memory beside the accumulator", function()
    local g, room = atomo.randn(9, 3, 3, 7), atomo.zeros(11, 3, 3, 7)
    local before, acc = g:bytes(), room:narrow(1, 2, 9)
    for _, text in ipairs(all) do
      local c = atomo.compressor(text)
      room:fill_(42)
      acc:zero_()
      for step = 1, 2 do c:decode_add(c:encode(g, {step = step}), 1, acc) end
      assert.equal(before, g:bytes(), text)
      for _, i in ipairs {1, 11} do
        assert.equal(0, (room:select(1, i) - 42):norm_value(math.huge), text)
      end
      assert.is_true(acc:norm_value(2) > 0, text)
    end
  end)

  it("treats tensors of one shape each by itself", function()
    local list = {}
    for i = 1, 4 do list[i] = atomo.randn(10, 15):mul_(10 ^ i) end
    for _, text in ipairs {"powersgd:rank=1", "powersgd:rank=3,ef=true", "signsgd", "qsgd", "terngrad", "topk:k=9",
      "fp16", "svd:atoms=3", "atomo-published:atoms=1"} do
      local together, alone = atomo.compressor(text), atomo.compressor(text)
      for step = 1, 3 do
        for i, m in ipairs(together:encode_all(list, {step = step})) do
          assert.equal(alone:encode(list[i], {step = step, tensor = i}):bytes(), m:bytes(), text)
        end
      end
    end
  end)
end)

describe("draws", function()
  -- Errors of 9 keys, every pair of them, in 8 compressors: 288 sums of 20000 products, each over its standard error;
  -- beyond 5.9 comes once in 3e8 for one of them, so 1e-6 in all.
  it("of other seeds, steps, tensors and ranks are independent, also if two of these numbers are swapped", function()
    local n = 20000
    atomo.manual_seed(2)
    local g = atomo.randn(n)
    for _, text in ipairs(sampled) do
      if not text:find "svd" then -- svd's errors come from few atoms
        local list = {}
        for k, key in ipairs {{1, 2, 3, 4}, {2, 2, 3, 4}, {1, 3, 3, 4}, {1, 2, 4, 4}, {1, 2, 3, 5}, {2, 1, 3, 4},
          {1, 3, 2, 4}, {1, 2, 4, 3}, {4, 3, 2, 1}} do
          local seed, step, tensor, rank = unpack(key)
          local e = errors(atomo.compressor(text, {seed = seed}), g, {step = step, tensor = tensor, rank = rank})
          list[k] = e
          for j = 1, k - 1 do
            local products = list[j] * e
            local z = products:sum():item() / products:norm_value(2)
            assert.is_true(math.abs(z) < 5.9, ("%s: keys %d and %d: %.1f standard errors"):format(text, j, k, z))
          end
        end
      end
    end
  end)

  it("of R ranks average out: 1/R of the variance, except for randk, whose ranks share their indices", function()
    local ranks = 50
    atomo.manual_seed(3)
    local g = atomo.randn(40, 100)
    for _, text in ipairs {"randk:ratio=4", unpack(sampled, 1, #sampled - 1)} do -- the last has few atoms
      local c, mean = atomo.compressor(text, {seed = 6}), atomo.zeros(40, 100)
      for r = 0, ranks - 1 do c:decode_add(c:encode(g, {step = 1, rank = r}), 1 / ranks, mean) end
      local left = (mean - g):norm_value(2) ^ 2 / c:stats().variance
      assert.near(1, text:find "randk" and left or left * ranks, 0.15, text)
    end
  end)
end)
