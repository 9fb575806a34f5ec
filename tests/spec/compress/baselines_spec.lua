-- What the papers of the compressors beside ATOMO promise: means, variances, contractions.
-- Statistics: fixed seeds, false-alarm rate 1e-6 a check. QSGD and TernGrad are in quantiser_spec, PowerSGD and the
-- published rule of ATOMO in baselines_rank_spec, error feedback in baselines_feedback_spec.
local atomo = require "atomo"
local codec = require "support.codec"
local fails, square = codec.fails, codec.square

local function decaying(...) return codec.decaying(6, ...) end

describe("unbiased ones", function()
  for k, item in ipairs {{"natural", {700}}, {"natural", {1}}, {"eden", {700}}, {"eden:bits=1", {24, 3, 3, 4}},
    {"randk:ratio=4", {24, 3, 3, 4}}, {"randk:k=1", {13}},
    {"qsgd:coding=dither", {700}}, {"qsgd:bits=2,norm=max,coding=dither", {13, 5}},
    {"qsgd:bits=8,bucket=7,coding=dither", {24, 3, 3, 4}}, {"randk:k=40", {50}},
    {"fp16:round=stochastic", {300}}, {"bf16:round=stochastic", {600}}} do
    it(item[1] .. " on [" .. table.concat(item[2], ",") .. "]: the mean, and the variance in closed form", function()
      atomo.manual_seed(k)
      codec.unbiased(atomo.compressor(item[1], {seed = k}), decaying(unpack(item[2])), 1200)
    end)
  end

  it("dither halves the variance of rounding to levels, at the same length, and decodes zeros exactly", function()
    atomo.manual_seed(9)
    local g = atomo.randn(3000)
    for _, text in ipairs {"qsgd:bits=3,norm=max", "qsgd:bits=6", "qsgd:bits=8,bucket=100"} do
      local plain, dither = atomo.compressor(text), atomo.compressor(text .. ",coding=dither")
      assert.equal(plain:encode(g, {step = 1}).nbytes, dither:encode(g, {step = 1}).nbytes)
      assert.near(0.5, dither:stats().variance / plain:stats().variance, 0.02, text)
    end
    local c = atomo.compressor "qsgd:coding=dither"
    assert.equal(0, c:decode(c:encode(atomo.zeros(700), {step = 1})):norm_value(2))
    local m = c:encode(g, {step = 3, rank = 2}) -- a receiver has only the message
    local other = atomo.compressor "qsgd:coding=dither"
    other:prepare {{3000}}
    assert.equal(0, (other:decode(m) - c:decode(m)):norm_value(2))
    codec.fails("with dither, leave the range of f32", c.encode, c, atomo.full({5}, 3.4e38))
  end)

  it("fp16's mean is right if most entries are denormals of fp16", function()
    atomo.manual_seed(2)
    local g = atomo.randn(400):mul_(5e-12)
    g:set(1, 1)
    local c = atomo.compressor "fp16:round=stochastic"
    local tail, mean = g:narrow(1, 2, 399):contiguous(), atomo.zeros(399)
    for k = 1, 1000 do mean:axpy_(1e-3, c:decode(c:encode(g, {step = k})):narrow(1, 2, 399):contiguous()) end
    local error = math.sqrt(c:stats().variance / 1000)
    assert.is_true(c:stats().variance > 0.01 * square(tail))
    assert.is_true((mean - tail):norm_value(2) < 1.5 * error) -- chi^2 of 399: 1.35 is 1e-12 away
  end)

  it("a fraction below a random byte's last place is met, too: 9/10 of 1/256 of the way to the next level", function()
    local n, part = 400000, 0.9 / 256
    for text, x in pairs {natural = 1 + part, ["qsgd:bits=2,norm=max,bucket=0"] = part, terngrad = part,
      ["qsgd:bits=4,norm=max,bucket=0"] = (2 + part) / 7, ["bf16:round=stochastic"] = 1 + part / 128,
      ["fp16:round=stochastic"] = 1 + part / 1024} do
      local g = atomo.full({n}, x)
      g:set(1, 1)
      local c = atomo.compressor(text, {seed = 2})
      local mean, step = c:decode(c:encode(g)):mean():item(), math.sqrt(c:stats().variance / n / part)
      -- step: the distance of the levels; part of it is lost or added where the fraction is cut to a byte
      assert.is_true(math.abs(mean - g:mean():item()) < 5.1 * step * math.sqrt(part / n), text)
    end
  end)

  it("eden: the variance of the Lloyd-Max quantiser, D / (1 - D), whatever the gradient is", function()
    local ramp = atomo.zeros(20000)
    for i = 1, 20000 do ramp:set(i, i) end
    for bits, D in pairs {0.3634, 0.1175, 0.03454, 0.009497} do -- Max, 1960, table I
      for _, g in ipairs {atomo.randn(20000), ramp} do
        local c, variance, m = atomo.compressor("eden:bits=" .. bits), 0
        for step = 1, 30 do
          m = c:encode(g, {step = step})
          variance = variance + c:stats().variance / square(g) / 30
        end
        assert.near(D / (1 - D), variance, 0.04 * D) -- of one bit, 1 % of D is a standard error
        assert.near(bits * 20000 / 8, m.nbytes, 0.01 * bits * 20000 / 8 + 40)
      end
    end
  end)

  it("natural: a power of two comes back, the variance is at most ||x||^2 / 8 and nearly so at 4/3", function()
    local c = atomo.compressor "natural"
    local powers = atomo.tensor {1, -2, 0.5, -2 ^ -100, 2 ^ 127, 0}
    assert.equal(0, (c:decode(c:encode(powers)) - powers):norm_value(math.huge))
    for k = 1, 20 do
      atomo.manual_seed(k)
      c:encode(decaying(500))
      local s = c:stats()
      assert.is_true(s.variance <= s.square / 8)
    end
    c:encode(atomo.full({100}, 4 / 3))
    assert.near(1 / 8, c:stats().variance / c:stats().square, 1e-6)
  end)

  it("randk: every k-subset as likely as the others, the same on all ranks, messages that add", function()
    local n, k, count, pairs_of = 5, 2, 3000, {}
    local c = atomo.compressor("randk:k=2", {seed = 4})
    local ones = atomo.ones(n)
    for step = 1, count do
      local a = c:decode(c:encode(ones, {step = step, rank = 0})):totable()
      local b = c:decode(c:encode(ones * 3, {step = step, rank = 9})):totable()
      local key = ""
      for i = 1, n do
        assert.equal(3 * a[i], b[i])
        assert.is_true(a[i] == 0 or a[i] == n / k)
        if a[i] ~= 0 then key = key .. i end
      end
      pairs_of[key] = (pairs_of[key] or 0) + 1
    end
    local chi = 0
    for i = 1, n do
      for j = i + 1, n do chi = chi + ((pairs_of[i .. j] or 0) - count / 10) ^ 2 / (count / 10) end
    end
    assert.is_true(chi < 46.7, chi) -- chi^2 of 9 degrees passes 46.7 with probability 4.4e-7
    assert.equal(4 * k + 13, c:encode(ones, {step = 1}).nbytes) -- values only
  end)
end)

