-- The compressors beside ATOMO, as messages: determinism, sizes, refusal of what was not written, hard inputs, the
-- training loop without allocation.
local atomo = require "atomo"
local f = require "atomo.ffi"
local codec = require "support.codec"

local all = {"qsgd", "qsgd:bits=2,coding=elias", "qsgd:bits=7,bucket=5,norm=max",
  "qsgd:bits=5,bucket=7,coding=dither", "terngrad", "terngrad:clip=2.5",
  "terngrad:coding=elias", "natural", "eden", "randk:ratio=4", "randk:k=3,ef=true", "topk:ratio=4", "topk:k=3,ef=true",
  "signsgd", "signsgd:ef=true", "signsgd:vote=true", "fp16", "fp16:round=stochastic", "bf16", "bf16:round=stochastic",
  "powersgd:rank=2", "powersgd:rank=3,warm=false,ef=true", "atomo-published:atoms=1", "atomo-published:ef=true",
  "qsgd:ef=true", "entry:ratio=4,ef=true", "svd:ratio=4,ef=true", "none:ef=true"}

for _, text in ipairs(all) do
  describe(text, function()
    it("gives the same bytes to the same calls, within the planned size, and decodes them alike", function()
      local g = atomo.randn(16, 3, 3, 8)
      local function run()
        local c = atomo.compressor(text, {seed = 3})
        local parts = {}
        for step = 1, 3 do
          local m = c:encode(g, {step = step, tensor = 2, rank = 5})
          assert.is_true(m.nbytes <= f.C.atomo_codec_wire_max(c.h, 2))
          assert.equal(m.nbytes, c:stats().nbytes)
          parts[step] = m:bytes()
        end
        return parts, c
      end
      local first, c = run()
      assert.same(first, (run()))
      local other = atomo.compressor(text, {seed = 3})
      other:encode(g, {step = 1, tensor = 2})
      for step = 1, 3 do
        assert.equal(0, (c:decode(first[step]) - other:decode(first[step])):norm_value(math.huge))
      end
    end)

    it("decode_add is linear in scale and adds", function()
      codec.linear(atomo.compressor(text), atomo.randn(16, 3, 3, 8))
    end)

    it("refuses every truncation, extension and flipped bit", function()
      codec.refuses_damage(atomo.compressor(text), atomo.randn(5, 1, 1, 4))
    end)

    it("takes zero, constant, huge, tiny, denormal and mixed gradients, and refuses NaN and Inf", function()
      local function constant(v) return atomo.full({6, 2, 2, 5}, v) end
      local mixed = atomo.randn(6, 2, 2, 5)
      local spectral = text:match "^svd" or text:match "^atomo%-published"
      -- Spectral atoms leave room for 1/p and rounding (2^100), others for what they multiply by.
      local most = (spectral or text:match "^powersgd") and 1.2e30 or text:match "^randk" and 3e37
        or text == "natural" and 2 ^ 127 or text:match "dither" and 2e38 or 3e38
      mixed:set(1, 1, 1, 1, most)
      mixed:set(2, 1, 1, 1, 1e-44)
      for name, g in pairs {zero = constant(0), constant = constant(-3), huge = constant(most), tiny = constant(1e-38),
        denormal = constant(1e-41), mixed = mixed, least = constant(1e-45)} do
        local c = atomo.compressor(text)
        c:prepare({{6, 2, 2, 5}}, {"conv1.weight"})
        local ghat = c:decode(c:encode(g, {step = 1}))
        local s = c:stats()
        assert.equal(0, ghat:count_nonfinite(), name)
        assert.is_true(s.variance >= 0 and s.variance < math.huge, name)
        if name == "zero" then assert.equal(0, ghat:norm_value(2)) end
        for _, bad in ipairs {math.huge, -math.huge, 0 / 0} do
          local h = constant(1)
          h:set(2, 1, 1, 1, bad)
          codec.fails("conv1.weight [6,2,2,5]: 1 entries are NaN or Inf, the first is number 21", c.encode, c, h,
            {step = 2})
        end
        c:encode(constant(0), {step = 3}) -- it works again after the error
      end
    end)

    it("takes any shape", function()
      for _, shape in ipairs {{1}, {7}, {5, 3}, {3, 5}, {1, 9}, {9, 1}, {4, 3, 3, 5}, {7, 1, 1, 3}, {97, 11}, {511},
        {513}, {1, 1, 1, 1}} do
        local c = atomo.compressor(text)
        local g = atomo.randn(unpack(shape))
        for step = 1, 2 do assert.equal(0, c:decode(c:encode(g, {step = step})):count_nonfinite()) end
        assert.equal(0, c:decode(c:encode(atomo.zeros(unpack(shape)), {tensor = 2})):norm_value(math.huge))
      end
    end)

    it("encodes and decodes a whole step, streamed as well, and allocates nothing", function()
      local shapes = {{16, 3, 3, 3}, {32, 3, 3, 16}, {10, 64}}
      local list, accs = {}, {}
      for i, s in ipairs(shapes) do list[i], accs[i] = atomo.randn(unpack(s)), atomo.zeros(s) end
      local c, streamed = atomo.compressor(text), atomo.compressor(text)
      c:prepare(shapes)
      streamed:prepare(shapes)
      local out = atomo.zeros(c:wire_max(), "u8")
      local opts, calls = {rank = 1, out = out}, nil
      for step = 1, 6 do
        opts.step = step
        local n = c:encode_step(list, opts)
        c:decode_step(out, 0, n, 1, accs)
        c:finish_step(accs, 1)
        if step == 2 then calls = atomo.mem().system_allocs end
      end
      assert.equal(calls, atomo.mem().system_allocs)
      for step = 1, 3 do
        local at = 0
        streamed:begin_step(step, 1)
        for i = 1, #list do at = at + streamed:push(i, list[i], out, at) end
        streamed:end_step()
        streamed:decode_step(out, 0, at, 1, accs, step)
      end
    end)
  end)
end
