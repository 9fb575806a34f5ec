-- Tensors: making, looking, views, arithmetic, reductions, linear algebra, transforms, errors, memory.
local atomo = require "atomo"

local function close(a, b, tolerance)
  assert.same(b:shape(), a:shape())
  local difference = (a - b):norm_value(math.huge)
  assert.is_true(difference <= (tolerance or 1e-5), "largest difference " .. difference)
end

describe("making tensors", function()
  it("reads nested tables, shapes and dtypes", function()
    assert.same({{1, 2}, {3, 4}}, atomo.tensor({{1, 2}, {3, 4}}):totable())
    assert.same({2, 3}, atomo.zeros(2, 3):shape())
    assert.same({2, 3}, atomo.ones({2, 3}, "i32"):shape())
    assert.equal("u8", atomo.zeros(4, "u8"):dtype())
    assert.same({0, 1, 2}, atomo.arange(3):totable())
    assert.same({5, 5}, atomo.full({2}, 5):totable())
    assert.equal(0, atomo.zeros(0, 3):numel())
    assert.equal(7, atomo.tensor(7):item())
  end)

  it("draws the same numbers from the same seed", function()
    atomo.manual_seed(3)
    local a, b = atomo.randn(5, 7), atomo.rand(11)
    atomo.manual_seed(3)
    assert.same(a:totable(), atomo.randn(5, 7):totable())
    assert.same(b:totable(), atomo.rand(11):totable())
    assert.are_not.same(a:totable(), atomo.randn(5, 7):totable())
  end)

  it("draws normals of mean 0 and variance 1", function()
    atomo.manual_seed(1)
    local n = 100000
    local t = atomo.randn(n)
    -- 5 standard errors of mean and of variance: false alarms below 1e-6
    assert.is_true(math.abs(t:mean():item()) < 5 / math.sqrt(n))
    assert.is_true(math.abs(t:square():mean():item() - 1) < 5 * math.sqrt(2 / n))
  end)
end)

describe("views", function()
  it("share their storage", function()
    local t = atomo.arange(12):view(3, 4)
    local row = t:select(1, 2)
    row:fill_(-1)
    assert.same({-1, -1, -1, -1}, t:narrow(1, 2, 1):reshape(-1):totable())
    assert.equal(3, t:t():get(4, 1))
    assert.same({4, 3}, t:transpose(1, -1):shape())
    assert.is_false(t:t():is_contiguous())
    assert.same({3, 2}, t:view(-1, 2):narrow(1, 1, 3):shape())
    assert.same({2, 1, 3}, atomo.zeros(1, 2, 3):permute(2, 1, 3):shape())
  end)

  it("join and index", function()
    local a, b = atomo.ones(2, 1), atomo.zeros(2, 2)
    assert.same({{1, 0, 0}, {1, 0, 0}}, atomo.cat({a, b}, 2):totable())
    assert.same({{3}, {1}}, atomo.tensor({{1}, {2}, {3}}):index_select(1, {3, 1}):totable())
    assert.same({2, 2, 1}, atomo.stack({a, a}):shape())
  end)
end)

