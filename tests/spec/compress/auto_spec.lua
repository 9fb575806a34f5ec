-- Compressor auto: chooses the family with the least variance for its bytes for each tensor, and is never worse than
-- one family for all; its budget, how often it chooses, its messages. Closed forms are compared; the only statistical
-- test is that of verify (false-alarm rate 1e-6).
-- test: slow
local atomo = require "atomo"
local gradients = require "atomo.tools.gradients"

local singles = {"entry", "entry:step=1", "taps", "rotated", "fourier:rows=1", "svd:bits=8", "svd:bits=6", "svd:bits=4",
  "svd:bits=3", "svd:bits=2"}

local function with(text, option) return text .. (text:find(":", 1, true) and "," or ":") .. option end

--- Returns the stated relative variance of one step's messages.
local function variance(text, list)
  local c, square = atomo.compressor(text, {seed = 3}), 0
  for _, g in ipairs(list) do square = square + g:norm_value(2) ^ 2 end
  c:encode_all(list, {step = 0})
  return c:stats().variance / square, c
end

--- Returns recorded gradients from a folder beside the repository, if it exists.
local function folder(name)
  local path = (os.getenv "ATOMO_SHARED" or "../shared") .. "/data/gradients/" .. name
  local file = io.open(path .. "/fc.weight.npy", "rb")
  if not file then return nil end
  file:close()
  return path
end