describe("topk", function()
  it("sends the k largest, ties by lower index, never zeros", function()
    for k = 1, 30 do
      atomo.manual_seed(k)
      local g = atomo.randn(200)
      local p = g:data()
      for i = 0, 199, 3 do p[i] = math.floor(p[i] * 3) / 2 end -- ties and zeros
      local order, want = {}, atomo.zeros(200)
      for i = 1, 200 do order[i] = i end
      table.sort(order, function(a, b)
        local x, y = math.abs(p[a - 1]), math.abs(p[b - 1])
        return x > y or (x == y and a < b)
      end)
      for i = 1, 6 * k do want:set(order[i], p[order[i] - 1]) end
      local c = atomo.compressor("topk:k=" .. 6 * k)
      assert.equal(0, (c:decode(c:encode(g)) - want):norm_value(math.huge))
      local s = c:stats()
      assert.near(square(g - want), s.variance, 1e-5 * s.square)
      assert.is_true(s.variance <= (1 - 6 * k / 200) * s.square * (1 + 1e-6))
    end
    local c = atomo.compressor "topk:k=500"
    local g = atomo.randn(77)
    assert.equal(0, (c:decode(c:encode(g)) - g):norm_value(math.huge))
    assert.equal(0, c:stats().variance)
    assert.is_true(c:encode(atomo.zeros(77)).nbytes < 20)
  end)

  it("and randk keep to their ratio", function()
    local g = decaying(40000)
    for _, name in ipairs {"topk", "randk"} do
      for _, ratio in ipairs {1, 2, 16, 64, 256} do
        local n = atomo.compressor(("%s:ratio=%d"):format(name, ratio)):encode(g).nbytes
        assert.near(1, (n - 15) * ratio / 160000, 0.03, ("%s at %d: %d bytes"):format(name, ratio, n))
      end
      fails("give one of ratio (4) and k (3)", function() atomo.compressor(name .. ":ratio=4,k=3"):encode(g) end)
    end
  end)
end)

