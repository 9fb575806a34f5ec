-- An argument that exists in PyTorch or Torch but not here is refused, since ignoring it would give another result. A
-- value of the wrong type is refused, too, if the FFI would convert it to a number.
local atomo = require "atomo"
local nn, optim = atomo.nn, atomo.optim

local function refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.truthy(tostring(message):find(pattern), ("'%s' is not in '%s'"):format(pattern, tostring(message)))
end

local a, b = atomo.tensor {{1, 2}, {3, 4}}, atomo.tensor {{10, 20}, {30, 40}}

describe("an argument too many is refused:", function()
  it("Torch's add(number, tensor) and PyTorch's alpha, in place and not", function()
    for _, name in ipairs {"add", "sub", "mul", "div", "pow", "maximum", "minimum"} do
      local method = a[name]
      refused(name .. ": .*third", method, a, b, 2)
      refused(name .. ": .*third", method, a, 2, b)
      local in_place = a[name .. "_"]
      refused(name .. "_: .*third", in_place, a:clone(), b, 2)
      refused(name .. "_: .*third", in_place, a:clone(), 2, b)
    end
    refused("add_: .*axpy_", a.add_, a:clone(), b, 2)
    refused("div: .*third", a.div, a, b, "floor")
    refused("add: .*third", function() -- recorded
      return (atomo.param {1, 2} * 1):add(atomo.ones(2), 3)
    end)
    refused("add_?: .*third", function() return (atomo.param {1, 2} * 1):add_(atomo.ones(2), 3) end)
  end)

  it("dimensions of flatten, a second one of norm", function()
    refused("flatten: .*nn.Flatten", function() return atomo.zeros(2, 3, 4):flatten(2) end)
    refused("norm: keepdim is 2.*one dimension at a time", function() return a:norm(2, 1, 2) end)
    refused("norm: dimension {...}", function() return a:norm(2, {1, 2}) end)
  end)

  it("of an optimizer: a second table, a closure", function()
    local w = atomo.param {1}
    refused("sgd: .*one table", function() return optim.sgd({params = {w}, lr = 0.1}, {momentum = 0.9}) end)
    local o = optim.sgd {params = {w}, lr = 0.1}
    refused("step.*closure", function() o:step(function() return 1 end) end)
    assert.equal(0, o.steps)
  end)

  it("of a module: freeze by name, strict by position", function()
    local m = nn.Sequential {nn.Linear(2, 2), nn.Linear(2, 2)}
    refused("freeze: .*of the part", function() m:freeze "0.*" end)
    refused("unfreeze: .*of the part", function() m:unfreeze "0.*" end)
    assert.is_true(m[1].weight.requires_grad)
    refused("load_state_dict.*options are a boolean", function() m:load_state_dict(m:state_dict(), false) end)
  end)

  it("of a module's call", function()
    local x = atomo.ones(2, 2)
    for _, layer in ipairs {nn.Linear(2, 2), nn.ReLU(), nn.Sequential {nn.Linear(2, 2)}, nn.Flatten()} do
      refused(layer.class_name .. ": got 2 arguments, its forward takes 1", layer, x, x)
      assert.equal(2, layer(x, nil):size(1))
    end
    refused("BatchNorm1d: got 3 arguments, its forward takes 2", nn.BatchNorm1d(2), x, x, x)
    local Own, Any = nn.Module:extend "Own", nn.Module:extend "Any"
    function Own:forward(v) return v * self.scale end
    function Any:forward(...) return select("#", ...) + (self.more or 0) end
    local own = Own()
    own.scale = 2
    refused("Own: got 3 arguments, its forward takes 1", own, x, nil, false)
    assert.equal(3, Any()(x, x, x))
    own.forward = function(_, u, v) return u + v end -- replaced in the object
    assert.equal(8, own(x, x):sum():item())
  end)
end)

