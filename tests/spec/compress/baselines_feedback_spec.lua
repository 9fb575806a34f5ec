-- Error feedback: nothing is lost, residuals stay bounded, descent converges, memory continues from a state_dict.
-- Statistics: fixed seeds, false-alarm rate 1e-6 a check.
local atomo = require "atomo"
local codec = require "support.codec"
local fails, square = codec.fails, codec.square

describe("error feedback", function()
  local lossy = {"topk:k=20", "randk:k=20", "signsgd", "powersgd:rank=1", "terngrad", "eden:bits=1", "qsgd:bits=2",
    "bf16", "natural",
    "entry:ratio=8", "svd:ratio=8,bits=4", "atomo-published:atoms=2"}
  for k, text in ipairs(lossy) do
    it(text .. ": gradients = what was sent + what is held back", function()
      atomo.manual_seed(k)
      local c = atomo.compressor(text .. ",ef=true")
      if not text:find ":" then c = atomo.compressor(text .. ":ef=true") end
      assert.is_false(c.unbiased)
      local all, sent = atomo.zeros(8, 25), atomo.zeros(8, 25)
      for step = 1, 30 do
        local g = atomo.randn(8, 25)
        all:add_(g)
        local before = step > 1 and c:residual() or atomo.zeros(8, 25)
        c:decode_add(c:encode(g, {step = step}), 1, sent)
        assert.near(1, square(before + g) / c:stats().square, 1e-4)
        local held = c:residual()
        assert.is_true((all - sent - held):norm_value(2) < 1e-4 * (1 + all:norm_value(2) + held:norm_value(2)))
      end
    end)
  end

  it("stays bounded as a contraction promises: E||e||^2 <= 4 (1 - delta) / delta^2 G^2", function()
    for text, delta in pairs {["topk:k=20,ef=true"] = 0.1, ["randk:k=20,ef=true"] = 0.1, ["signsgd:ef=true"] = 0.5} do
      atomo.manual_seed(3)
      local c, mean, most = atomo.compressor(text), 0, 0
      for step = 1, 300 do
        local g = atomo.randn(200)
        c:encode(g, {step = step})
        mean = mean + square(c:residual()) / 300
        most = math.max(most, square(g))
      end
      assert.is_true(mean <= 4 * (1 - delta) / delta ^ 2 * most, text .. " " .. mean)
    end
  end)

  it("randk's steps contract by 1 - k/n in the mean", function()
    atomo.manual_seed(4)
    local g, sum, squares, n = codec.decaying(6, 100), 0, 0, 2000
    for k = 1, n do
      local c = atomo.compressor("randk:k=25,ef=true", {seed = k})
      local x = square(c:decode(c:encode(g)) - g) / square(g)
      sum, squares = sum + x, squares + x * x
    end
    local error = math.sqrt((squares / n - (sum / n) ^ 2) / n)
    assert.near(0.75, sum / n, 5 * error)
  end)

  it("makes sign descent converge where it alone does not [Karimireddy et al. 2019, section 3]", function()
    local function descend(text)
      local c, x = atomo.compressor(text), atomo.tensor {1, 1}
      for step = 1, 2000 do
        local a, b = x:get(1), x:get(2)
        -- f = |a + b| / 2 + |a - b|: all its gradients have the signs of (1, -1) or (-1, 1)
        local s, d = a + b >= 0 and 0.5 or -0.5, a - b >= 0 and 1 or -1
        local g = atomo.tensor {s + d, s - d}
        x:axpy_(-0.01, c:decode(c:encode(g, {step = step})))
      end
      return 0.5 * math.abs(x:get(1) + x:get(2)) + math.abs(x:get(1) - x:get(2))
    end
    assert.is_true(descend "signsgd" > 0.5)
    assert.is_true(descend "signsgd:ef=true" < 0.05)
  end)

  it("and PowerSGD's factors go on from state_dict with the same bytes, planned before or after", function()
    atomo.basis("as_it_is", {analyze = function(g) return g end, synthesize = function(c) return c end})
    for _, text in ipairs {"topk:k=5,ef=true", "powersgd:rank=2", "powersgd:rank=2,ef=true", "svd:ratio=4,ef=true",
      "as_it_is:ratio=4,ef=true"} do
      local list = {}
      for step = 1, 6 do list[step] = atomo.randn(12, 10) end
      local whole = atomo.compressor(text)
      for step = 1, 3 do whole:encode(list[step], {step = step, tensor = 2}) end
      local state = whole:state_dict()
      local late, early = atomo.compressor(text), atomo.compressor(text)
      early:encode(list[1], {tensor = 2})
      late:load_state_dict(state)
      early:load_state_dict(state)
      for step = 4, 6 do
        local key = {step = step, tensor = 2}
        local bytes = whole:encode(list[step], key):bytes()
        assert.equal(bytes, late:encode(list[step], key):bytes())
        assert.equal(bytes, early:encode(list[step], key):bytes())
      end
      fails("7 numbers, expected", early.load_state_dict, early, {["2"] = atomo.zeros(7)})
      fails("'x' is no tensor's number", early.load_state_dict, early, {x = atomo.zeros(7)})
    end
    local plain = atomo.compressor "qsgd"
    plain:encode(atomo.randn(9))
    assert.is_nil(next(plain:state_dict()))
  end)

  it("refuses a bad gradient and forgets nothing", function()
    local c = atomo.compressor "topk:k=2,ef=true"
    local g = atomo.randn(10)
    c:encode(g)
    local held = c:residual()
    local bad = atomo.randn(10)
    bad:set(4, 0 / 0)
    fails("the first is number 4", c.encode, c, bad, {step = 2})
    assert.equal(0, (c:residual() - held):norm_value(2))
    local huge = atomo.compressor "topk:k=1,ef=true"
    huge:encode(atomo.full({10}, 3e38))
    held = huge:residual()
    fails("entries up to 3e+38 plus a residual up to 3e+38 leave the range", huge.encode, huge,
      atomo.full({10}, 3e38), {step = 2})
    assert.equal(0, (huge:residual() - held):norm_value(2))
    fails("there is none without ef=true", function()
      local plain = atomo.compressor "topk"
      plain:encode(g)
      plain:residual()
    end)
    fails("not planned", c.residual, c, 5)
  end)
end)