describe("arithmetic", function()
  it("broadcasts as NumPy does", function()
    local a, b = atomo.tensor({{1}, {2}}), atomo.tensor({10, 20, 30})
    assert.same({{11, 21, 31}, {12, 22, 32}}, (a + b):totable())
    assert.same({{-9, -19, -29}, {-8, -18, -28}}, (a - b):totable())
    assert.same({2, 1}, (2 / atomo.tensor({1, 2})):totable())
    assert.same({-1, -2}, (-atomo.tensor({1, 2})):totable())
    assert.same({3, 5}, (atomo.tensor({1, 2}, "i32") * 2 + 1):totable())
    assert.same({1, 0, 0}, atomo.tensor({1, 2, 3}):lt(2):totable())
  end)

  it("works on strided operands and in place", function()
    local t = atomo.arange(6):view(2, 3)
    close(t:t() + t:t(), (t * 2):t():contiguous())
    t:t():mul_(2)
    assert.same({{0, 2, 4}, {6, 8, 10}}, t:totable())
    t:narrow(2, 1, 1):add_(atomo.tensor({{1}, {1}}))
    assert.same({{1, 2, 4}, {7, 8, 10}}, t:totable())
    assert.same({{2, 4, 8}, {14, 16, 20}}, t:clone():axpy_(1, t):totable())
  end)

  it("converts, truncating and saturating", function()
    assert.same({1, -1, 2147483647, 0}, atomo.tensor({1.9, -1.9, 1e20, 0 / 0}):int():totable())
    assert.same({255, 0, 3}, atomo.tensor({300, -5, 3.7}):to("u8"):totable())
  end)

  it("reduces", function()
    local t = atomo.tensor({{1, 5, 2}, {9, 3, 4}})
    assert.equal(24, t:sum():item())
    assert.same({10, 8, 6}, t:sum(1):totable())
    assert.same({{8}, {16}}, t:sum(2, true):totable())
    local values, index = t:max(2)
    assert.same({5, 9}, values:totable())
    assert.same({2, 1}, index:totable())
    assert.same({1, 2, 1}, t:argmin(1):totable())
    assert.equal(4, t:mean():item())
    assert.equal(9, t:norm(math.huge):item())
    assert.equal(0, atomo.zeros(0):sum():item())
  end)

  it("sums a million terms without drift", function()
    assert.is_true(math.abs(atomo.full({1000003}, 0.1):sum():item() - 100000.3) < 0.02)
  end)
end)

describe("linear algebra", function()
  it("multiplies matrices in any layout", function()
    local a, b = atomo.randn(5, 3), atomo.randn(4, 3)
    local c = a:matmul(b:t())
    for i = 1, 5 do
      for j = 1, 4 do
        local s = 0
        for k = 1, 3 do s = s + a:get(i, k) * b:get(j, k) end
        assert.is_true(math.abs(s - c:get(i, j)) < 1e-5)
      end
    end
    close(a:t():matmul(c), a:t():contiguous():matmul(c))
    close(a:matmul(b:select(1, 2)), c:select(2, 2):contiguous())
    close(a:narrow(2, 1, 2):matmul(b:narrow(2, 1, 2):t()), c - a:narrow(2, 3, 1):matmul(b:narrow(2, 3, 1):t()))
    assert.same({2, 5, 4}, atomo.randn(2, 5, 3):matmul(atomo.randn(2, 3, 4)):shape())
  end)

  it("decomposes", function()
    for _, shape in ipairs {{1, 1}, {3, 5}, {7, 2}, {16, 16}} do
      local a = atomo.randn(shape)
      local u, s, vt = atomo.svd(a)
      close(u:matmul(s:view(-1, 1) * vt), a, 1e-4)
      local q, r = atomo.qr(a)
      close(q:matmul(r), a, 1e-4)
      local g = a:matmul(a:t())
      local w, v = atomo.eigh(g)
      close((v * w):matmul(v:t()), g, 1e-3)
    end
  end)

  it("refuses matrices on which LAPACK would hang", function()
    local a = atomo.ones(3, 3)
    a:set(2, 3, math.huge)
    assert.has_error(function() atomo.svd(a) end)
    local ok, text = pcall(atomo.svd, a)
    assert.is_false(ok)
    assert.matches("1 of %[3,3%] entries are NaN or Inf, the first at row 2 column 3", text)
    local u = atomo.svd(atomo.full({3, 3}, 1e38))
    assert.equal(0, (u:count_nonfinite()))
  end)

  it("transforms", function()
    for _, n in ipairs {1, 2, 5, 8, 13, 100} do
      local t = atomo.randn(3, n)
      local s = atomo.rfft(t)
      assert.same({3, math.floor(n / 2) + 1, 2}, s:shape())
      close(atomo.irfft(s, n), t)
      for k = 0, math.floor(n / 2) do
        local re, im = 0, 0
        for j = 0, n - 1 do
          re = re + t:get(2, j + 1) * math.cos(2 * math.pi * j * k / n)
          im = im - t:get(2, j + 1) * math.sin(2 * math.pi * j * k / n)
        end
        assert.is_true(math.abs(re - s:get(2, k + 1, 1)) + math.abs(im - s:get(2, k + 1, 2)) < 1e-4)
      end
    end
  end)
end)

