-- atomo.elementwise: the same as the operations one by one, gradients included; gradcheck of every operation; misuse.
local atomo = require "atomo"

local function near(a, b, tolerance)
  local worst = (a:detach() - b:detach()):abs():max():item()
  assert.is_true(worst <= (tolerance or 0), ("off by %g"):format(worst))
end

--- Asserts that fn gives the same results and gradients compiled from symbols as on tensors.
local function agrees(fn, count, tolerance, ...)
  local fused = atomo.elementwise("fused", fn)
  local a, b = {}, {}
  for i = 1, count do
    a[i] = atomo.param(atomo.rand(...):add_(0.5))
    b[i] = atomo.param(a[i]:detach():clone())
  end
  local y, z = fused(unpack(a)), fn(unpack(b))
  near(y, z, tolerance)
  local g = atomo.randn(y:shape())
  y:backward(g)
  z:backward(g)
  for i = 1, count do near(a[i].grad, b[i].grad or atomo.zeros(...), 1e-5) end
end

describe("elementwise", function()
  before_each(function() atomo.manual_seed(2) end)

  it("equals the operations of tensors one by one, over blocks and rests", function()
    agrees(function(x) return x * (x + 3):clamp(0, 6) / 6 end, 1, 0, 2500)
    agrees(function(x) return x * x * 2 - x end, 1, 0, 1)
    agrees(function(x) return x end, 1, 0, 3, 5)
    agrees(function(x, y) return (x - y) * x / (y + 2) - 3 * y:sqrt() end, 2, 1e-6, 7, 311)
    agrees(function(x, y) return x:maximum(y) + x:minimum(1) * x:gt(y) end, 2, 1e-6, 1024)
    agrees(function(x) return 1 / (1 + (-x):exp()) + x:tanh() * x:sigmoid() end, 1, 1e-6, 3000)
    agrees(function(x, y, z) return x ^ 3 + y:log() * z:sin() - z:cos():abs() end, 3, 1e-5, 4, 3, 2)
    agrees(function(x) return x:square() + x:reciprocal() + x:relu() + x:floor() * x:sign() end, 1, 1e-6, 33)
  end)

  it("takes seven arguments and their gradients", function()
    agrees(function(a, b, c, d, e, g, h) return a * b + c / d - e * g * h:sqrt() end, 7, 1e-5, 6, 50)
    local ok, message = pcall(atomo.elementwise, "f", function(a, b, c, d, e, g, h, i)
      return a + b + c + d + e + g + h + i
    end)
    assert.is_false(ok)
    assert.truthy(message:find("elementwise: f takes 8 arguments, expected 1 to 7", 1, true), message)
  end)

  it("passes gradcheck", function()
    local mix = atomo.elementwise("mix", function(x, y)
      return (x * y):tanh() + 2 ^ y - x:sigmoid() / (y * y + 1) + (x - y):abs() ^ 2
    end)
    assert(atomo.gradcheck(mix, {atomo.randn(2, 3), atomo.randn(2, 3)}))
    assert(atomo.gradcheck(atomo.elementwise("pow", function(x, y) return x ^ y end),
      {atomo.rand(5):add_(0.5), atomo.randn(5)}))
  end)

  it("takes views and empty tensors, and gives the same bits on any number of threads", function()
    local f = atomo.elementwise("f", function(x, y) return x * y + 1 end)
    local x = atomo.randn(5, 4)
    near(f(x:t(), x:t()), x:t() * x:t() + 1)
    assert.same({0, 3}, f(atomo.zeros(0, 3), atomo.zeros(0, 3)):shape())
    local g, a, threads, bits = atomo.elementwise("g", function(v) return (v:exp() + 1):log() end), atomo.randn(300001),
      atomo.num_threads(), {}
    for i, n in ipairs {1, 3} do
      atomo.set_num_threads(n)
      bits[i] = g(a):bytes()
    end
    atomo.set_num_threads(threads)
    assert.is_true(bits[1] == bits[2])
  end)

  it("names the fault", function()
    local function fails(text, fn, ...)
      local ok, message = pcall(fn, ...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    local make = atomo.elementwise
    fails("elementwise: name is a function", make, function(x) return x end)
    fails("elementwise: f: got a nil, expected a function", make, "f")
    fails("elementwise: f takes 0 arguments, expected 1 to 7", make, "f", function() return 1 end)
    fails("elementwise: 'sum' is no elementwise operation", make, "f", function(x) return x:sum() end)
    fails("elementwise: f's result is a nil", make, "f", function() end and function(_) end)
    fails("elementwise: add: operand 2 is a string", make, "f", function(x) return x + "1" end)
    local f = make("f", function(x, y) return x + y end)
    fails("f: argument 2 is missing", f, atomo.zeros(2))
    fails("elementwise: input 1 is [2], input 2 is [3]", f, atomo.zeros(2), atomo.zeros(3))
    fails("f: argument 1 is i32, expected f32", f, atomo.zeros(2, "i32"), atomo.zeros(2))
  end)
end)