describe("signsgd", function()
  it("sends the nearest multiple of the signs: 1 - delta, delta = ||g||_1^2 / (n ||g||_2^2)", function()
    for k = 1, 10 do
      atomo.manual_seed(k)
      local g = decaying(100 * k + k)
      local c = atomo.compressor "signsgd"
      local error = square(c:decode(c:encode(g)) - g)
      local delta = g:norm_value(1) ^ 2 / g:numel() / square(g)
      assert.near(1 - delta, error / square(g), 1e-5)
      assert.near(error, c:stats().variance, 1e-5 * error)
      assert.is_false(c.unbiased)
    end
  end)

  it("votes: the majority's sign, a tie is 0, zero gradients abstain", function()
    for ranks = 1, 9 do
      local c = atomo.compressor "signsgd:vote=true"
      local acc, votes = atomo.zeros(333), atomo.zeros(333)
      for r = 1, ranks do
        local g = atomo.randn(333)
        c:decode_add(c:encode(g, {rank = r}), 1 / ranks, acc)
        votes:add_(g:lt(0):mul_(-2) + 1)
      end
      c:decode_add(c:encode(atomo.zeros(333)), 1 / ranks, acc)
      c:finish(acc, 1 / ranks)
      local a, v = acc:data(), votes:data()
      for i = 0, 332 do assert.equal(v[i] > 0 and 1 or v[i] < 0 and -1 or 0, a[i]) end
    end
    local other = atomo.compressor "signsgd"
    local t = atomo.randn(5)
    local u = other:decode(other:encode(t))
    assert.equal(0, (other:finish(u:clone(), 0.5) - u):norm_value(2)) -- finish of all other compressors changes nothing
    fails("signsgd: finish: acc", function() other:finish(atomo.zeros(5, "i32"), 0.5) end)
    fails("vote=true sends no magnitudes, which ef=true needs", function()
      atomo.compressor("signsgd:vote=true,ef=true"):encode(t)
    end)
  end)
end)

describe("signsgd's zeros", function()
  it("do not drift: they go as + and - by turns, over steps and over ranks", function()
    local g = atomo.tensor {0, 3, -0.0, -5, 0}
    for _, text in ipairs {"signsgd", "signsgd:vote=true"} do
      local c = atomo.compressor(text)
      for ranks = 1, 4 do
        local moved = atomo.zeros(5)
        for step = 1, 10 do
          local acc = atomo.zeros(5)
          for r = 0, ranks - 1 do c:decode_add(c:encode(g, {step = step, rank = r}), 1 / ranks, acc) end
          moved:add_(c:finish(acc, 1 / ranks))
          local one = text == "signsgd" and 8 / 5 or 1
          for _, i in ipairs {1, 3, 5} do
            assert.is_true(math.abs(moved:get(i)) < (ranks % 2 == 0 and 1e-6 or 1.01 * one))
          end
          assert.near(step * one, moved:get(2), 1e-5 * step)
          assert.near(-step * one, moved:get(4), 1e-5 * step)
        end
      end
    end
  end)
end)

describe("16-bit floats", function()
  it("round to nearest, ties to even, and report the squared error", function()
    for name, digits in pairs {fp16 = 11, bf16 = 8} do
      local c = atomo.compressor(name)
      assert.is_false(c.unbiased)
      atomo.manual_seed(1)
      local g = decaying(999)
      local ghat = c:decode(c:encode(g))
      local a, b = g:data(), ghat:data()
      for i = 0, 998 do
        local _, e = math.frexp(a[i])
        assert.is_true(math.abs(a[i] - b[i]) <= 2 ^ (e - digits - 1))
      end
      assert.near(1, square(ghat - g) / c:stats().variance, 1e-4)
      local one = 2 ^ (1 - digits) -- the unit in the last place of 1
      local ties = atomo.tensor {1 + one / 2, 1 + 1.5 * one, -1 - one / 2, 1 + 0.51 * one, 1 + 0.49 * one}
      assert.same({1, 1 + 2 * one, -1, 1 + one, 1}, c:decode(c:encode(ties)):totable())
    end
  end)

  it("do not overflow: fp16 scales, bf16 stops at its largest", function()
    for _, v in ipairs {3.4e38, 70000, 1e-20, 1e-40} do
      local c = atomo.compressor "fp16"
      assert.near(1, c:decode(c:encode(atomo.full({3}, v))):get(2) / v, 1e-3)
    end
    for _, text in ipairs {"bf16", "bf16:round=stochastic"} do
      local c = atomo.compressor(text)
      for k = 1, 50 do
        assert.near(1, c:decode(c:encode(atomo.full({3}, 3.402823e38), {step = k})):get(2) / 3.3895e38, 1e-3)
      end
    end
  end)
end)
