-- Atom sets with a fixed basis: their transforms against the definition, orthonormal to rounding, and unbiased with the
-- variance of their closed form. False-alarm rate: 1e-6 a check; seeds are fixed.
-- test: slow
local atomo = require "atomo"
local f = require "atomo.ffi"
local codec = require "support.codec"
local C, check = f.C, f.check

local function decaying(...) return codec.decaying(6, ...) end

local function planned(text, shape)
  local c = atomo.compressor(text)
  c:prepare {shape}
  return c
end

local function transform(c, x, inverse)
  local y = x:clone()
  check(C.atomo_codec_transform(c.h, 1, y.h, inverse and 1 or 0))
  return y
end

--- Atom k (0-based) at entry j of n, by definition.
local define = {}
function define.fourier(k, j, n)
  local frequency = math.ceil(k / 2)   -- DC, cos 1, sin 1, cos 2, sin 2, ...
  if k == 0 then return 1 / math.sqrt(n) end
  if 2 * frequency == n then return (j % 2 == 0 and 1 or -1) / math.sqrt(n) end
  local angle = 2 * math.pi * frequency * j / n
  return math.sqrt(2 / n) * (k % 2 == 1 and math.cos(angle) or -math.sin(angle))
end
function define.dct(k, j, n)
  return math.sqrt((k == 0 and 1 or 2) / n) * math.cos(math.pi * (j + 0.5) * k / n)
end
function define.hadamard(k, j, n)
  local ones, both = 0, bit.band(k, j)
  while both > 0 do ones, both = ones + both % 2, math.floor(both / 2) end
  return (ones % 2 == 0 and 1 or -1) / math.sqrt(n)
end
function define.haar(k, j, n)
  if k == 0 then return 1 / math.sqrt(n) end
  local width = 1 -- the difference of two runs of this width starts at k - width
  while k % (2 * width) == 0 do width = 2 * width end
  local at = j - (k - width)
  if at < 0 or at >= 2 * width then return 0 end
  return (at < width and 1 or -1) / math.sqrt(2 * width)
end

local lengths = {fourier = {1, 2, 3, 8, 31, 60, 257, 600},
  dct = {1, 2, 3, 5, 16, 31, 255, 256, 257, 258, 600}, hadamard = {1, 2, 16, 64},
  haar = {1, 2, 16, 64}}

