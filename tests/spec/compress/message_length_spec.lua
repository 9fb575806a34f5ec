-- No message is longer than a dense one, 4 n bytes and a header, whatever the compressor, the budget, the shape and the
-- gradient; what is unbiased stays so; budgets that cannot be met are refused. The gradients are extreme in every way.
-- test: slow
local atomo = require "atomo"
local root = require "support.root"
local codec = require "support.codec"
local f = require "atomo.ffi"

dofile(root .. "scripts/atoms/head_tail.lua")
dofile(root .. "scripts/atoms/haar.lua")
local function eye(n)
  local m = atomo.zeros(n, n)
  for i = 1, n do m:set(i, i, 1) end
  return m
end

--- Entries as atoms, with a factor each: far longer than the gradient itself.
atomo.decomposition("length_entries", {
  decompose = function(g)
    local n = g:numel()
    return g:contiguous():view(n), {eye(n), atomo.ones(n, 3)}
  end,
  reconstruct = function(lambda, factors, shape)
    return (factors[1]:t() * (lambda * factors[2]:select(2, 1))):sum(2):view(shape)
  end,
})

local HEADER = 17 -- 13 to 17 bytes (runtime/coding/frame.c)
local sizes = {1.4e-45, 1e-40, 1e-30, 1e-8, 1, 2.1, 4.5e8, 1e15, 1e25, 1e30}
local shapes = {{1}, {2}, {5}, {1, 1}, {1, 7}, {7, 1}, {17}, {9, 4}, {3, 2, 2, 3}, {100}, {24, 3, 3, 2}}
local budgets = {"", "ratio=0.01", "ratio=1", "ratio=3", "ratio=100000", "atoms=0.3", "atoms=2.5", "atoms=999.5"}
local more = {"", "ef=true", "sampling=systematic", "bits=2", "bits=32", "step=0", "every=4"}

local state = 5
local function random()
  state = (state * 16807) % 2147483647
  return state / 2147483647
