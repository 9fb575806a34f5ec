-- Messages of several ranks for one tensor, decoded together: coefficients are summed and transformed once, which
-- equals the sum of the separately decoded messages.
local atomo = require "atomo"
local ffi = require "ffi"

local shape = {30, 3, 3, 7}

--- Returns one message per rank, of different gradients, and the decoded gradients.
local function messages(c, ranks)
  local texts, sum = {}, atomo.zeros(shape)
  for r = 1, ranks do
    atomo.manual_seed(r)
    local g = r % 2 == 0 and atomo.randn(shape) or atomo.randn(30, 1):matmul(atomo.randn(1, 63)):view(shape)
    local m = c:encode(g, {step = 4, tensor = 1, rank = r - 1})
    texts[r] = m:bytes()
    sum:add_(c:decode(m))
  end
  return texts, sum
end

local function sources(texts)
  local list = {}
  for r, text in ipairs(texts) do
    list[r] = {data = ffi.cast("const uint8_t *", text), left = #text, rank = r - 1}
  end
  return list
end

describe("decoding the messages of several ranks", function()
  for _, spec in ipairs {"taps:ratio=4", "fourier:ratio=4", "fourier:ratio=4,dims=2", "dct:ratio=4",
    "dct:ratio=4,chunk=8", "hadamard:ratio=4", "haar:ratio=4",
    "entry:ratio=4", "svd:ratio=4", "auto:ratio=6,prefer=variance", "rotated:ratio=4", "rotated:ratio=20,base=none",
    "auto:ratio=6,prefer=accuracy"} do
    it("adds them up: " .. spec, function()
      local c = atomo.compressor(spec)
      for _, ranks in ipairs {1, 2, 5} do
        local texts, sum = messages(c, ranks)
        local acc, list = atomo.zeros(shape), sources(texts)
        c:decode_tensor(1, 4, list, 0.5, acc)
        for _, s in ipairs(list) do assert.equal(0, s.left) end
        assert.is_true((acc * 2 - sum):norm_value(2) <= 1e-6 * sum:norm_value(2))
      end
    end)
  end

  it("of families that differ from rank to rank", function()
    local c = atomo.compressor "auto:ratio=64,every=1"
    local families, texts, sum = {}, {}, atomo.zeros(shape)
    for r = 1, 6 do
      atomo.manual_seed(r)
      local g = atomo.randn(30, 1):matmul(atomo.randn(1, 63)):view(shape) -- one direction; or waves
      local p, n = g:data(), g:numel()
      for k = 1, r % 3 == 0 and 0 or 40 do
        local first, step = 0.5, math.pi * (23 * k + r) / n -- of the cosine basis,
        if r % 3 == 1 then first, step = k, 2 * math.pi * (11 * k + r) / n end -- or of the Fourier one, of any phase
        for i = 0, n - 1 do p[i] = (k > 1 and p[i] or 0) + math.cos(step * (i + first)) end
      end
      local m = c:encode(g, {step = 4, tensor = 1, rank = r - 1})
      families[c:stats(1).family], texts[r] = true, m:bytes()
      sum:add_(c:decode(m))
    end
    local acc, kinds = atomo.zeros(shape), 0
    for _ in pairs(families) do kinds = kinds + 1 end
    assert.is_true(kinds > 2) -- two bases among them
    c:decode_tensor(1, 4, sources(texts), 1, acc)
    assert.is_true((acc - sum):norm_value(2) <= 1e-6 * sum:norm_value(2))
  end)

  it("leaves nothing behind of a sum that a bad message ends", function()
    local c = atomo.compressor "fourier:ratio=4"
    local texts, sum = messages(c, 3)
    local bad = {texts[1], texts[2]:sub(1, -2) .. string.char((texts[2]:byte(-1) + 1) % 256), texts[3]}
    local acc = atomo.zeros(shape)
    assert.is_false((pcall(c.decode_tensor, c, 1, 4, sources(bad), 1, acc)))
    acc:zero_()
    c:decode_tensor(1, 4, sources {texts[1]}, 1, acc)
    assert.same(c:decode(texts[1]):totable(), acc:totable())
    acc:zero_()
    c:decode_tensor(1, 4, sources(texts), 1, acc)
    assert.is_true((acc - sum):norm_value(2) <= 1e-6 * sum:norm_value(2))
  end)
end)