--- Asserts that auto's variance is at most that of each family at equal bytes (apart from the byte for the family in
--- each message), with 2 % for the tolerance of budgets, which rotated picks meet in steps of 1 to 2 %.
local function never_worse(list, ratios, names)
  local dense = 0
  for _, g in ipairs(list) do dense = dense + 4 * g:numel() end
  for _, ratio in ipairs(ratios) do
    local mine = variance(("auto:bytes=%.14g"):format(dense / ratio + #list), list)
    for _, text in ipairs(names or singles) do
      local other = variance(with(text, ("bytes=%.14g"):format(dense / ratio)), list)
      assert.is_true(mine <= 1.02 * other + 1e-6, ("%gx: auto %.5g, %s %.5g"):format(ratio, mine, text, other))
    end
  end
end

local made_up = (gradients.made_up())

describe("auto", function()
  local threads = atomo.num_threads()
  setup(function() atomo.set_num_threads(1) end)
  teardown(function() atomo.set_num_threads(threads) end)

  it("is never worse than one family for all tensors, on made-up gradients", function()
    never_worse({made_up[1], made_up[2], made_up[8], made_up[13]}, {16, 64, 256})
  end)

  it("is never worse on one tensor alone, whatever family suits it", function()
    atomo.manual_seed(4)
    local sparse, tone, rank1 = atomo.zeros(40, 50), atomo.zeros(2000), atomo.randn(40, 1):matmul(atomo.randn(1, 50))
    for i = 1, 20 do sparse:set(i, (7 * i) % 50 + 1, i - 10.5) end
    local p = tone:data()
    for i = 0, 1999 do p[i] = math.cos(2 * math.pi * i * 17 / 2000) + 0.3 * math.sin(2 * math.pi * i * 40 / 2000) end
    local smooth = atomo.randn(16, 3, 3, 16):mul_(0.05) -- neighbouring taps alike
    local channel = atomo.randn(16, 1, 1, 16)
    smooth:add_((channel * channel * channel):expand(16, 3, 3, 16))
    for text, g in pairs {entry = sparse, fourier = tone, svd = rank1, rotated = smooth} do
      for _, ratio in ipairs {4, 16, 64} do never_worse({g}, {ratio}) end
      local _, c = variance("auto:ratio=16", {g})
      assert.truthy(c:stats(1).family:find(text, 1, true), text .. " " .. c:stats(1).family)
    end
  end)

  it("gives every tensor of a step its own family", function()
    atomo.manual_seed(4)
    local sparse = atomo.zeros(40, 50)
    for i = 1, 20 do sparse:set(i, (7 * i) % 50 + 1, i - 10.5) end
    local _, c = variance("auto:ratio=32", {sparse, atomo.randn(40, 1):matmul(atomo.randn(1, 50))})
    assert.truthy(c:stats(1).family:find "^entry", c:stats(1).family)
    assert.truthy(c:stats(2).family:find "^svd", c:stats(2).family)
    assert.is_nil(c:stats().family)
  end)

  it("is as good as the best pair of families if a tensor's change of family skips over the budget", function()
    for seed, ratio in pairs {[15] = 16, [30] = 16, [42] = 12, [48] = 16} do
      atomo.manual_seed(seed)
      local m, n = 8 + seed % 9 * 3, 10 + seed % 7 * 5
      local a, b = atomo.randn(m, 1):matmul(atomo.randn(1, n)) + atomo.randn(m, n) * (seed % 5 / 20), atomo.randn(m, n)
      if seed % 3 > 0 then b = b * b * b end
      local bytes, least = 8 * m * n / ratio, math.huge
      for _, bits in ipairs {8, 6, 4, 3, 2} do
        for _, other in ipairs {"entry:step=1", "fourier:rows=1"} do
          local c = atomo.compressor({name = "svd", bits = bits, bytes = bytes, overrides = {{"b", other}}}, {seed = 3})
          c:prepare({{m, n}, {m, n}}, {"a", "b"})
          c:encode_all({a, b}, {step = 0})
          least = math.min(least, c:stats().variance / c:stats().square)
        end
      end
      local mine = variance(("auto:bytes=%.14g"):format(bytes + 2), {a, b})
      assert.is_true(mine <= 1.05 * least, ("%gx: auto %.5g, the best pair %.5g"):format(ratio, mine, least))
    end
  end)

  for name, bounds in pairs {resnet18 = {[16] = 9e-5, [64] = 0.003, [256] = 0.037},
    resnet20 = {[16] = 0.005, [64] = 0.18, [256] = 1.8}} do
    it("reaches the table of variances on the shared gradient of " .. name, function()
      local path = folder(name)
      if not path then return pending "no shared gradients beside the repository" end
      local list = gradients.folder(path)
      for ratio, bound in pairs(bounds) do
        local v = variance(("auto:ratio=%g"):format(ratio), list)
        assert.is_true(v <= bound, ("%s at %gx: %.4g, at most %g"):format(name, ratio, v, bound))
      end
      if name == "resnet20" then
        never_worse(list, {16, 64, 256})
        for i = 1, #list, 7 do never_worse({list[i]}, {64}) end
      end
    end)
  end

  for _, text in ipairs {"auto:ratio=8", "auto:ratio=100,sampling=systematic", "auto:bytes=400,every=3,keep=2",
    "auto:ratio=8,every=5", "auto:ratio=16,every=9,keep=3"} do
    it("passes verify: " .. text, function()
      local report = atomo.verify(text, {shape = {12, 3, 3, 5}, draws = 500})
      assert.is_true(report.pass, tostring(report))
    end)
  end

  it("weighs spectral noise and time with prefer=accuracy, and still states the variance", function()
    atomo.manual_seed(4)
    local g = atomo.randn(40, 1):matmul(atomo.randn(1, 50)) + atomo.randn(40, 50) * 0.01
    local c, measured, stated = atomo.compressor("auto:ratio=64,prefer=accuracy", {seed = 1}), 0, 0
    for step = 1, 1500 do
      measured = measured + (c:decode(c:encode(g, {step = step})) - g):norm_value(2) ^ 2
      stated = stated + c:stats().variance
    end
    assert.equal("svd", c:stats(1).family)
    assert.near(1, measured / stated, 0.1) -- 5.5 standard errors: that of one draw is 0.7 of the variance
    local _, large = variance("auto:ratio=8,prefer=accuracy", {g}) -- where spectral atoms gain 5 % of the energy only
    assert.truthy(not large:stats(1).family:find "^svd", large:stats(1).family)
    local function spectral(prefer) -- how many of made_up (with structure and large entries) get svd
      local a, count = atomo.compressor("auto:ratio=64,prefer=" .. prefer), 0
      a:encode_all(made_up, {step = 0})
      for i = 1, #made_up do count = count + (a:stats(i).family == "svd" and 1 or 0) end
      return count
    end
    assert.is_true(spectral "accuracy" < spectral "variance")
  end)

  it("weighs time against the gradients of all tensors, from the second streamed step on, too", function()
    atomo.manual_seed(4)
    local large = atomo.randn(60, 70)
    local small = (atomo.randn(60, 2):matmul(atomo.randn(2, 70)) + atomo.randn(60, 70) * 0.01):mul_(1e-3)
    local text = "auto:ratio=64,every=1,prefer=accuracy"
    local _, alone = variance(text, {small}) -- the only tensor of its step
    assert.equal("svd", alone:stats(1).family)
    local _, exact = variance(text, {large, small})
    assert.not_equal("svd", exact:stats(2).family) -- a quick family, which sends next to nothing
    local c = atomo.compressor(text)
    c:prepare {{60, 70}, {60, 70}}
    local out = atomo.zeros(c:wire_max(), "u8")
    for step = 0, 2 do
      c:begin_step(step, 0)
      c:push(2, small, out, 0)
      c:push(1, large, out, 0)
      c:end_step()
      if step > 0 then assert.equal(exact:stats(2).family, c:stats(2).family) end
    end
  end)

  it("codes shapes of every kind, and decodes the choices of other ranks", function()
    for _, shape in ipairs {{1}, {7}, {1, 1, 1, 1}, {3, 1}, {1, 13}, {1031}, {5, 3, 3, 2}} do
      local a, b = atomo.compressor "auto:ratio=4", atomo.compressor "auto:ratio=4"
      local g, zero = atomo.randn(shape), atomo.zeros(shape)
      a:encode(zero, {step = 0})
      b:encode(g, {step = 0}) -- b chooses other families than a
      for step = 1, 3 do
        local message = b:encode(g, {step = step})
        assert.equal(0, (a:decode(message) - b:decode(message)):norm_value(2))
        assert.equal(0, a:decode(a:encode(zero, {step = step})):norm_value(2))
      end
    end
  end)

  it("writes the same bytes for the same seed and calls, and after restart", function()
    local g = {made_up[1], made_up[4]}
    local function run(c)
      local text = {}
      for step = 0, 5 do
        for _, m in ipairs(c:encode_all(g, {step = step})) do text[#text + 1] = m:bytes() end
      end
      return table.concat(text)
    end
    local c = atomo.compressor("auto:ratio=32,every=2", {seed = 5})
    local first = run(c)
    assert.equal(first, run(atomo.compressor("auto:ratio=32,every=2", {seed = 5})))
    c:restart()
    assert.is_true(first == run(c), "bytes after restart")
  end)

  it("searches every K steps: a tensor that changes its kind changes its family then", function()
    atomo.manual_seed(4)
    local sparse, rank1 = atomo.zeros(40, 50), atomo.randn(40, 1):matmul(atomo.randn(1, 50))
    for i = 1, 20 do sparse:set(i, (7 * i) % 50 + 1, i - 10.5) end
    local c, seen = atomo.compressor "auto:ratio=16,every=4", {}
    for step = 0, 8 do
      c:encode(step == 0 and sparse or rank1, {step = step})
      seen[step] = c:stats(1).family:match "^%a+"
    end
    for step = 0, 3 do assert.equal("entry", seen[step]) end
    for step = 4, 8 do assert.equal("svd", seen[step]) end
  end)

  it("keeps a streamed run within 2 % of its budget", function()
    for _, ratio in ipairs {16, 64} do
      local list, shapes, c = {}, {}, atomo.compressor(("auto:ratio=%d"):format(ratio))
      local dense, bytes, steps = 0, 0, 150
      for i = 1, 6 do
        list[i], shapes[i] = made_up[i], made_up[i]:shape()
        dense = dense + 4 * made_up[i]:numel()
      end
      c:prepare(shapes)
      local out = require("atomo.tensor").zeros(c:wire_max(), "u8")
      for step = 1, steps do
        c:begin_step(step, 0)
        local n = 0
        for i, g in ipairs(list) do
          g = g * (1 + 0.5 * math.sin(step / 9 + i))
          n = n + c:push(i, g, out, n)
          g:free()
        end
        c:end_step()
        bytes = bytes + n
      end
      assert.near(1, bytes / steps / (dense / ratio), 0.02)
    end
  end)

  it("allocates nothing after the second encode, searches included", function()
    local c, list = atomo.compressor "auto:ratio=16,every=2", {made_up[1], made_up[7]}
    local out = require("atomo.tensor").zeros(2 ^ 19, "u8")
    c:prepare {list[1]:shape(), list[2]:shape()}
    for step = 0, 1 do c:encode_step(list, {step = step, out = out}) end
    local before = atomo.mem().system_allocs
    for step = 2, 9 do c:encode_step(list, {step = step, out = out}) end
    assert.equal(before, atomo.mem().system_allocs)
  end)

  it("refuses a budget in atoms, and other options", function()
    for text, part in pairs {["auto:atoms=3"] = "atoms of different families",
      ["auto:ratio=4,bits=8"] = "unknown option 'bits'", ["auto:ratio=4,every=-1"] = "every is '-1'"} do
      local ok, message = pcall(atomo.compressor, text)
      assert.is_false(ok)
      assert.truthy(message:find(part, 1, true), message)
    end
    local ok, message = pcall(function() atomo.compressor("auto"):set_budget {atoms = 3} end)
    assert.is_false(ok)
    assert.truthy(message:find("give ratio or bytes", 1, true), message)
  end)
end)
