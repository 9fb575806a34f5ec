-- QSGD and TernGrad: what their papers promise, the special cases of Algorithm 1, buckets. The statistics have
-- a false-alarm rate of 1e-6 a check and fixed seeds.
local atomo = require "atomo"
local verify = require "atomo.tools.verify"
local codec = require "support.codec"

local function decaying(n, seed)
  atomo.manual_seed(seed)
  return codec.decaying(5, n)
end

describe("qsgd and terngrad", function()
  local specs = {{"qsgd", 700}, {"qsgd:bits=2", 1030}, {"qsgd:bits=8,bucket=64", 333}, {"qsgd:bits=3,norm=max", 512},
    {"qsgd:bits=5,bucket=0", 777}, {"qsgd:bits=2,coding=elias", 1030}, {"qsgd:bits=4,bucket=100,coding=elias", 333},
    {"qsgd:bits=6,bucket=7", 50}, {"qsgd:bucket=1", 9}, {"terngrad", 600}, {"terngrad:coding=elias", 601},
    {"terngrad", 1}}
  for k, item in ipairs(specs) do
    it(("%s on [%d] is unbiased, with the variance that it says"):format(item[1], item[2]), function()
      codec.unbiased(atomo.compressor(item[1], {seed = k}), decaying(item[2], k), 1200)
    end)
  end

  it("qsgd meets the paper's bound min(d/s^2, sqrt(d)/s) ||x||^2 in every bucket size and width", function()
    for bits = 2, 8 do
      for _, d in ipairs {16, 100, 512, 4096} do
        local g, s = decaying(d, bits), 2 ^ (bits - 1) - 1
        for _, coding in ipairs {"packed", "elias"} do
          local c = atomo.compressor(("qsgd:bits=%d,bucket=%d,coding=%s"):format(bits, d, coding))
          c:encode(g)
          local stats = c:stats()
          assert.is_true(stats.variance <= math.min(d / s ^ 2, math.sqrt(d) / s) * stats.square)
        end
      end
    end
  end)

  it("have the variance of entry atoms at s = ||g||_1 / ||g||_q", function()
    local g = decaying(900, 4)
    for text, q in pairs {["qsgd:bits=2,bucket=0"] = 2, ["qsgd:bits=2,bucket=0,norm=max"] = math.huge,
      terngrad = math.huge} do
      local direct = atomo.compressor(text)
      direct:encode(g)
      local s = g:norm_value(1) / g:norm_value(q)
      local sampled = atomo.compressor(("entry:step=0,atoms=%.10g"):format(s))
      sampled:encode(g)
      assert.near(1, direct:stats().variance / sampled:stats().variance, 1e-4)
    end
  end)

  it("keep entry i as often as Algorithm 1's probability says, to 1e-6 a check over all entries", function()
    local n, draws = 60, 4000
    local g = decaying(n, 5)
    local z = math.sqrt(2 * math.log(n / 1e-6 * 2))
    for text, q in pairs {["qsgd:bits=2,bucket=0"] = 2, terngrad = math.huge} do
      local c, count = atomo.compressor(text, {seed = 8}), {}
      local p = atomo.probabilities(g, g:norm_value(1) / g:norm_value(q))
      for i = 1, n do count[i] = 0 end
      local ghat = atomo.zeros(n)
      for k = 1, draws do
        c:decode_add(c:encode(g, {step = k}), 1, ghat:zero_())
        local d = ghat:data()
        for i = 1, n do if d[i - 1] ~= 0 then count[i] = count[i] + 1 end end
      end
      for i = 1, n do
        local want = p:get(i)
        local error = math.sqrt(draws * want * (1 - want))
        -- the bound is Chernoff's, with its correction for rare events
        local off = math.abs(count[i] - draws * want)
        assert.is_true(off <= z * error + z * z / 3, ("%s: entry %d"):format(text, i))
      end
    end
  end)

  it("round up with the probability of the fraction, not with its complement", function()
    local g = atomo.full({4000}, 0.1)
    g:set(1, 1)
    local mean = 0
    local c = atomo.compressor "qsgd:bits=2,norm=max,bucket=0"
    for k = 1, 50 do mean = mean + c:decode(c:encode(g, {step = k})):mean():item() / 50 end
    assert.near(0.1, mean, 5 * math.sqrt(0.09 / 200000) + 1e-3)
  end)

  it("never lose the largest entry", function()
    for bits = 2, 8 do
      for _, coding in ipairs {"packed", "elias"} do
        local c = atomo.compressor(("qsgd:bits=%d,norm=max,bucket=32,coding=%s"):format(bits, coding))
        for _, sign in ipairs {1, -1} do
          local g = atomo.full({100}, 0.01)
          for _, i in ipairs {1, 32, 33, 77, 100} do g:set(i, sign * 3) end
          for k = 1, 20 do
            local ghat = c:decode(c:encode(g, {step = k}))
            for _, i in ipairs {1, 32, 33, 77, 100} do assert.near(sign * 3, ghat:get(i), 1e-6) end
          end
        end
      end
    end
    local t = atomo.compressor "terngrad"
    local g = atomo.tensor({0.1, -5, 0.2, 5})
    for k = 1, 20 do
      local ghat = t:decode(t:encode(g, {step = k}))
      assert.same({-5, 5}, {ghat:get(2), ghat:get(4)})
    end
  end)

  it("send zero buckets as zeros, and any length", function()
    for _, coding in ipairs {"packed", "elias"} do
      for _, n in ipairs {1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 1025, 1537} do
        local c = atomo.compressor(("qsgd:bits=8,coding=%s"):format(coding))
        local g = atomo.randn(n)
        local p = g:data()
        for i = 512, math.min(n, 1024) - 1 do p[i] = 0 end
        local ghat = c:decode(c:encode(g))
        assert.equal(0, ghat:count_nonfinite())
        assert.is_true((ghat - g):norm_value(math.huge) < g:norm_value(2) / 127)
        if n > 512 then assert.equal(0, ghat:narrow(1, 513, math.min(n, 1024) - 512):norm_value(math.huge)) end
        assert.equal(0, c:decode(c:encode(atomo.zeros(n))):norm_value(2))
      end
    end
    local c = atomo.compressor "qsgd"
    assert.is_true(c:encode(atomo.zeros(5120)).nbytes < 10 * 4 + 20)
  end)

  it("terngrad's clipping is off by default and says that it is a bias", function()
    local g = decaying(2000, 6)
    g:set(1, 50)
    local c, plain = atomo.compressor "terngrad:clip=2.5", atomo.compressor "terngrad"
    assert.is_false(c.unbiased)
    assert.is_true(plain.unbiased)
    local drawn = verify.draw(verify.sampler(c, g), g, 1200)
    assert.is_false(verify.unbiased(drawn).pass)
    assert.is_true(verify.variance(drawn, c:stats().variance).pass)
    plain:encode(g)
    assert.is_true(c:stats().variance < plain:stats().variance + 50 ^ 2)
    local far = atomo.compressor "terngrad:clip=999" -- a cut above the largest entry cuts nothing
    assert.equal(0, (far:decode(far:encode(g)) - plain:decode(plain:encode(g))):norm_value(math.huge))
  end)
end)