end
local function one_of(list) return list[1 + math.floor(random() * #list)] end

local function extreme(shape)
  local g, scales = atomo.zeros(shape), {one_of(sizes), one_of(sizes), one_of(sizes)}
  local p, equal, zeros = g:data(), random() < 0.4, random() < 0.2 and 0.7 or 0
  for i = 0, g:numel() - 1 do
    local v = one_of(scales) * (equal and 1 or random())
    p[i] = random() < zeros and 0 or random() < 0.5 and -v or v
  end
  return g
end

describe("messages of extreme gradients are no longer than dense ones, decode to finite numbers:", function()
  local names = {"head_tail", "haar_lua", "length_entries"}
  for _, entry in ipairs(atomo.compressors()) do
    if not entry.make then names[#names + 1] = entry.name end
  end
  for _, name in ipairs(names) do
    it(name, function()
      for _ = 1, 120 do
        local budget, option = one_of(budgets), one_of(more)
        local text = name .. ":" .. budget .. (budget ~= "" and option ~= "" and "," or "") .. option
        local ok, c = pcall(atomo.compressor, text:gsub(":$", ""), {seed = 3})
        local shape = one_of(shapes)
        for step = 1, ok and 2 or 0 do
          local g = extreme(shape)
          local what = ("%s [%s]"):format(text, table.concat(shape, ","))
          local m = c:encode(g, {step = step})
          local s, ghat = c:stats(), c:decode(m)
          assert.is_true(m.nbytes <= 4 * g:numel() + HEADER, ("%s: %d bytes"):format(what, m.nbytes))
          assert.equal(m.nbytes, s.nbytes, what)
          assert.equal(0, ghat:count_nonfinite(), what)
          assert.is_true(s.variance >= 0 and s.variance < math.huge, what)
          if c.unbiased and g:norm_value(math.huge) > 1e-30 then
            assert.is_true(s.atoms_expected > 0, what .. ": nothing can be sent")
          end
        end
      end
    end)
  end
end)

describe("the room planned for a message", function()
  it("is at most that of a dense gradient, or a third and a header more for some forms", function()
    local texts = {"qsgd:bits=8,coding=elias", "terngrad:coding=elias"}
    for _, c in ipairs(atomo.compressors()) do
      if not c.make then texts[#texts + 1] = c.name end
    end
    for _, text in ipairs(texts) do
      for _, shape in ipairs {{4096}, {64, 64}, {16, 3, 3, 32}} do
        local c, g = atomo.compressor(text), atomo.randn(shape)
        c:encode(g)
        local most = text == "atomo-published" and 2.1 or 4 / 3 -- both factors of every atom
        assert.is_true(c:wire_max() <= most * 4 * g:numel() + 64, ("%s: %d bytes"):format(text, c:wire_max()))
      end
    end
  end)
end)

describe("the dense form", function()
  it("is the decoded message, so that its mean is the gradient", function()
    for _, text in ipairs {"entry:ratio=2", "qsgd:bits=2", "rows:ratio=1,bits=2", "length_entries:ratio=1.2"} do
      local g, c = atomo.tensor {3, -1, 0.5}, atomo.compressor(text)
      local report = atomo.verify(text, {shape = {3}, draws = 2000})
      assert.is_true(report.pass, tostring(report))
      local dense = 0
      for step = 1, 50 do
        if c:encode(g, {step = step}).nbytes == c:encode(g, {step = step + 1}).nbytes then dense = dense + 1 end
      end
      assert.is_true(dense > 0, text)
    end
  end)

  it("of a compressor in Lua reaches steps, streams and sums", function()
    local shapes2 = {{3, 3}, {4, 20, 3}}
    for _, more_text in ipairs {"length_entries:", "head_tail:bits=32,", "length_entries:ef=true,"} do
      local text = more_text .. "bytes=1e9"
      local c, grads, accs = atomo.compressor(text), {}, {}
      for i, shape in ipairs(shapes2) do grads[i], accs[i] = codec.decaying(3, unpack(shape)), atomo.zeros(shape) end
      c:prepare(shapes2)
      local out = atomo.zeros(2 * c:wire_max(), "u8")
      local bytes = c:encode_step(grads, {step = 1, out = out})
      assert.is_true(bytes <= 4 * (9 + 240) + 2 * HEADER, bytes)
      c:decode_step(out, 0, bytes, 1, accs)
      for i, g in ipairs(grads) do assert.is_true((g - accs[i]):norm_value(2) < 1e-3 * g:norm_value(2), text) end
      c:begin_step(2, 0)
      local n = c:push(1, grads[1], out, 0)
      c:end_step()
      local data, acc = f.ffi.cast("const uint8_t *", out.h.data), atomo.zeros(shapes2[1])
      assert.is_true(n <= 36 + HEADER)
      c:decode_tensor(1, 2, {{data = data, left = n}, {data = data, left = n}}, 0.5, acc)
      assert.is_true((acc - grads[1]):norm_value(2) < 1e-3 * grads[1]:norm_value(2), text)
      local bad = out:clone()
      bad:data()[n - 6] = (bad:data()[n - 6] + 1) % 256
      data = f.ffi.cast("const uint8_t *", bad.h.data)
      codec.fails("checksum", c.decode_tensor, c, 1, 2, {{data = data, left = n}}, 1, acc)
      c:begin_step(2, 1) -- of rank 1
      n = c:push(1, grads[1], out, 0)
      c:end_step()
      data = f.ffi.cast("const uint8_t *", out.h.data)
      codec.fails("rank", c.decode_tensor, c, 1, 2, {{data = data, left = n, rank = 0}}, 1, acc)
      codec.fails("step", c.decode_tensor, c, 1, 0, {{data = data, left = n, rank = 1}}, 1, acc)
      c:decode_tensor(1, 2, {{data = data, left = n, rank = 1}}, 1, acc)
    end
  end)

  it("carries a vote's signs", function()
    local c = atomo.compressor "signsgd:vote=true"
    local m = c:encode(atomo.tensor {-0.25})
    assert.equal(4 + 13, m.nbytes)
    assert.equal(-1, c:decode(m):get(1))
  end)
end)

describe("numbers that used to fail", function()
  it("steps longer than floats: 1, 332 of 2.1, 667 of 4.5e8 for entry:atoms=999.5", function()
    local g = atomo.full({1000}, 4.5e8)
    g:set(1, 1)
    for i = 2, 333 do g:set(i, 2.1) end
    local c = atomo.compressor "entry:atoms=999.5"
    assert.is_true((c:decode(c:encode(g)) - g):norm_value(math.huge) < 10)
  end)

  it("a factor that is 0 cuts no atom off: lambda 0, weights that underflow, scale 0", function()
    atomo.decomposition("length_zeros", {
      decompose = function(g)
        local n = g:numel()
        local lambda = g:contiguous():view(n):clone()
        local factors = eye(n)
        lambda:set(2, 0)
        factors:select(1, 3):mul_(0)
        return lambda, factors
      end,
      reconstruct = function(lambda, factors, shape) return (factors:t() * lambda):sum(2):view(shape) end,
    })
    for _, text in ipairs {"length_zeros:atoms=100", "length_zeros:atoms=100,bits=8"} do
      local c = atomo.compressor(text)
      local g = atomo.zeros(20)
      for i = 1, 20 do g:set(i, i == 5 and 1e-45 or i) end
      local ghat = c:decode(c:encode(g))
      for _, i in ipairs {1, 4, 6, 20} do assert.near(i, ghat:get(i), 1e-4 * i) end
      assert.equal(0, c:decode_add(c:encode(g), 0, atomo.zeros(20)):norm_value(2))
    end
  end)

  it("budgets in bytes below empty messages are refused, by name", function()
    local c = atomo.compressor "svd:bytes=1"
    codec.fails("svd: bytes=1: 1 empty messages and the reserved bytes take 14", c.encode, c,
      atomo.randn(64, 576))
    c:set_budget {bytes = 100}
    local sum = 0
    for step = 1, 300 do sum = sum + c:encode(atomo.randn(64, 576), {step = step}).nbytes / 300 end
    assert.is_true(sum < 220, sum)
    local d = atomo.compressor "entry:bytes=20"
    d:prepare {{100}, {200}}
    codec.fails("2 empty messages", d.begin_step, d, 1, 0)
  end)
end)
