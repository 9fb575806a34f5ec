-- Algorithm 1: closed forms, optimality (KKT) against a brute-force solver, hard spectra, refusals.
-- test: slow
local atomo = require "atomo"

--- Returns p for threshold T; the optimum has this form for some T.
local function at(lambda, cost, T)
  local p, spent = {}, 0
  for i, l in ipairs(lambda) do
    local c = cost and cost[i] or 1
    p[i] = l == 0 and 0 or math.min(1, math.abs(l) / (T * math.sqrt(c)))
    spent = spent + c * p[i]
  end
  return p, spent
end

--- Brute force: bisection on log T, until no double is between the ends.
local function brute(lambda, s, cost)
  local low, high = -800, 800
  local p, spent = at(lambda, cost, 0)
  if spent <= s then return p end
  for _ = 1, 80 do
    local middle = (low + high) / 2
    p, spent = at(lambda, cost, math.exp(middle))
    if spent > s then low = middle else high = middle end
  end
  return p
end

local spectra = {
  function(i) return 0.5 ^ i end, function(i) return 0.97 ^ i end, function(i) return 1 / i end,
  function() return 1 end, function() return math.random() - 0.5 end,
  function() return math.random() < 0.5 and 0 or math.random() ^ 8 end,
  function(i) return i % 3 == 0 and 1e-6 or i % 3 end, function() return 10 ^ (12 * math.random() - 6) end,
}

describe("probabilities", function()
  it("gives the closed forms", function()
    local p = atomo.probabilities({1, 0.5, 0.25, 0.125}, 3)
    assert.same({1, 1}, {p[1], p[2]})
    assert.near(2 / 3, p[3], 1e-12)
    assert.near(1 / 3, p[4], 1e-12)
    -- s = ||g||_1 / ||g||_q gives |g_i| / ||g||_q: 1-bit QSGD (q = 2) and TernGrad (q = inf)
    local g = {3, -4, 1, 0.5}
    for _, norm in ipairs {math.sqrt(26.25), 4} do
      p = atomo.probabilities(g, 8.5 / norm)
      for i = 1, 4 do assert.near(math.abs(g[i]) / norm, p[i], 1e-12) end
    end
  end)

  it("are 1 if the budget is the number of nonzero coefficients", function()
    for _, base in ipairs {1, 2, 4, 10} do
      for n = 1, 20 do
        local lambda = atomo.zeros(n + 3)
        for i = 1, n do lambda:set(i, (-1) ^ i * base ^ (i % 11 + i / 50)) end
        local p = atomo.probabilities(lambda, n)
        for i = 1, n + 3 do assert.equal(i <= n and 1 or 0, p:get(i), ("%d of %d, base %g"):format(i, n, base)) end
      end
    end
  end)

  it("is the optimum on 3000 random spectra, with and without costs", function()
    math.randomseed(7)
    for k = 1, 3000 do
      local n = math.random(1, 40)
      local lambda, cost = {}, k % 2 == 0 and {} or nil
      local make, total = spectra[k % #spectra + 1], 0
      for i = 1, n do
        lambda[i] = make(i)
        if cost then cost[i] = 10 ^ (6 * math.random() - 3) end
        total = total + (cost and cost[i] or 1)
      end
      local s = total * math.random() ^ 3 * 1.1 + 1e-9
      local p, want = atomo.probabilities(lambda, s, cost), brute(lambda, s, cost)
      local spent, most, worst, inside = 0, 0, 0, true
      for i = 1, n do
        inside = inside and p[i] >= 0 and p[i] <= 1 -- false for NaN, too
        worst = math.max(worst, math.abs(want[i] - p[i]))
        spent = spent + (cost and cost[i] or 1) * p[i]
        most = most + (lambda[i] ~= 0 and (cost and cost[i] or 1) or 0)
      end
      assert.is_true(inside, "a probability outside 0 to 1")
      assert.is_true(worst <= 1e-9, "off by " .. worst)
      assert.near(math.min(s, most), spent, 1e-9 * s)
    end
  end)

  it("meets the budget on tensors of a million, where the rest is tiny", function()
    atomo.manual_seed(1)
    for _, s in ipairs {0.001, 1, 1000, 999999, 2e6} do
      local g = atomo.randn(1000000)
      g:set(5, 1e8)
      local p = atomo.probabilities(g, s)
      assert.same({1000000}, p:shape())
      assert.near(math.min(s, 1e6), p:sum():item(), 1e-3 * s)
    end
  end)

  it("takes a budget that holds everything, ties, zeros, one and no coefficients", function()
    assert.same({1, 1, 1}, atomo.probabilities({1, -1e-30, 5}, 3))
    assert.same({1, 1, 1}, atomo.probabilities({1, -1e-30, 5}, math.huge))
    assert.same({0.5, 0.5, 0.5, 0.5}, atomo.probabilities({2, -2, 2, 2}, 2))
    assert.same({0, 0, 0}, atomo.probabilities({0, 0, 0}, 1))
    assert.same({1, 0}, atomo.probabilities({1e-300, 0}, 1.5))
    assert.same({0.25}, atomo.probabilities({7}, 0.25))
    assert.same({}, atomo.probabilities({}, 1))
    local p = atomo.probabilities(atomo.tensor({1, 0, -1}), 1, atomo.tensor({1, 1, 1}))
    assert.same({0.5, 0, 0.5}, p:totable())
    p = atomo.probabilities({1e300, 1e300}, 1) -- sums would leave the range
    assert.same({0.5, 0.5}, p)
  end)

  it("refuses budgets without a solution, naming the fault", function()
    local nan = 0 / 0
    local function fails(text, ...)
      local ok, message = pcall(atomo.probabilities, ...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    fails("s is 0", {1}, 0)
    fails("s is -1", {1}, -1)
    fails("s is nan", {1}, math.abs(nan))
    fails("s is missing", {1})
    fails("lambda[2]", {1, nan}, 1)
    fails("lambda[1]", {math.huge, 1}, 1)
    fails("number 2", atomo.tensor({1, nan}), 1)
    fails("cost[1] is -1", {1, 2}, 1, {-1, 1})
    fails("cost[2] is 0", {1, 2}, 1, {1, 0})
    fails("cost has 1", {1, 2}, 1, {1})
    fails("lambda is a number", 3, 1)
    fails("lambda[1] is a string", {"x"}, 1)
    fails("[2]", atomo.tensor({1, 2}), 1, atomo.tensor({1, 2, 3}))
  end)
end)
