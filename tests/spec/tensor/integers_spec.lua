-- Reductions of i32 and u8: exact beyond f32's 2^24, of views too, or refused.
local atomo = require "atomo"

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(text)
end

--- The same elements in the layouts that a tensor can have.
local function layouts(t)
  local wide = atomo.zeros(t:size(1) + 2, t:size(2) + 1, t:dtype())
  wide:narrow(1, 2, t:size(1)):narrow(2, 2, t:size(2)):copy_(t)
  return {
    contiguous = t,
    transposed = t:t():contiguous():t(),
    narrowed = wide:narrow(1, 2, t:size(1)):narrow(2, 2, t:size(2)),
  }
end

describe("reductions of integers", function()
  local big = atomo.tensor({{16777217, -5, 16777216}, {3, 2147483647, -2147483647 - 1}}, "i32")
  local bytes = atomo.tensor({{255, 0, 255}, {7, 255, 254}}, "u8")

  for layout, t in pairs(layouts(big)) do
    it("are exact of i32, " .. layout, function()
      assert.same({16777217, 2147483647}, (t:max(2)):totable())
      assert.same({-5, -2147483648}, (t:min(2)):totable())
      assert.same({1, 2}, (t:argmax(2)):totable())
      assert.same({1, 2, 1}, (t:argmax(1)):totable())
      assert.equal("i32", (t:max()):dtype())
      assert.same({33554428, 2}, t:sum(2):totable())
      assert.equal("i32", t:sum():dtype())
      assert.equal(33554430, t:sum():item())
      assert.equal(33554430 / 6, t:mean():item())
      assert.equal("f32", t:mean():dtype())
      assert.equal(2147483648, t:norm_value(math.huge))
      assert.equal(16777217 + 5 + 16777216, t:select(1, 1):norm_value(1))
      assert.equal(16777217 ^ 2 + 25 + 16777216 ^ 2, t:select(1, 1):dot_value(t:select(1, 1)))
    end)
  end

  for layout, t in pairs(layouts(bytes)) do
    it("are exact of u8, " .. layout, function()
      assert.same({255, 255}, (t:max(2)):totable())
      assert.same({1, 2}, (t:argmax(2)):totable())
      assert.same({0, 7}, (t:min(2)):totable())
      assert.equal("u8", (t:min(2)):dtype())
      assert.equal(1026, t:sum():item())
      assert.equal("i32", t:sum():dtype())
      assert.same({510, 516}, t:sum(2):totable())
      assert.equal(171, t:mean():item())
    end)
  end

  it("take the first of equals and any length", function()
    for n = 1, 40 do
      local t = atomo.full({n}, 9, "i32")
      assert.equal(1, t:argmax():item())
      assert.equal(9 * n, t:sum():item())
      t:set(n, 10)
      assert.equal(n, t:argmax():item())
    end
    assert.equal(2147 * 1000003, atomo.full({1000003}, 2147, "i32"):sum():item())
  end)

  it("are refused where the result does not fit", function()
    local t = atomo.full({2}, 2147483647, "i32")
    assert.matches("sum: 4294967294 does not fit i32", message(t.sum, t))
    assert.equal(2147483647, t:mean():item() - 1) -- 2^31 - 1 rounds to 2^31 in f32
    assert.matches("dot: .* passes 2%^53", message(t.dot_value, t, t))
    assert.matches("dot: i32 and f32 do not mix", message(t.dot_value, t, t:float()))
  end)

  it("of an inner product is an i32", function()
    local t = atomo.tensor({16777217, 1}, "i32")
    local y = t:dot(atomo.tensor({1, 1}, "i32"))
    assert.equal("i32", y:dtype())
    assert.equal(16777218, y:item())
  end)
end)

describe("elements of i32 and u8", function()
  it("wrap around in + - *, as in NumPy; other functions are refused by the method's name", function()
    local t = atomo.tensor({2147483647, -2147483648}, "i32")
    assert.same({-2, 0}, (t + t):totable())
    assert.same({1, 0}, (t * t):totable())
    assert.same({1, -1}, (atomo.zeros(2, "i32") - t - t - 1):totable())
    for _, name in ipairs {"abs", "exp", "log", "sqrt", "square", "reciprocal", "sign", "floor", "tanh", "sigmoid",
      "relu", "sin", "cos"} do
      assert.matches("^[^:]*:?%d*:? ?" .. name .. ": tensor is i32, expected f32", message(t[name], t))
    end
    local bytes = atomo.tensor({1, 2}, "u8")
    for _, name in ipairs {"add", "sub", "mul", "maximum", "minimum", "eq", "lt"} do
      assert.matches(name .. ": does not take u8", message(bytes[name], bytes, bytes))
    end
  end)
end)