describe("bases", function()
  for name, list in pairs(lengths) do
    it(name .. " is its definition, at even, odd and prime lengths", function()
      for _, n in ipairs(list) do
        atomo.manual_seed(n)
        local x = atomo.randn(n)
        local y = transform(planned(name, {n}), x)
        for k = 0, n - 1 do
          local sum = 0
          for j = 0, n - 1 do sum = sum + define[name](k, j, n) * x:get(j + 1) end
          assert.near(sum, y:get(k + 1), 2e-6 * math.sqrt(n), ("%s %d of %d"):format(name, k, n))
        end
      end
    end)
  end

  it("in two dimensions are products of the one-dimensional", function()
    atomo.manual_seed(1)
    local m, n = 6, 15
    local x = atomo.randn(m, 5, 3)
    for text, chunk in pairs {["fourier:dims=2"] = 100, ["dct:chunk=100"] = 100, ["dct:chunk=4"] = 4} do
      local basis, y = define[text:match "^%a+"], transform(planned(text, {m, 5, 3}), x):view(m, n)
      local flat = x:view(m, n)
      for k = 0, m - 1 do
        for l = 0, n - 1 do
          local r0, c0, sum = k - k % chunk, l - l % chunk, 0
          local rows, cols = math.min(chunk, m - r0), math.min(chunk, n - c0)
          for i = 0, rows - 1 do
            for j = 0, cols - 1 do
              sum = sum + basis(k - r0, i, rows) * basis(l - c0, j, cols) * flat:get(r0 + i + 1, c0 + j + 1)
            end
          end
          assert.near(sum, y:get(k + 1, l + 1), 1e-5, text)
        end
      end
    end
  end)

  it("by rows is the one-dimensional transform of groups of rows, the last rows together", function()
    atomo.manual_seed(2)
    local x = atomo.randn(7, 5, 3)
    for rows = 1, 9 do
      local y = transform(planned("fourier:rows=" .. rows, {7, 5, 3}), x):view(-1)
      for first = 1, 7, rows do
        local n = 15 * math.min(rows, 8 - first)
        local alone = x:view(-1):narrow(1, 15 * (first - 1) + 1, n):contiguous()
        local want = transform(planned("fourier", {n}), alone)
        assert.is_true((y:narrow(1, 15 * (first - 1) + 1, n) - want):norm_value(2) <= 1e-6 * want:norm_value(2))
      end
    end
  end)

  it("taps is a DCT-II over the kernel's rows and columns, channel by channel", function()
    for i, shape in ipairs {{2, 3, 3, 4}, {1, 3, 3, 300}, {3, 1, 3, 1}, {2, 5, 2, 7}, {4, 1, 1, 6}, {1, 5, 1, 300},
      {1, 65, 2, 2}, {2, 2, 3, 4}} do
      atomo.manual_seed(i)
      local out, kh, kw, channels = unpack(shape)
      local x = atomo.randn(out, kh, kw, channels)
      local y = transform(planned("taps", shape), x)
      local function atom(k, j, n) return n > 64 and (k == j and 1 or 0) or define.dct(k, j, n) end
      for o = 1, out do
        for c = 1, channels, 3 do
          for k = 0, kh - 1 do
            for l = 0, kw - 1 do
              local sum = 0
              for a = 0, kh - 1 do
                for b = 0, kw - 1 do sum = sum + atom(k, a, kh) * atom(l, b, kw) * x:get(o, a + 1, b + 1, c) end
              end
              assert.near(sum, y:get(o, k + 1, l + 1, c), 2e-6)
            end
          end
        end
      end
    end
    for _, shape in ipairs {{30}, {5, 6}, {5, 3, 3}} do -- no kernels
      local x = atomo.randn(shape)
      assert.equal(0, (transform(planned("taps", shape), x) - x):norm_value(2))
    end
  end)

  it("refuse options that do not go together", function()
    local ok, message = pcall(planned, "fourier:dims=2,rows=4", {8, 8})
    assert.is_false(ok)
    assert.truthy(message:find("rows=4 with dims=2, expected dims=1 or rows=0", 1, true), message)
  end)

  for _, text in ipairs {"fourier", "fourier:dims=2", "fourier:rows=1", "fourier:rows=10", "taps", "dct",
    "dct:chunk=64", "dct:chunk=7", "hadamard", "haar"} do
    it(text .. " keeps lengths and comes back, to rounding", function()
      for i, shape in ipairs {{1}, {2}, {7}, {1009}, {100003}, {64, 3, 3, 32}, {37, 5, 5, 3}, {1, 129}, {129, 1}} do
        atomo.manual_seed(i)
        local x, c = atomo.randn(unpack(shape)), planned(text, shape)
        local y = transform(c, x)
        local length = x:norm_value(2)
        assert.near(length, y:norm_value(2), 3e-6 * length)
        assert.is_true((transform(c, y, true) - x):norm_value(2) <= 3e-6 * length)
      end
    end)
  end

  it("are refused by name in builds without them", function()
    local ok, message = pcall(transform, planned("svd", {4, 4}), atomo.randn(4, 4))
    assert.is_false(ok)
    assert.truthy(message:find("no fixed basis", 1, true))
    ok, message = pcall(transform, planned("dct", {4, 4}), atomo.randn(16))
    assert.is_false(ok)
    assert.truthy(message:find("4,4", 1, true))
  end)
end)

local sets = {"taps", "rotated", "rotated:base=none",
  "fourier", "fourier:dims=2", "fourier:rows=1", "dct", "dct:chunk=8", "hadamard", "haar", "rows",
  "rows:bits=4", "rows:bits=32"}

describe("atom sets", function()
  for k, name in ipairs(sets) do
    for _, more in ipairs {"ratio=8", "ratio=8,sampling=systematic"} do
      local text = name .. (name:find ":" and "," or ":") .. more
      it(text .. " is unbiased and its variance the closed form", function()
        atomo.manual_seed(k)
        codec.unbiased(atomo.compressor(text, {seed = 40 + k}), decaying(13, 3, 3, 7), 1000)
      end)
    end

    it(name .. " with a full budget gives the gradient back", function()
      for i, shape in ipairs {{1}, {5}, {127}, {20, 3, 3, 9}} do
        atomo.manual_seed(i)
        local g = decaying(unpack(shape))
        local exact = name:find "rows" and "rows:bits=32" or name
        local c = atomo.compressor(exact .. (exact:find ":" and "," or ":") .. "atoms=1e9")
        local difference = c:decode(c:encode(g)) - g
        assert.is_true(difference:norm_value(2) <= 3e-6 * g:norm_value(2))
      end
    end)

    it(name .. " takes zeros, huge and tiny gradients, and refuses NaN and Inf by name", function()
      local c = atomo.compressor(name)
      assert.equal(0, c:decode(c:encode(atomo.zeros(6, 11))):norm_value(2))
      for _, size in ipairs {1e30, 1e-30, 1e-42} do
        local g = atomo.randn(6, 11):mul_(size)
        local ghat = c:decode(c:encode(g))
        assert.is_true(ghat:norm_value(math.huge) <= 100 * g:norm_value(2))
      end
      local g = atomo.zeros(6, 11)
      for _, value in ipairs {0 / 0, math.huge} do
        g:set(2, 3, value)
        local ok, message = pcall(c.encode, c, g)
        assert.is_false(ok)
        assert.truthy(message:find("number 14", 1, true), message)
      end
    end)
  end
end)
