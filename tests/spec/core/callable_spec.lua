-- What takes a function and is given something else says what came and what was expected, at the caller's line, and
-- has done nothing.
local atomo = require "atomo"
local nn = atomo.nn

local m = nn.Linear(2, 2)
local function training(o)
  o.model, o.data = m, {steps = 1, epoch = function() return function() end end}
  o.optimizer, o.quiet = atomo.optim.sgd{params = m:parameters(), lr = 1}, true
  return atomo.train(o)
end

local ema = atomo.optim.ema{params = m:parameters()}
local takes = {
  no_grad = function(v) return atomo.no_grad(v) end,
  enable_grad = function(v) return atomo.enable_grad(v) end,
  scope = function(v) return atomo.scope(v) end,
  gradcheck = function(v) return atomo.gradcheck(v, {atomo.zeros(2)}) end,
  ["ema: with"] = function(v) return ema:with(v) end,
  ["Linear: apply"] = function(v) return m:apply(v) end,
  ["Linear: evaluating"] = function(v) return m:evaluating(v) end,
  ["backward: on_ready"] = function(v) return m(atomo.ones(1, 2)):sum():backward(nil, {on_ready = v}) end,
}

describe("a function is expected by", function()
  for name, call in pairs(takes) do
    it(name, function()
      for text, v in pairs {["a tensor"] = atomo.ones(2, 2), ["a number"] = 3, ["a string"] = "x", ["a table"] = {},
          ["a boolean"] = true} do
        local ok, message = pcall(call, v)
        assert.is_false(ok)
        local want = ("%s: expected a function, got %s"):format(name, text)
        assert.truthy(tostring(message):find(want, 1, true), tostring(message))
        assert.truthy(tostring(message):find("callable_spec.lua", 1, true), tostring(message))
      end
      if not name:find "on_ready" then
        local ok, message = pcall(call, nil)
        assert.is_false(ok)
        assert.truthy(tostring(message):find("expected a function, got nothing", 1, true), tostring(message))
      end
    end)
  end

  for _, name in ipairs {"loss", "accuracy", "schedule", "on_step", "on_epoch"} do
    it("train: " .. name, function()
      local ok, message = pcall(training, {[name] = atomo.ones(2)})
      assert.is_false(ok)
      assert.truthy(tostring(message):find(("train: %s is .*expected a function"):format(name)), tostring(message))
    end)
  end

  it("accept a table that can be called", function()
    local x = atomo.ones(1, 2)
    assert.equal(2, atomo.no_grad(m, x):size(2))
    assert.equal(2, atomo.scope(m, x):size(2))
    assert.is_true(atomo.gradcheck(m, {x}))
  end)
end)
