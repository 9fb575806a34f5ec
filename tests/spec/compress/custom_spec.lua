-- Compressors written in Lua: the three of scripts/atoms pass atomo.verify (false-alarm rate 1e-6 a statistical row,
-- fixed seeds), and basis and decomposition do in the training loop what a built-in one does.
-- test: slow
local atomo = require "atomo"
local f = require "atomo.ffi"
local root = require "support.root"
local fails = require("support.codec").fails

for _, name in ipairs {"haar", "block_fourier", "head_tail"} do
  dofile(root .. "scripts/atoms/" .. name .. ".lua")
end

local register_svd = require "support.svd_atoms"
register_svd "svd_lua"

describe("verify passes", function()
  for _, item in ipairs {{"haar_lua:ratio=16"}, {"haar_lua:atoms=9", {101}}, {"block_fourier:ratio=16"},
    {"block_fourier:ratio=4,step=1", {6, 2, 4, 5}}, {"head_tail:ratio=8"}, {"head_tail:ratio=6,rank=3,bits=4"},
    {"svd_lua:ratio=8"}, {"svd_lua:ratio=4,bits=2"}, {"svd_lua:atoms=2,bits=32", {12, 7}},
    {"svd_lua:ratio=8,sampling=systematic"}, {"haar_lua:ratio=8,sampling=systematic"}, {"haar_lua:ratio=8,ef=true"},
    {"head_tail:ratio=8,ef=true"}} do
    it(item[1], function()
      local report = atomo.verify(item[1], {shape = item[2] or {12, 3, 3, 5}, draws = 500})
      assert.is_true(report.pass, tostring(report))
    end)
  end
end)

