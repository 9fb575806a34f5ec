-- Bad specs and bad gradients: each with an error that names the thing, or a right answer.
local atomo = require "atomo"
local fails = require("support.codec").fails

describe("compressor specs", function()
  it("are read from text and table, and print canonically", function()
    assert.equal("svd:ratio=16,bits=4,fold=paper", tostring(atomo.compressor " svd: bits=4, fold=paper ,ratio=16"))
    assert.equal("svd:ratio=16", tostring(atomo.compressor {name = "svd", ratio = 16, bits = 8}))
    assert.equal("none", tostring(atomo.compressor "none"))
    assert.equal("entry", atomo.compressor("entry:atoms=3").name)
    local names = {}
    for _, c in ipairs(atomo.compressors()) do
      names[c.name] = true
      assert.truthy(tostring(c):find(c.name, 1, true))
      assert.is_true(#c.source > 0)
      for _, o in ipairs(c.options) do assert.is_true(#o.help > 0) end
    end
    assert.is_true(names.svd and names.entry and names.none)
    assert.is_nil(names.atomo)
  end)

  it("have these options, defaults and ranges", function()
    local budget = "atoms=nan [1e-06, 1e+15]; ratio=nan [0.001, 1000000000]; bytes=nan [1, 1e+15]; sampling=0 [0, 2]"
    local step, few = "step=0.25 [0, 4]", "ratio=nan [1, 1000000000]; k=nan [1, 1000000000]"
    local expected = {
      ["atomo-published"] = {"atoms=3 [0.1, 1000000]"},
      auto = {budget, "every=0 [0, 1000000000]; keep=1 [1, 1000000]; prefer=0 [0, 1]"},
      bf16 = {"round=0 [0, 1]"}, fp16 = {"round=0 [0, 1]"}, natural = {}, none = {}, eden = {"bits=2 [1, 6]"},
        signsgd = {"vote=0 [0, 1]"},
      dct = {budget, step, "chunk=0 [0, 4096]"}, entry = {budget, step}, haar = {budget, step},
      hadamard = {budget, step}, taps = {budget, step},
      fourier = {budget, step, "dims=1 [1, 2]; rows=0 [0, 1000000000]"},
      powersgd = {"rank=2 [1, 64]; warm=1 [0, 1]"},
      qsgd = {"bits=4 [2, 8]; bucket=512 [0, 1000000000]; norm=0 [0, 1]; coding=0 [0, 2]"},
      randk = {few}, topk = {few}, rotated = {budget, "base=0 [0, 1]; classes=16 [1, 64]"}, rows = {budget,
        "bits=8 [2, 32]"},
      svd = {budget, "bits=8 [0, 32]; fold=0 [0, 1]; every=1 [1, 1000000]"},
      terngrad = {"clip=0 [0, 1000]; coding=0 [0, 1]"},
    }
    local found, cancels = {}, {auto = true, entry = true, taps = true, fourier = true, dct = true, haar = true,
      hadamard = true, qsgd = true, terngrad = true, natural = true}
    for _, c in ipairs(atomo.compressors()) do
      local list = {}
      for _, o in ipairs(c.make and {} or c.options) do -- those with `make` are of other specs, in Lua
        list[#list + 1] = ("%s=%.14g [%.14g, %.14g]"):format(o.key, o.standard, o.min, o.max)
      end
      if not c.make then found[c.name] = table.concat(list, "; ") end
    end
    for name, options in pairs(expected) do
      options[#options + 1] = "ef=0 [0, 1]"
      if cancels[name] then options[#options + 1] = "together=1 [0, 1]" end
      assert.equal(table.concat(options, "; "), found[name], name)
      found[name] = nil
    end
    assert.is_nil(next(found), "a compressor whose options are not in this table")
  end)

  it("with mistakes are refused with a suggestion", function()
    local function bad(text, ...) fails(text, atomo.compressor, ...) end
    bad("did you mean 'bits'", "svd:bist=3")
    bad("svd: unknown option 'rnak'", "svd:rnak=3")
    bad("options are atoms, ratio, bytes, sampling, bits, fold", "svd:rnak=3")
    bad("did you mean 'entry'", "entri:ratio=3")
    bad("; compressors are ", "zzzzzzzzzz")
    bad("ratio is '0'", "svd:ratio=0")
    bad("ratio is '-4'", "svd:ratio=-4")
    bad("ratio is 'nan'", "svd:ratio=nan")
    bad("ratio is 'x'", "svd:ratio=x")
    bad("ratio is 'inf'", "svd:ratio=inf")
    bad("ratio is nan", {name = "svd", ratio = math.abs(0 / 0)})
    bad("bits is '7'", "svd:bits=7")
    bad("fold is 'papre', expected out or paper, did you mean 'paper'", "svd:fold=papre")
    bad("one budget", "svd:ratio=3,bytes=100")
    bad("twice", "svd:ratio=3,ratio=4")
    bad("cannot read", "svd:=3")
    bad("options are ef", "none:ratio=3")
    bad("spec is missing")
    bad("spec is a number", 3)
    bad("expected name", "")
    bad("seed", "svd", {seed = -1})
    bad("unknown option 'sede'", "svd", {sede = 1})
    local c = atomo.compressor "svd"
    fails("ratio is -1", c.set_budget, c, {ratio = -1})
    fails("did you mean 'ratio'", c.set_budget, c, {raito = 3})
    fails("expected one above 0", c.set_budget, c, {ratio = 3, atoms = 2})
    fails("takes no budget", atomo.compressor("none").set_budget, atomo.compressor("none"), {ratio = 3})
  end)

  it("accept a user-defined fold", function()
    local seen
    local c = atomo.compressor {name = "svd", bits = 32, ratio = 0.1, fold = function(shape) seen = shape return 6 end}
    local g = atomo.randn(4, 3, 5)
    assert.is_true((c:decode(c:encode(g)) - g):norm_value(math.huge) < 1e-5)
    assert.same({4, 3, 5}, seen)
    c = atomo.compressor {name = "svd", fold = function() return 7 end}
    fails("7 rows do not divide", c.encode, c, g)
    c = atomo.compressor {name = "svd", fold = function() end}
    fails("fold returned nil", c.encode, c, g)
  end)
end)

local full = {"none", "entry:ratio=0.1", "entry:atoms=1e9,step=0", "svd:ratio=0.1,bits=32",
  "svd:atoms=1e9,bits=32,fold=paper"}

describe("gradients", function()
  it("come back to rounding under a full budget", function()
    for _, text in ipairs(full) do
      for _, shape in ipairs {{1}, {7}, {5, 3}, {3, 5}, {1, 9}, {9, 1}, {4, 3, 3, 5}, {7, 1, 1, 3}, {3, 5, 5, 1},
        {97, 11}} do
        local g = atomo.randn(unpack(shape))
        local c = atomo.compressor(text)
        local error = (c:decode(c:encode(g)) - g):norm_value(math.huge)
        assert.is_true(error < 2e-5, ("%s on [%s]: %g"):format(text, table.concat(shape, ","), error))
        assert.is_true(c:stats().variance <= 1e-6 * c:stats().square)
      end
    end
  end)

  it("that are zero, constant, of rank one, huge, tiny or denormal are encoded right", function()
    local function constant(v) return atomo.full({6, 2, 2, 5}, v) end
    local rank_one = atomo.randn(6, 1):matmul(atomo.randn(1, 20)):view(6, 2, 2, 5):contiguous()
    local mixed = atomo.randn(6, 2, 2, 5)
    mixed:set(2, 1, 1, 1, 1e-44)
    for _, text in ipairs {"entry:ratio=0.1", "entry:ratio=4", "entry:ratio=40", "svd:ratio=0.1,bits=32", "svd:ratio=2",
      "svd:ratio=30", "svd:ratio=4,bits=2,fold=paper", "svd:ratio=4,bits=16", "none"} do
      local c = atomo.compressor(text)
      local most = text:match "^svd" and 1.2e30 or 3e38 -- spectral atoms leave room for 1/p and rounding: 2^100
      mixed:set(1, 1, 1, 1, most)
      for name, g in pairs {zero = constant(0), constant = constant(3), rank_one = rank_one, huge = constant(most),
        tiny = constant(1e-38), denormal = constant(1e-41), mixed = mixed} do
        local ghat = c:decode(c:encode(g, {step = 1}))
        local s = c:stats()
        assert.equal(0, ghat:count_nonfinite(), text .. " " .. name)
        assert.is_true(s.variance >= 0 and s.variance < math.huge, text .. " " .. name)
        if name == "zero" then assert.equal(0, ghat:norm_value(2)) end
        if text:match "ratio=0.1" or text == "none" then
          local biggest = g:norm_value(math.huge)
          assert.is_true((ghat - g):norm_value(math.huge) <= 2e-6 * biggest + 1e-43, text .. " " .. name)
        end
      end
    end
  end)

  it("near the largest float decode to finite numbers", function()
    atomo.manual_seed(5)
    local g = (atomo.rand(40, 30) * 2.4 + 1) * 1e38
    for _, text in ipairs {"entry:atoms=900", "entry:atoms=900,step=1", "entry:atoms=600,step=4", "entry:ratio=20"} do
      local c = atomo.compressor(text)
      for step = 1, 10 do
        local ghat = c:decode(c:encode(g, {step = step}))
        assert.equal(0, ghat:count_nonfinite(), text)
      end
    end
  end)

  it("that are zero are zero for every compressor, and so are the stated sums", function()
    for _, e in ipairs(atomo.compressors()) do
      local c = atomo.compressor(e.name)
      for _, shape in ipairs {{6, 2, 2, 5}, {3}} do
        local ghat = c:decode(c:encode(atomo.zeros(shape), {step = 1}))
        assert.equal(0, ghat:norm_value(math.huge), e.name)
        assert.equal(0, c:stats().variance, e.name)
        assert.equal(0, c:stats().square, e.name)
      end
    end
  end)

  it("with NaN or Inf are refused with tensor, count and first position", function()
    for _, text in ipairs {"none", "entry", "svd"} do
      local c = atomo.compressor(text)
      c:prepare({{3, 4}}, {"conv1.weight"})
      local g = atomo.randn(3, 4)
      g:set(2, 3, math.huge)
      g:set(3, 1, 0 / 0)
      fails("conv1.weight [3,4]: 2 entries are NaN or Inf, the first is number 7", c.encode, c, g)
      g = atomo.randn(3, 4)
      c:encode(g) -- it works again after the error
    end
  end)

  it("that are views are taken as they look; wrong kinds are refused", function()
    for _, text in ipairs {"none", "entry:ratio=0.1", "svd:ratio=0.1,bits=32"} do
      local c = atomo.compressor(text)
      local g = atomo.randn(6, 5):transpose(1, 2)
      assert.is_true((c:decode(c:encode(g)) - g):norm_value(math.huge) < 1e-5)
      fails("expected a tensor", c.encode, c, 3)
      fails("missing", c.encode, c)
      fails("expected f32", c.encode, c, atomo.zeros({2}, "i32"))
      fails("empty", c.encode, c, atomo.zeros(0, 3))
      fails("step is -1", c.encode, c, g, {step = -1})
      fails("unknown option 'stpe'", c.encode, c, g, {stpe = 1})
      fails("tensor is 0", c.encode, c, g, {tensor = 0})
      fails("list of tensors", c.encode_all, c, g)
    end
  end)

  it("of any magnitude take the same bytes and have the same relative variance, with every budget", function()
    atomo.manual_seed(1)
    local g = atomo.randn(16, 3, 3, 32)
    local square = g:square():sum():item()
    for _, text in ipairs {"rotated:ratio=16", "rotated:ratio=200,classes=1,base=none", "auto:ratio=16",
      "svd:ratio=8,bits=0", "svd:ratio=8", "entry:ratio=16", "taps:ratio=16", "fourier:ratio=16", "dct:ratio=16",
      "haar:ratio=16", "hadamard:ratio=16", "rows:ratio=16"} do
      local bytes, variance
      for _, exponent in ipairs {0, 90, -60, -100, -113, -120} do
        local unit = 2 ^ exponent
        local c = atomo.compressor(text)
        local m = c:encode(g * unit, {step = 1})
        local relative = c:stats().variance / unit / unit / square
        bytes, variance = bytes or m.nbytes, variance or relative
        local where = ("%s at 2^%d: %d bytes, variance %g"):format(text, exponent, m.nbytes, relative)
        assert.is_true(math.abs(m.nbytes / bytes - 1) < 0.1, where)
        assert.is_true(math.abs(relative / variance - 1) < 0.1, where)
      end
    end
  end)

  it("of subnormal numbers stay within the budget", function()
    for _, text in ipairs {"rotated:ratio=16", "auto:ratio=16"} do
      local c = atomo.compressor(text)
      local g = atomo.randn(16, 3, 3, 32) * 1e-36
      assert.is_true(c:encode(g * 1e-4, {step = 1}).nbytes <= 1.1 * 4 * g:numel() / 16, text)
    end
  end)

  it("near FLT_MAX are refused by name, or decoded to finite numbers, by every compressor", function()
    local texts = {"qsgd:bits=2", "qsgd:bits=3,norm=max", "qsgd:bits=6", "qsgd:bits=8", "qsgd:bits=7,coding=elias",
      "qsgd:bits=8,norm=max,bucket=0", "qsgd:bits=8,coding=dither", "terngrad:coding=elias", "eden:bits=1",
      "randk:k=4096", "bf16:round=stochastic"}
    for _, entry in ipairs(atomo.compressors()) do
      texts[#texts + 1] = entry.name == "atomo-published" and "atomo-published:atoms=2" or entry.name
    end
    local most = 3.4028234663852886e38
    local signs = atomo.randn(64, 64):gt(0) * 2 - 1
    local one = atomo.zeros(64, 64)
    one:set(3, 5, -most)
    for _, text in ipairs(texts) do
      for _, g in ipairs {signs * 3e38, signs * most, one, one + 1, signs * 1.6e38} do
        local c = atomo.compressor(text)
        for step = 1, 4 do
          local ok, m = pcall(c.encode, c, g, {step = step})
          if ok then
            assert.equal(0, c:decode(m):count_nonfinite(), text)
          else
            assert.matches("ENONFINITE", m)
            assert.matches("gradient of tensor 1 %[64,64%]", m)
          end
        end
      end
    end
  end)

  it("of 2^127 and above, where no power of two is left: natural refuses them, but with error feedback", function()
    local c = atomo.compressor "natural"
    assert.equal(2 ^ 127, c:decode(c:encode(atomo.full({5}, 2 ^ 127))):get(1))
    fails("natural: gradient of tensor 1 [5]: entries up to 2e+38, rounded up to a power of two, leave the range",
      c.encode, c, atomo.full({5}, 2e38))
    local fed = atomo.compressor "natural:ef=true"
    assert.equal(2 ^ 127, fed:decode(fed:encode(atomo.full({5}, 2e38))):get(1))
    assert.near(1, fed:residual(1):get(1) / (2e38 - 2 ^ 127), 1e-6)
  end)

  it("with budgets below one atom stay unbiased and short, below the frames are refused", function()
    for _, text in ipairs {"entry:bytes=1", "svd:bytes=1"} do
      fails("bytes=1: 1 empty messages", atomo.compressor(text).encode, atomo.compressor(text),
        atomo.randn(20, 30))
    end
    for _, text in ipairs {"entry:ratio=1e6", "svd:ratio=1e6", "svd:atoms=1e-3"} do
      local c = atomo.compressor(text)
      local g = atomo.randn(20, 30)
      for step = 1, 50 do
        local m = c:encode(g, {step = step})
        assert.equal(0, c:decode(m):count_nonfinite())
      end
      assert.is_true(c:stats().atoms_expected > 0)
    end
  end)
end)
