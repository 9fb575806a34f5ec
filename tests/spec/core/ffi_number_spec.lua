-- Lua reads the numbers that C wrote. LuaJIT may delay a plain load of a buffer past later C calls, which overwrite it
-- (f.number prevents this); and it represents its other types as NaNs. Every loop here is long enough to be compiled.
local atomo = require "atomo"
local f = require "atomo.ffi"

local TURNS = 300

local function count(holds)
  local times = 0
  for _ = 1, TURNS do
    if holds() then times = times + 1 end
  end
  return times
end

describe("comparing two numbers of one buffer", function()
  local zeros, large = atomo.zeros(3), atomo.full({3}, 5)
  local counts = atomo.tensor({1}, "i32")
  local codec = atomo.compressor "entry:atoms=2"

  local readers = {
    norm_value = function(t) return t:norm_value(2) end,
    dot_value = function(t) return t:dot_value(t) end,
    item = function(t) return t:narrow(1, 1, 1):item() end,
    get = function(t) return t:get(1) end,
    ["sum, item"] = function(t) return t:sum():item() end,
    count_nonfinite = function(t) return t == large and 5 or (t:count_nonfinite()) end,
    stats = function(t)
      codec:encode(t, {step = 1})
      return codec:stats().square
    end,
  }
  for name, read in pairs(readers) do
    it(name, function()
      assert.equal(TURNS, count(function() return read(zeros) <= 1e-6 * read(large) end))
      assert.equal(TURNS, count(function() return read(large) - read(zeros) > 0 end))
    end)
  end

  it("f.number, straight after the call", function()
    local C, result, a, b = f.C, f.ffi.new "double[1]", zeros.h, large.h
    local function norm(h)
      C.atomo_norm(h, 2, result)
      return f.number(result)
    end
    local wrong = 0
    for _ = 1, TURNS do
      if not (norm(a) <= 1e-6 * norm(b)) then wrong = wrong + 1 end -- luacheck: ignore 581 (this form fails, a > not)
    end
    assert.equal(0, wrong)
  end)

  it("an element before and after a change in place", function()
    assert.equal(TURNS, count(function()
      local before = counts:get(1)
      counts:add_(1)
      return counts:get(1) - before == 1
    end))
  end)

  it("keeps the sign of zero, Inf and NaN", function()
    local buffer = f.ffi.new("double[4]", {-0.0, math.huge, 0 / 0, -1.5})
    buffer[0] = -1 / math.huge
    for _ = 1, TURNS do
      assert(1 / f.number(buffer, 0) == -math.huge and f.number(buffer, 1) == math.huge and f.number(buffer, 3) == -1.5)
      assert(f.number(buffer, 2) ~= f.number(buffer, 2))
    end
  end)
end)

describe("a NaN of any bits", function()
  it("is a number", function()
    local t = atomo.zeros(3)
    local words = f.ffi.cast("uint32_t *", t:data())
    for _, bits in ipairs {0xffffffff, 0xffc00000, 0x7fc00000, 0xfff00001, 0xffe00000, 0x7f800001, 0xffbfffff} do
      words[0], words[1], words[2] = bits, bits, bits
      for _ = 1, TURNS do
        local v = t:get(2)
        assert(type(v) == "number" and v ~= v)
      end
      for _, v in ipairs(t:totable()) do assert.equal("number", type(v)) end
      assert.truthy(tostring(t):find "nan")
    end
    words[0] = 0x7f800000
    assert.equal(math.huge, t:get(1))
  end)
end)