describe("a compressor in Lua", function()
  local grads, shapes = {}, {{16, 3, 3, 8}, {10, 40}, {33, 5}}
  setup(function()
    atomo.manual_seed(5)
    for i, shape in ipairs(shapes) do grads[i] = atomo.randn(shape) end
  end)

  it("has the variance of the built-in one", function()
    local a, b = atomo.compressor "svd:ratio=6", atomo.compressor "svd_lua:ratio=6"
    for _, c in ipairs {a, b} do c:encode(grads[1], {step = 1}) end
    assert.is_true(math.abs(a:stats().variance / b:stats().variance - 1) < 0.02)
  end)

  for _, text in ipairs {"haar_lua:ratio=6", "svd_lua:ratio=6", "head_tail:ratio=6"} do
    it(text .. " gives the same in one step, streamed over ranks, and message by message", function()
      local c, d = atomo.compressor(text), atomo.compressor(text)
      c:prepare(shapes, {"a", "b", "c"})
      local out, counts = atomo.zeros(2 * c:wire_max(), "u8"), f.ffi.new "double[2]"
      local want = {}
      for r = 0, 1 do
        local at = counts[0]
        counts[r] = c:encode_step(grads, {step = 4, rank = r, out = out:narrow(1, at + 1, c:wire_max())})
        for i, m in ipairs(d:encode_all(grads, {step = 4, rank = r})) do
          want[i] = want[i] or atomo.zeros(shapes[i])
          d:decode_add(m, 0.5, want[i])
        end
      end
      local function zeros()
        local list = {}
        for i, shape in ipairs(shapes) do list[i] = atomo.zeros(shape) end
        return list
      end
      local one = zeros()
      c:decode_step(out, 0, counts[0], 0.5, one)
      c:decode_step(out, counts[0], counts[1], 0.5, one)
      for i in ipairs(shapes) do
        assert.is_true((one[i] - want[i]):norm_value(math.huge) < 1e-5)
      end
      fails("step", c.decode_step, c, out, 0, counts[0], 1, one, 5)

      local all, sum, sources = zeros(), zeros(), {}
      for r = 0, 1 do
        local e, bytes, at = atomo.compressor(text), atomo.zeros(c:wire_max(), "u8"), 0
        e:prepare(shapes, {"a", "b", "c"})
        e:begin_step(4, r)
        for i, g in ipairs(grads) do
          local n = e:push(i, g, bytes, at)
          d:decode_add(bytes:narrow(1, at + 1, n):bytes(), 0.5, sum[i])
          at = at + n
        end
        e:end_step()
        sources[r + 1] = {data = bytes:data(), left = at, rank = r, tensor = bytes}
      end
      for i in ipairs(shapes) do
        c:decode_tensor(i, 4, sources, 0.5, all[i])
        assert.is_true((all[i] - sum[i]):norm_value(math.huge) < 1e-5)
      end
      assert.same({0, 0}, {sources[1].left, sources[2].left})
    end)

    it(text .. " keeps its budget, streamed too", function()
      local c, dense, sum = atomo.compressor(text), 0, 0
      for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
      c:prepare(shapes)
      local out, stream = atomo.zeros(c:wire_max(), "u8"), 0
      for step = 1, 60 do sum = sum + c:encode_step(grads, {step = step, out = out}) / 60 end
      assert.is_true(math.abs(sum / (dense / 6) - 1) < 0.05, sum / (dense / 6))
      for step = 1, 60 do
        c:begin_step(step, 0)
        local at = 0
        for i, g in ipairs(grads) do at = at + c:push(i, g, out, at) end
        c:end_step()
        if step > 20 then stream = stream + at / 40 end
      end
      assert.is_true(math.abs(stream / (dense / 6) - 1) < 0.05, stream / (dense / 6))
    end)

    it(text .. " sends in dense form what would take more bytes, in one step and streamed", function()
      local c = atomo.compressor((text:gsub("ratio=6", "ratio=0.2")))
      c:prepare(shapes)
      local out = atomo.zeros(c:wire_max(), "u8")
      for step = 1, 2 do
        local bytes = 0
        if step == 1 then
          bytes = c:encode_step(grads, {step = step, out = out})
        else
          c:begin_step(step, 0)
          for i, g in ipairs(grads) do bytes = bytes + c:push(i, g, out, bytes) end
          c:end_step()
        end
        local accs, numel = {}, 0
        for i, shape in ipairs(shapes) do
          accs[i], numel = atomo.zeros(shape), numel + grads[i]:numel()
        end
        assert.is_true(bytes <= 4.2 * numel, bytes)
        assert.equal(bytes, c:stats().nbytes)
        if step == 1 then
          c:decode_step(out, 0, bytes, 1, accs, step)
        else
          local source = {data = f.ffi.cast("const uint8_t *", out.h.data), left = bytes}
          for i, acc in ipairs(accs) do c:decode_tensor(i, step, {source}, 1, acc) end
        end
        for i, g in ipairs(grads) do assert.is_true((accs[i] - g):norm_value(2) < 0.02 * g:norm_value(2)) end
      end
    end)

    it(text .. " counts in a step's variance all that error feedback holds back, streamed too", function()
      local c = atomo.compressor(text .. ",ef=true")
      c:prepare(shapes)
      local out = atomo.zeros(2 * c:wire_max(), "u8")
      local function held()
        local sum = 0
        for i in ipairs(shapes) do sum = sum + c:residual(i):norm_value(2) ^ 2 end
        return sum
      end
      c:encode_step(grads, {step = 1, out = out})
      assert.is_true(math.abs(c:stats().variance / held() - 1) < 1e-5)
      local at = 0
      c:begin_step(2, 0)
      for i, g in ipairs(grads) do at = at + c:push(i, g, out, at) end
      c:end_step()
      assert.is_true(math.abs(c:stats().variance / held() - 1) < 1e-5)
    end)

    it(text .. " allocates nothing once warm", function()
      local c = atomo.compressor(text)
      c:prepare(shapes)
      local out, accs = atomo.zeros(c:wire_max(), "u8"), {}
      for i, shape in ipairs(shapes) do accs[i] = atomo.zeros(shape) end
      local before
      for step = 1, 8 do
        if step == 5 then before = atomo.mem().system_allocs end
        local n = c:encode_step(grads, {step = step, out = out})
        c:decode_step(out, 0, n, 1, accs)
      end
      assert.equal(before, atomo.mem().system_allocs)
    end)
  end

  it("sends its head in the bits that it is told, and all of it", function()
    local c = atomo.compressor "head_tail:ratio=8,rank=2,bits=8"
    c:encode(grads[1])
    local head = c.adapters[1].codec:stats()
    assert.equal(2, head.atoms_sent)
    assert.is_true(head.nbytes >= 2 * (4 + 16 + 72) and head.nbytes < 2 * (4 + 16 + 72) + 24, head.nbytes)
  end)

  it("may change the gradient that it gets: the caller's stays, and message and residual add up to it", function()
    atomo.basis("flips_in_place", {analyze = function(g) return g:mul_(-1) end,
      synthesize = function(c) return c:mul_(-1) end})
    atomo.decomposition("rows_in_place", {
      decompose = function(g)
        g:mul_(2)
        return atomo.ones(g:size(1)), {atomo.eye(g:size(1)), g}
      end,
      reconstruct = function(lambda, factors)
        return factors[1]:t():matmul(factors[2]:mul_(lambda:unsqueeze(2) * 0.5))
      end,
    })
    for _, spec in ipairs {"flips_in_place:atoms=20", "rows_in_place:atoms=5", "rows_in_place:atoms=5,bits=32"} do
      for _, ef in ipairs {"", ",ef=true"} do
        local c, g = atomo.compressor(spec .. ef), atomo.randn(10, 4)
        local before, sum = g:clone(), atomo.zeros(10, 4)
        for step = 1, 3 do sum:add_(c:decode(c:encode(g, {step = step}))) end
        assert.same(before:totable(), g:totable())
        if ef ~= "" then assert.is_true((sum + c:residual(1) - g * 3):abs():max():item() < 1e-5, spec) end
      end
    end
  end)

  it("is identified by its name: other compressors refuse its messages", function()
    local g = grads[2]
    local m = atomo.compressor("haar_lua:ratio=4"):encode(g)
    local other = atomo.compressor "entry:ratio=4"
    other:encode(g)
    fails("codec", other.decode, other, m)
    local two = atomo.compressor "head_tail:ratio=4,rank=2"
    two:encode(g)
    fails("decode", two.decode, two, atomo.compressor("head_tail:ratio=4,rank=1"):encode(g))
    atomo.basis("scaled", {options = {by = 1}, analyze = function(x, o) return x * o.by end,
      synthesize = function(x, _, o) return x / o.by end})
    m = atomo.compressor("scaled:ratio=4,by=2"):encode(g)
    other = atomo.compressor "scaled:ratio=4,by=4" -- which would make half the gradient of it
    other:encode(g)
    fails("codec", other.decode, other, m)
    local c = atomo.compressor "haar_lua:ratio=0.1"
    local bad = g:clone()
    bad:set(1, 2, 0 / 0)
    fails("haar_lua: gradient of tensor 1 [10,40]: 1 entries are NaN or Inf, the first is number 2", c.encode, c, bad)
  end)
end)

