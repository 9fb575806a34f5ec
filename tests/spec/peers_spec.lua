-- What the papers of the compressors beside ATOMO promise: means, variances, contractions, error feedback.
-- Statistics: fixed seeds, false-alarm rate 1e-6 a check. QSGD and TernGrad are in quantiser_spec.
local atomo = require "atomo"
local verify = require "atomo.verify"

local function decaying(...)
  local g = atomo.randn(...)
  local p, n = g:data(), g:numel()
  for i = 0, n - 1 do p[i] = p[i] * math.exp(-6 * ((i * 7919) % n) / n) end
  return g
end

local function square(t) return t:norm_value(2) ^ 2 end

local function fails(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.truthy(message:find(text, 1, true), message)
end

local function draws(c, g, count)
  return verify.draw(verify.sampler(c, g), g, count or 1200)
end

describe("unbiased ones", function()
  for k, item in ipairs {{"natural", {700}}, {"natural", {1}}, {"randk:ratio=4", {24, 3, 3, 4}}, {"randk:k=1", {13}},
    {"randk:k=40", {50}}, {"fp16:round=stochastic", {300}}, {"bf16:round=stochastic", {600}}} do
    it(item[1] .. " on [" .. table.concat(item[2], ",") .. "]: the mean, and the variance in closed form", function()
      atomo.manual_seed(k)
      local g = decaying(unpack(item[2]))
      local c = atomo.compressor(item[1], {seed = k})
      assert.is_true(c.unbiased)
      local drawn = draws(c, g)
      local u, v = verify.unbiased(drawn), verify.variance(drawn, c:stats().variance)
      assert.is_true(u.pass, ("worst %.2f standard errors, bound %.2f"):format(u.figure, u.bound))
      assert.is_true(v.pass, ("measured %g, closed form %g"):format(v.measured, v.closed_form))
    end)
  end

  it("fp16's mean is right where most entries are its denormals", function()
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
    assert.equal(0, (other:finish(u:clone(), 0.5) - u):norm_value(2)) -- all others: nothing
    fails("give one of them", function() atomo.compressor("signsgd:vote=true,ef=true"):encode(t) end)
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
      local one = 2 ^ (1 - digits) -- a last place of 1
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

describe("powersgd", function()
  local function best(m, r) -- what the best rank-r matrix leaves
    local _, s = atomo.svd(m)
    local left = 0
    for i = r + 1, s:numel() do left = left + s:get(i) ^ 2 end
    return left
  end

  it("is a projection: the error is ||M||^2 - ||Q||^2, and comes down to the best of its rank", function()
    atomo.manual_seed(5)
    for _, shape in ipairs {{20, 30}, {40, 7}, {6, 3, 3, 5}} do
      local g = atomo.randn(unpack(shape))
      local m = g:view(shape[1], -1)
      for i = 1, 4 do m:add_(atomo.randn(m:size(1), 1):matmul(atomo.randn(1, m:size(2))):mul_(6 - i)) end
      local last = math.huge
      local c = atomo.compressor "powersgd:rank=4"
      for step = 1, 60 do
        local error = square(c:decode(c:encode(g, {step = step})) - g)
        local s = c:stats()
        assert.near(error, s.variance, 1e-4 * s.square)
        assert.is_true(error <= s.square and error <= last * (1 + 1e-5))
        last = error
      end
      assert.near(1, last / best(m, 4), 1e-2)
      local cold = atomo.compressor "powersgd:rank=4,warm=false"
      for step = 1, 10 do cold:encode(g, {step = step}) end
      assert.is_true(cold:stats().variance > last)
    end
  end)

  it("gives matrices of its rank and below exactly, also after zeros", function()
    atomo.manual_seed(6)
    local c = atomo.compressor "powersgd:rank=3"
    for step = 1, 4 do
      local g = step == 3 and atomo.zeros(12, 9) or atomo.randn(12, step):matmul(atomo.randn(step, 9))
      if step == 4 then g = atomo.randn(12, 2):matmul(atomo.randn(2, 9)) end
      local error = (c:decode(c:encode(g, {step = step})) - g):norm_value(math.huge)
      assert.is_true(error <= 1e-5 * (1 + g:norm_value(2)), error)
    end
    local v = atomo.randn(50)
    local ghat = c:decode(c:encode(v, {tensor = 2}))
    assert.is_true((ghat - v):norm_value(math.huge) < 1e-5)
  end)

  it("starts from the same Q on every rank", function()
    local g = atomo.randn(8, 8)
    local c = atomo.compressor "powersgd"
    local a = c:decode(c:encode(g, {rank = 0}))
    local other = atomo.compressor "powersgd"
    assert.equal(0, (other:decode(other:encode(g, {rank = 7})) - a):norm_value(2))
  end)
end)

describe("atomo-published", function()
  it("inflates the mean by 1 / (1 - P(empty)), with the squared error that it says", function()
    atomo.manual_seed(9)
    local g = atomo.randn(10, 12)
    local svd = atomo.compressor "svd:bits=32,fold=paper,atoms=1"
    for _, s in ipairs {1, 2} do
      local c = atomo.compressor("atomo-published:atoms=" .. s, {seed = 5})
      assert.is_false(c.unbiased)
      local _, lambda = atomo.svd(g)
      local sum, empty, p = lambda:sum():item(), 1, {}
      for i = 1, 10 do
        p[i] = math.min(1, s * lambda:get(i) / sum)
        empty = empty * (1 - p[i])
      end
      local drawn = draws(c, g * (1 / (1 - empty)), 1500)
      -- draws were made of the inflated gradient: its mean is inflated once more
      local look = drawn.along[1]
      local inflated = 1 + look.mean / drawn.energy
      local error = math.sqrt(look.m2 / look.n) / math.sqrt(look.n) / drawn.energy
      assert.near(1 / (1 - empty), inflated, 5.1 * error)
      assert.is_true(1 / (1 - empty) > 1 + 6 * error)
      drawn = draws(c, g, 1500)
      assert.is_false(verify.unbiased(drawn).pass)
      assert.is_true(verify.variance(drawn, c:stats().variance).pass)
    end
    svd:encode(g)
    assert.is_true(svd.unbiased)
  end)

  it("loses the budget of clipped atoms: 2 to 4 times the variance of Algorithm 1 on 0.5^k", function()
    local g = atomo.zeros(16, 16)
    for i = 1, 16 do g:set(i, i, 0.5 ^ i) end
    for s, times in pairs {[3] = 2, [4] = 4} do
      local c, ours = atomo.compressor("atomo-published:atoms=" .. s), atomo.compressor("svd:bits=32,atoms=" .. s)
      c:encode(g)
      ours:encode(g)
      assert.near(times, c:stats().variance / ours:stats().variance, 0.25)
      assert.is_true(c:stats().atoms_expected < s - 0.4)
    end
  end)
end)

describe("error feedback", function()
  local lossy = {"topk:k=20", "randk:k=20", "signsgd", "powersgd:rank=1", "terngrad", "qsgd:bits=2", "bf16", "natural",
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
    local g, sum, squares, n = decaying(100), 0, 0, 2000
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
      fails("7 numbers came", early.load_state_dict, early, {["2"] = atomo.zeros(7)})
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
    fails("there is none without ef=true", function()
      local plain = atomo.compressor "topk"
      plain:encode(g)
      plain:residual()
    end)
    fails("not planned", c.residual, c, 5)
  end)
end)