describe("a value of another kind is refused:", function()
  it("keepdim that is no flag, as the second of two dimensions", function()
    for _, name in ipairs {"sum", "mean", "max", "min", "argmax", "argmin"} do
      refused(name .. ": keepdim is 2, expected true or false", a[name], a, 1, 2)
      assert.equal(2, (a[name](a, 1, true)):dim())
      assert.equal(1, (a[name](a, 1, false)):dim())
    end
  end)

  it("options of a tensor that is made", function()
    for _, make in ipairs {atomo.zeros, atomo.ones, atomo.empty, atomo.randn, atomo.rand} do
      refused("option 'requires_grad'.*atomo.param", make, {3}, {requires_grad = true})
      refused("option 'device'", make, {3}, {device = "cpu"})
      assert.equal("f32", make({3}, {dtype = "f32"}):dtype())
    end
    refused("full: unknown option 'requires_grad'", atomo.full, {3}, 1, {requires_grad = true})
    refused("tensor: unknown option 'requires_grad'", atomo.tensor, {1, 2}, {requires_grad = true})
    refused("tensor: unknown option 'requires_grad'", atomo.tensor, atomo.ones(2), {requires_grad = true})
    assert.equal("i32", atomo.tensor({1, 2}, {dtype = "i32"}):dtype())
    assert.equal("i32", atomo.tensor(atomo.ones(2), {dtype = "i32"}):dtype())
  end)

  it("options of backward", function()
    local w = atomo.param {1, 2}
    local y = (w * w):sum()
    refused("backward: unknown option 'retain_grph'.*did you mean 'retain_graph'", y.backward, y, nil,
      {retain_grph = true})
    refused("backward: unknown option 'create_graph'", y.backward, y, nil, {create_graph = true})
    refused("backward: options are a boolean", y.backward, y, nil, true)
    refused("backward: retain_graph is 1, expected true or false", y.backward, y, nil, {retain_graph = 1})
    assert.is_nil(w.grad)
    y:backward(nil, {retain_graph = true})
    y:backward()
    assert.same({4, 8}, w.grad:totable())
  end)

  it("flags of modules and parameters", function()
    local m = nn.BatchNorm2d(2)
    refused("train: mode is 0, expected true or false", m.train, m, 0)
    refused("train: mode is 'x', a string", m.train, m, "x")
    local w = atomo.param {1}
    refused("requires_grad_: 0, expected true or false", w.requires_grad_, w, 0)
    assert.is_true(w.requires_grad)
  end)

  it("numbers that the FFI would make of a flag or a text", function()
    for _, bad in ipairs {true, "2", {}} do
      local t = a:clone()
      refused("axpy_: alpha is .*expected a number", t.axpy_, t, bad, b)
      refused("clamp: lower bound is .*expected a number", t.clamp, t, bad, 3)
      refused("clamp: upper bound is .*expected a number", t.clamp, t, 0, bad)
      refused("clamp_: lower bound is .*expected a number", t.clamp_, t, bad, 3)
      refused("norm: p is .*expected a number", t.norm, t, bad)
      refused("norm_value: p is .*expected a number", t.norm_value, t, bad)
      refused("uniform_: lo is .*expected a number", t.uniform_, t, bad)
      refused("normal_: std is .*expected a number", t.normal_, t, 0, bad)
      assert.same(a:totable(), t:totable())
    end
  end)

  it("bounds and deviations that no distribution has", function()
    local inf, nan, t = math.huge, 0 / 0, a:clone()
    for _, pair in ipairs {{5, 1}, {nan, 1}, {0, inf}, {-inf, 0}, {0, nan}, {-3e38, 3e38}} do
      refused("uniform_: ", t.uniform_, t, pair[1], pair[2])
      refused("uniform_: ", nn.init.uniform_, t, pair[1], pair[2])
    end
    for _, pair in ipairs {{0, -1}, {0, nan}, {0, inf}, {inf, 1}, {nan, 1}} do
      refused("normal_: ", t.normal_, t, pair[1], pair[2])
      refused("normal_: ", nn.init.normal_, t, pair[1], pair[2])
    end
    assert.same(a:totable(), t:totable())
    assert.same({{2, 2}, {2, 2}}, t:normal_(2, 0):totable())
    assert.same({{2, 2}, {2, 2}}, t:uniform_(2, 2):totable())
  end)
end)

it("stack joins along a new dimension at any place", function()
  assert.same({{{1, 2}, {3, 4}}, {{10, 20}, {30, 40}}}, atomo.stack({a, b}):totable())
  assert.same({{{1, 2}, {10, 20}}, {{3, 4}, {30, 40}}}, atomo.stack({a, b}, 2):totable())
  assert.same({{{1, 10}, {2, 20}}, {{3, 30}, {4, 40}}}, atomo.stack({a, b}, 3):totable())
  assert.same({{{1, 10}, {2, 20}}, {{3, 30}, {4, 40}}}, atomo.stack({a, b}, -1):totable())
  local w = atomo.param {1, 2}
  atomo.stack({w, w * 2}, 2):sum():backward()
  assert.same({3, 3}, w.grad:totable())
  refused("unsqueeze: dimension 4", atomo.stack, {a, b}, 4)
end)
