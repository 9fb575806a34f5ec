-- nn.Checkpoint around bodies that draw random numbers, return several tensors, get tables or use tensors of others:
-- the gradients of the body alone, or an error.
local atomo = require "atomo"
local fails = require "support.fails"
local nn = atomo.nn

--- A module with fields of `fields` and the given forward.
local function module(fields, forward)
  local class = nn.Module:extend "Own"
  function class:init()
    for name, value in pairs(fields) do self[name] = value end
  end
  class.forward = forward
  return class()
end

--- Returns the gradients of x and of the body's parameters, for loss(m(x...)), m the body or nn.Checkpoint(body).
local function gradients(body, wrap, loss)
  atomo.manual_seed(3)
  body:zero_grad()
  local x = atomo.param {{0.5, -1}, {2, 3}}
  loss(wrap and nn.Checkpoint(body) or body, x):backward()
  local all = {x.grad:totable()}
  for i, p in ipairs(body:parameters()) do all[i + 1] = p.grad:totable() end
  return all, atomo.rand(1):item(), math.random()
end

local function same(body, loss)
  local plain, tensors, numbers = gradients(body, false, loss)
  local held, tensors_held, numbers_held = gradients(body, true, loss)
  assert.same(plain, held)
  assert.equal(tensors, tensors_held) -- the streams go on as without it
  assert.equal(numbers, numbers_held)
end

local function summed(m, x) return m(x):sum() end

describe("nn.Checkpoint", function()
  for name, noise in pairs {
    ["atomo.randn"] = function() return atomo.randn(2, 2) end,
    ["uniform_"] = function() return atomo.zeros(2, 2):uniform_(1, 2) end,
    ["math.random"] = function() return math.random() end,
  } do
    it("repeats the random numbers of " .. name, function()
      same(module({l = nn.Linear(2, 2)}, function(self, x) return self.l(x) * noise() end), summed)
    end)
  end

  it("repeats them after another seed, and that seed's stream continues", function()
    local body = module({}, function(_, x) return x * atomo.rand(2) end)
    atomo.manual_seed(5)
    local x = atomo.param {1, 1}
    local y = nn.Checkpoint(body)(x)
    atomo.manual_seed(6)
    local first = atomo.rand(1):item()
    y:sum():backward()
    assert.same(y:totable(), x.grad:totable())
    local second = atomo.rand(1):item()
    atomo.manual_seed(6)
    assert.same({first, second}, {atomo.rand(1):item(), atomo.rand(1):item()})
  end)

  -- Each body is made anew: its forward changes its fields. It is called twice before backward, as a layer that is used
  -- twice.
  for name, make in pairs {
    ["a count of its calls"] = function()
      return module({calls = 0}, function(self, x)
        self.calls = self.calls + 1
        return x * x * self.calls
      end)
    end,
    ["a state that it replaces"] = function()
      return module({}, function(self, x)
        local y = (x * (self.state or 1)):tanh()
        self.state = y:detach():keep()
        return y
      end)
    end,
    ["an option that is set before backward"] = function() return nn.Sequential {nn.Dropout(0.5), nn.Tanh()} end,
    ["a layer that is replaced before backward"] = function()
      return module({layer = nn.Tanh()}, function(self, x) return self.layer(x) end)
    end,
  } do
    it("gives the gradients of a body with " .. name, function()
      local results = {}
      for i, wrap in ipairs {false, true} do
        local body = make()
        local m, x = wrap and nn.Checkpoint(body) or body, atomo.param {{0.5, -1}, {2, 3}}
        atomo.manual_seed(4)
        local y = m(x) + m(x) * 2
        if body[1] then body[1].p = 0.1 end
        local layer = rawget(body, "layer") and nn.ReLU()
        if layer then body.layer = layer end
        y:sum():backward()
        results[i] = {x.grad:totable(), body.calls, body.state and body.state:totable(), body[1] and body[1].p}
        assert.equal(layer, body.layer)
      end
      assert.same(results[1], results[2])
    end)
  end

  it("passes the gradients of all results on", function()
    local body = nn.LSTM(2, 3, {bidirectional = true})
    local function through(which)
      return function(m, x)
        local results, sum = {m(x:view(2, 1, 2))}, 0
        for _, i in ipairs(which) do sum = sum + (results[i] * results[i]):sum() end
        return sum
      end
    end
    for _, which in ipairs {{1}, {2}, {3}, {1, 3}, {1, 2, 3}} do same(body, through(which)) end
  end)

  it("trains a parameter of others where no argument requires a gradient", function()
    local w = atomo.param {1, 2}
    nn.Checkpoint(module({}, function(_, x) return x * w end))(atomo.tensor {3, 4}):sum():backward()
    assert.same({3, 4}, w.grad:totable())
  end)

  it("refuses tensors whose gradient would be lost", function()
    local w = atomo.param {1, 2}
    local h = w * 2
    local first = nn.Checkpoint(module({}, function(_, t) return t[1][1] * 2 end))
    fails("Checkpoint: argument 1 is a table with a tensor [2] that requires a gradient, expected that tensor as an " ..
      "argument of its own", first, {{h}})
    assert.same({2, 4}, first({{h:detach()}}):detach():mul_(0.5):totable())
    fails("Checkpoint: result 1 of the body is a table of tensors, expected each tensor as a result",
      nn.Checkpoint(module({}, function(_, x) return {x * 2} end)), h)
    local y = nn.Checkpoint(module({}, function(_, x) return x * h end))(h * 1) + h
    fails("Checkpoint: the body uses a tensor that requires a gradient and is neither an argument nor a parameter " ..
      "of the body: pass it as an argument", function() y:sum():backward() end)
    assert.is_nil(w.grad)
  end)

  it("notices a tensor in a table that was changed since", function()
    local mask, x = atomo.tensor {0, 1}, atomo.param {1, 2}
    local y = nn.Checkpoint(module({}, function(_, v, t) return v * t.mask end))(x, {mask = mask})
    mask:fill_(1)
    fails("checkpoint: a tensor that it saved [2], which its backward needs, was changed in place since",
      function() y:sum():backward() end)
  end)
end)
