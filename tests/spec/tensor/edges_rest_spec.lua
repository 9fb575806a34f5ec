-- What has no golden case: dropout, accuracy, attention of one tensor, factors of matrices, the scan for NaN and Inf.
local atomo = require "atomo"
local edges = require "support.edges"
local F = atomo.F
local inf, nan = math.huge, 0 / 0

describe("dropout at the edges", function()
  it("of p = 0 is the input, of p = 1 is 0", function()
    local x = atomo.param {1, -2, 1e30}
    assert.same(x:totable(), F.dropout(x, 0):totable())
    local y = F.dropout(x, 1)
    assert.equal(0, y:norm_value())
    y:sum():backward()
    assert.equal(0, x.grad:norm_value())
  end)

  it("keeps or zeroes every element, at any length", function()
    for _, n in ipairs {1, 7, 16, 33, 40000, 100003} do
      local y = F.dropout(atomo.full({n}, 3e38), 0.25)
      local zeros = y:eq(0):sum():item()
      assert.equal(n - zeros, y:eq(inf):sum():item()) -- 4e38
      assert.is_true(math.abs(zeros - n / 4) <= 6 * math.sqrt(n * 3 / 16))
    end
  end)
end)

describe("accuracy at the edges", function()
  it("takes the first of equals, and NaN as the largest, as argmax", function()
    local logits = atomo.tensor {{1, 1, 0}, {nan, 5, 1}, {0, nan, nan}, {-inf, -inf, -inf}, {inf, 1, inf}}
    assert.same({1, 1, 2, 1, 1}, (logits:argmax(2)):totable())
    assert.equal(1, F.accuracy(logits, atomo.tensor({0, 0, 1, 0, 0}, "i32")))
    assert.equal(0, F.accuracy(logits, atomo.tensor({1, 1, 2, 1, 2}, "i32")))
  end)
end)

describe("attention at the edges", function()
  local x = atomo.tensor {{{1, 0}, {100, -100}, {-3, 1e15}}}

  it("of one tensor is that of its thirds", function()
    local y = F.self_attention(atomo.cat({x, x, x}, 3), {causal = true})
    assert.is_nil(edges.difference(y, F.scaled_dot_product_attention(x, x, x, {causal = true})))
  end)

  it("is 0 where a query sees no key, forward and backward", function()
    local q, k, v = atomo.param(x:clone()), atomo.param(x:clone()), atomo.param(x:clone())
    local hidden = atomo.full({3, 3}, -inf):set(2, 1, 0)
    local y = F.scaled_dot_product_attention(q, k, v, {mask = hidden})
    assert.same({{{0, 0}, {1, 0}, {0, 0}}}, y:totable())
    y:sum():backward()
    assert.same({{{1, 1}, {0, 0}, {0, 0}}}, v.grad:totable())
    assert.equal(0, q.grad:norm_value() + k.grad:norm_value())
  end)
end)

describe("factors of matrices", function()
  local zero_row = {{0, 0, 0}, {1, -2, 3}, {0, 0, 0}, {4, 5, 6}}
  local matrices = {
    zero_row = zero_row, zero = {{0, 0}, {0, 0}}, rank_1 = {{1, 2}, {2, 4}, {3, 6}}, one = {{-7}}, row = {{1, 0, 2, 3}},
    large = {{1e38, -2e38}, {3e38, 0}}, small = {{1e-40, 0}, {2e-40, 3e-40}}, mixed = {{1e30, 1}, {1, 1e-30}},
  }
  local function close(got, want, scale)
    local worst = (got - want):norm_value(inf)
    assert.is_true(worst <= 4e-6 * scale, ("off by %g at a scale of %g"):format(worst, scale))
  end
  local function diagonal(s)
    local n = s:numel()
    local d = atomo.zeros(n, n)
    for i = 1, n do d:set(i, i, s:get(i)) end
    return d
  end

  for name, m in pairs(matrices) do
    it("give it back: " .. name, function()
      local a = atomo.tensor(m)
      local scale = math.max(a:norm_value(inf), 1e-45)
      local unit = a / scale
      local u, s, vt = atomo.svd(a)
      close(u:matmul(diagonal(s / scale)):matmul(vt), unit, 1)
      local q, r = atomo.qr(a)
      close(q:matmul(r / scale), unit, 1)
      close(q:t():matmul(q), diagonal(atomo.ones(q:size(2))), 1)
      local square = unit:t():matmul(unit)
      local w, v = atomo.eigh(square)
      close(v:matmul(diagonal(w)):matmul(v:t()), square, math.max(1, square:norm_value(inf)))
    end)
  end

  it("are those of views too, and eigh reads the lower triangle alone", function()
    local a = atomo.tensor(zero_row)
    local _, s = atomo.svd(a)
    local _, turned = atomo.svd(a:t():contiguous():t())
    assert.same(s:totable(), turned:totable())
    local lower = atomo.tensor {{1, 99, -7}, {2, 3, nan}, {4, 5, 6}}
    lower:set(2, 3, 1e6)
    local w = atomo.eigh(lower)
    assert.same(w:totable(), (atomo.eigh(atomo.tensor {{1, 2, 4}, {2, 3, 5}, {4, 5, 6}})):totable())
  end)
end)

describe("the scan for NaN and Inf", function()
  local function count(t) return {t:count_nonfinite()} end

  it("finds every one in every layout, dtype and length", function()
    for n = 1, 70 do
      for _, bad in ipairs {nan, inf, -inf} do
        local t = atomo.full({n}, 3.4e38)
        t:set(n, bad)
        assert.same({1, n}, count(t))
        local wide = atomo.full({n + 2, 3}, nan)
        local column = wide:narrow(1, 2, n):select(2, 2)
        column:fill_(1e-45)
        assert.same({0}, count(column))
        column:set((n + 1) / 2 - (n + 1) / 2 % 1, bad)
        assert.same({1, math.floor((n + 1) / 2)}, count(column))
      end
    end
    assert.same({0}, count(atomo.full({9}, 255, "u8")))
    assert.same({0}, count(atomo.full({9}, -2147483648, "i32")))
    assert.same({0}, count(atomo.zeros(0, 3)))
    assert.same({6, 1}, count(atomo.full({1}, nan):expand(2, 3)))
    local long = atomo.zeros(1000003)
    long:set(1000003, nan)
    long:set(500001, inf)
    assert.same({2, 500001}, count(long))
    local turned = atomo.zeros(700, 900):t()
    turned:set(3, 5, nan)
    assert.same({1, 2 * 700 + 5}, count(turned))
  end)

  it("of a list names the first tensor that has one", function()
    local list = {atomo.ones(3), atomo.ones(2, "i32"), atomo.ones(4, 4):t(), atomo.tensor {1, nan}, atomo.tensor {inf}}
    assert.equal(4, atomo.find_nonfinite(list))
    list[3]:set(1, 3, -inf)
    assert.equal(3, atomo.find_nonfinite(list))
    assert.is_nil(atomo.find_nonfinite {list[1], list[2]})
    assert.is_nil(atomo.find_nonfinite {})
    local holes = {false, [3] = list[4]}
    for i = 5, 40 do holes[i] = list[1] end
    assert.equal(3, atomo.find_nonfinite(holes, 40))
    assert.is_nil(atomo.find_nonfinite(holes, 2))
    local ok, why = pcall(atomo.find_nonfinite, {false})
    assert.is_false(ok)
    assert.matches("find_nonfinite: tensor", why)
  end)
end)