describe("a declaration", function()
  local function same(g) return g end
  it("with a mistake is refused by name", function()
    fails("basis: b: expected a table, got a string", atomo.basis, "b", "analyze")
    fails("basis: b: synthesize is missing", atomo.basis, "b", {analyze = same})
    fails("did you mean 'analyze'", atomo.basis, "b", {analyze = same, synthesize = same, analyse = same})
    fails("name is 3", atomo.basis, 3, {})
    fails("built-in", atomo.basis, "svd", {analyze = same, synthesize = same})
    fails("bits is a string", register_svd, "b", {bits = "8"})
    fails("ratio is an option already", atomo.basis, "b", {analyze = same, synthesize = same, options = {ratio = 1}})
    fails("did you mean 'rank'", atomo.compressor, "head_tail:rnak=2")
  end)

  it("whose functions give invalid results is refused when it is used", function()
    local g = atomo.randn(4, 6)
    local function use(what, t)
      atomo.basis("wrong", t)
      local c = atomo.compressor "wrong:ratio=0.1"
      fails(what, function() return c:decode(c:encode(g)) end)
    end
    use("analyze's result is [3], 3 elements; expected 24", {analyze = function() return atomo.ones(3) end,
      synthesize = same})
    use("analyze's result is a number", {analyze = function() return 3 end, synthesize = same})
    use("2 NaN or Inf", {analyze = function(x)
      local y = x:clone()
      y:set(1, 1, 0 / 0)
      y:set(1, 2, 0 / 0)
      return y
    end, synthesize = same})
    use("synthesize's result is [2]", {analyze = same, synthesize = function() return atomo.ones(2) end})
    local function use_atoms(what, decompose)
      register_svd("wrong", {decompose = decompose})
      local c = atomo.compressor "wrong:ratio=2"
      fails(what, c.encode, c, g)
    end
    use_atoms("factors are a nil", function() return atomo.ones(3) end)
    use_atoms("factor 1 is [2,4], expected [3, width]", function() return atomo.ones(3), {atomo.ones(2, 4)} end)
    use_atoms("4 factors per atom", function()
      local one = atomo.ones(3, 1)
      return atomo.ones(3), {one, one, one, one}
    end)
  end)
end)