describe("misuse", function()
  local function message(fn, ...)
    local ok, text = pcall(fn, ...)
    assert.is_false(ok)
    return text
  end

  it("names the value and the expected one, at the caller's line", function()
    local t = atomo.zeros(2, 3)
    assert.matches("tensor_spec.lua:%d+: .*%[2,3%].*%[2,3%]", message(function() return t:matmul(t) end))
    assert.matches("index 4 in dimension 2, expected 1 to 3", message(t.get, t, 1, 4))
    assert.matches("6 elements", message(t.item, t))
    assert.matches("cannot be seen as %[4,2%]", message(t.view, t, 4, 2))
    assert.matches("dimension 3 of a tensor with 2", message(t.sum, t, 3))
    assert.matches("not contiguous", message(function() return t:t():data() end))
    assert.matches("ragged", message(atomo.tensor, {{1, 2}, {3}}))
    assert.matches("unknown dtype 'f64'", message(atomo.zeros, 2, "f64"))
    assert.matches("size %-1", message(atomo.zeros, -1))
    assert.matches("do not broadcast", message(function() return t + atomo.zeros(4) end))
    assert.matches("f32 and i32 do not mix", message(function() return t + atomo.zeros(2, 3, "i32") end))
    assert.matches("expected a whole number from 0", message(atomo.manual_seed, -1))
    assert.matches("2%^53", message(atomo.manual_seed, 0.5))
  end)
end)

describe("memory", function()
  it("is given back by free, by scopes and by the collector", function()
    collectgarbage()
    collectgarbage()
    local before = atomo.mem().live_blocks
    local kept = atomo.scope(function()
      local a = atomo.zeros(1000)
      return a + 1
    end)
    assert.equal(1000, kept:sum():item())
    kept:free()
    assert.has_error(function() return kept:sum() end)
    do
      local garbage = atomo.zeros(1000)
      assert.equal(0, garbage:sum():item())
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(atomo.mem().live_blocks <= before)
  end)

  it("keeps tensors marked by keep, and frees the others on an error", function()
    local saved
    pcall(atomo.scope, function()
      saved = atomo.ones(3):keep()
      local lost = atomo.ones(3)
      assert.equal(3, lost:sum():item())
      error "out"
    end)
    assert.equal(3, saved:sum():item())
  end)

  it("is given back by the collector where a tensor has outlived its scope", function()
    local function live_blocks()
      collectgarbage()
      collectgarbage()
      return atomo.mem().live_blocks
    end
    local before = live_blocks()
    local function survivors()
      local outer = atomo.scope(function()
        local inner = atomo.scope(atomo.zeros, 10)
        return {inner:keep(), atomo.ones(10):keep()}, inner
      end)
      return outer, atomo.scope(atomo.zeros, 10)
    end
    local kept, returned = survivors()
    assert.equal(10, kept[2]:sum():item() + returned:sum():item())
    assert.is_true(live_blocks() > before)
    kept, returned = nil, nil -- luacheck: ignore
    assert.is_true(live_blocks() <= before)
  end)
end)

it("prints as Torch does", function()
  assert.equal(" 1  2\n 3  4\n[atomo.Tensor f32 2x2]", tostring(atomo.tensor({{1, 2}, {3, 4}})))
  assert.equal(" 0.5000\n 1.0000\n[atomo.Tensor f32 2]", tostring(atomo.tensor({0.5, 1})))
  assert.matches("%(2,%.,%.%) =", tostring(atomo.zeros(2, 2, 2)))
end)
