-- The state of a call (no_grad, scope, backward) is restored after errors in forward, backward, hooks and scopes, and
-- when coroutines yield inside it, which may never be resumed.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local T = require "atomo.tensor"
local left_behind = require "support.live_blocks"

local function recording() return (atomo.param {1} * 2).requires_grad == true end

--- An operator y = x whose backward raises while `fails` is true.
local fails = false
local fragile = atomo.func {name = "fragile", forward = function(_, x) return x * 1 end, backward = function(_, g)
  if fails then error "on purpose" end
  return g * 1
end}

describe("an error in backward, caught,", function()
  it("leaves no pending gradients: a kept graph can go backward again", function()
    local w = atomo.param {1}
    local x = w * 2
    local y = (fragile(x) + x * 3):sum()
    fails = true
    assert.is_false(pcall(y.backward, y, nil, {retain_graph = true}))
    fails = false
    assert.is_nil(w.grad)
    y:backward(nil, {retain_graph = true})
    assert.equal(8, w.grad:item())
    fails = true
    assert.is_false(pcall(y.backward, y, nil, {retain_graph = true}))
    fails = false
    assert.equal(8, w.grad:item())
    y:backward()
    assert.equal(16, w.grad:item())
  end)

  --- Returns a loss in whose backward v gets its gradient before the operator on which w depends raises.
  local function half_way(v, w)
    local x = fragile(w * 1)
    return (x * v):sum()
  end

  it("leaves every .grad as it was: absent, zero, or a sum", function()
    for _, was in ipairs {"absent", "zero", "sum"} do
      local v, w = atomo.param {2}, atomo.param {3}
      for _, p in ipairs {v, w} do
        if was ~= "absent" then p.grad = atomo.tensor {7} end
        if was == "zero" then p:zero_grad() end
      end
      fails = true
      assert.is_false(pcall(function() half_way(v, w):backward() end))
      fails = false
      if was == "absent" then
        assert.is_nil(v.grad)
      else
        assert.equal(was == "zero" and 0 or 7, v.grad:item())
      end
      half_way(v, w):backward()
      local before = was == "sum" and 7 or 0
      assert.same({before + 3, before + 2}, {v.grad:item(), w.grad:item()})
    end
  end)

  it("leaves a convolution's gradient, which is written into .grad, zero", function()
    local x, w = fragile(atomo.param(atomo.randn(1, 3, 3, 2)) * 1), atomo.param(atomo.randn(2, 3, 3, 2))
    w.grad = atomo.ones(2, 3, 3, 2)
    w:zero_grad()
    fails = true
    assert.is_false(pcall(function() atomo.F.conv2d(x, w):sum():backward() end))
    fails = false
    assert.equal(0, w.grad:norm_value())
    local y = atomo.F.conv2d(x:detach(), w):sum()
    y:backward(nil, {retain_graph = true})
    local once = w.grad:clone()
    y:backward()
    assert.is_true((w.grad - once * 2):norm_value() < 1e-4)
  end)

  it("in a backward inside a backward undoes both", function()
    local v = atomo.param {2}
    local nested = atomo.func {name = "nested", forward = function(_, x) return x * 1 end, backward = function(_, g)
      atomo.enable_grad(function() (v * 5):sum():backward() end)
      if fails then error "on purpose" end
      return g * 1
    end}
    local w = atomo.param {3}
    fails = true
    assert.is_false(pcall(function() nested(w * 1):sum():backward() end))
    fails = false
    assert.is_nil(v.grad)
    nested(w * 1):sum():backward()
    assert.same({5, 1}, {v.grad:item(), w.grad:item()})
  end)

  it("in backward or on_ready leaves recording on, and keeps the gradients that on_ready got", function()
    local a, b, seen = atomo.param {1}, atomo.param {2}, {}
    local y = (a * 3) * b
    assert.is_false(pcall(y.backward, y, nil, {on_ready = function(p)
      seen[#seen + 1] = p
      if #seen == 2 then error "on purpose" end
    end}))
    assert.same({b, a}, seen)
    assert.equal(3, b.grad:item())
    assert.is_true(recording())
  end)

  it("of nn.Checkpoint puts the body's buffers, modes and dropout's stream back", function()
    local nn, F = atomo.nn, atomo.F
    local body = nn.Sequential {nn.BatchNorm1d(2), function(x) return fragile(x) end, nn.Dropout(0.5)}
    local net, w = nn.Checkpoint(body), atomo.param(atomo.randn(4, 2))
    local y = net(w):sum()
    net:eval()
    local mean, masks = body:buffers()[1]:totable(), {F.dropout_stream()}
    fails = true
    assert.is_false(pcall(y.backward, y))
    fails = false
    assert.same(mean, body:buffers()[1]:totable())
    assert.same(masks, {F.dropout_stream()})
    assert.is_false(body.training)
    assert.is_true(recording())
    assert.is_nil(w.grad)
  end)
end)

describe("an error, caught,", function()
  it("in forward, no_grad, enable_grad, a scope or outside one leaves recording and scope as they were", function()
    local bad = atomo.func {name = "bad", forward = function() error "on purpose" end, backward = function() end}
    assert.equal(0, left_behind(function() atomo.scope(function()
      for _, fn in ipairs {
        function() bad(atomo.param {1}) end,
        function() atomo.no_grad(error, "on purpose") end,
        function() atomo.no_grad(atomo.enable_grad, error, "on purpose") end,
        function() atomo.scope(error, "on purpose") end,
        function() T.outside_scope(error, "on purpose") end,
        function() atomo.no_grad(atomo.scope, bad, atomo.param {1}) end,
      } do
        assert.is_false(pcall(fn))
        assert.is_true(recording())
      end
      local t = atomo.ones(3)
      assert.is_nil(t.guarded) -- the scope owns t, so t has no finalizer
    end) end))
  end)

  it("in gradcheck leaves the inputs' values, flags and gradients", function()
    local x, w = atomo.tensor {1, 2}, atomo.param {3, 4}
    w.grad = atomo.tensor {5, 6}
    local calls = 0
    local function fn(a, b)
      calls = calls + 1
      if calls == 4 then error "on purpose" end
      return a * b
    end
    assert.is_false(pcall(atomo.gradcheck, fn, {x, w}))
    assert.is_true((atomo.gradcheck(fn, {x, w})))
    assert.same({{1, 2}, {3, 4}, {5, 6}}, {x:totable(), w:totable(), w.grad:totable()})
    assert.is_nil(x.requires_grad)
    assert.is_nil(x.grad)
    assert.is_true(recording())
  end)

  it("in gradcheck, as in a success, draws from no random stream", function()
    atomo.manual_seed(4)
    local expected = atomo.rand(1):item()
    atomo.manual_seed(4)
    atomo.gradcheck(function(a) return a * 2 end, {atomo.tensor {1}})
    assert.equal(expected, atomo.rand(1):item())
  end)

  it("in an observer of operators leaves recording on", function()
    autograd.observe(function() error "on purpose" end)
    local ok = pcall(function() return atomo.param {1} * 2 end)
    autograd.observe(nil)
    assert.is_false(ok)
    assert.is_true(recording())
  end)
end)

describe("a coroutine", function()
  it("that yields inside no_grad leaves the resumer recording, and finds its own state again", function()
    local seen = {}
    local co = coroutine.wrap(function()
      atomo.no_grad(function()
        seen[1] = recording()
        coroutine.yield()
        seen[2] = recording()
        coroutine.yield()
        seen[3] = recording()
        atomo.enable_grad(coroutine.yield)
        seen[4] = recording()
      end)
      seen[5] = recording()
    end)
    for _ = 1, 2 do
      co()
      assert.is_true(recording())
    end
    atomo.no_grad(function()
      co()
      assert.is_false(recording())
    end)
    co()
    assert.is_true(recording())
    assert.same({false, false, false, false, true}, seen)
  end)

  it("sees the resumer's state outside its own blocks", function()
    local co = coroutine.create(function()
      for _ = 1, 3 do coroutine.yield(recording()) end
      atomo.no_grad(coroutine.yield, recording())
      return recording()
    end)
    local function next_() return select(2, coroutine.resume(co)) end
    assert.is_true(next_())
    assert.is_false(atomo.no_grad(next_))
    assert.is_true(next_())
    assert.is_true(next_())
    assert.is_false(atomo.no_grad(next_)) -- the coroutine's block began while recording and ends under no_grad
  end)

  it("that yields inside a scope does not take the resumer's tensors, and keeps its own", function()
    local inside, outside
    local co = coroutine.wrap(function()
      return atomo.scope(function()
        inside = atomo.ones(2)
        coroutine.yield()
        return inside * 3
      end)
    end)
    co()
    outside = atomo.zeros(2)
    atomo.scope(function() outside:add_(1) end)
    assert.same({1, 1}, inside:totable())
    local result = co()
    assert.same({3, 3}, result:totable())
    assert.same({1, 1}, outside:totable())
    assert.is_false(pcall(function() return inside:totable() end))
  end)

  it("that is never resumed leaks nothing of its scopes", function()
    local function start()
      for _ = 1, 5 do
        local co = coroutine.create(function()
          atomo.scope(function()
            local a = atomo.ones(5)
            atomo.scope(function()
              local b = a * 2
              coroutine.yield()
              return b
            end)
          end)
        end)
        assert(coroutine.resume(co))
      end
    end
    assert.equal(0, left_behind(start))
    assert.is_true(recording())
  end)

  it("whose backward yields and then raises leaves what others have added to .grad meanwhile", function()
    local failing = atomo.func {name = "yields", forward = function(_, x) return x * 1 end, backward = function()
      coroutine.yield()
      error "on purpose"
    end}
    for _, was in ipairs {"absent", "zero", "sum"} do
      local w = atomo.param {1}
      if was ~= "absent" then w.grad = atomo.tensor {7} end
      if was == "zero" then w:zero_grad() end
      local before = was == "sum" and 7 or 0
      local co = coroutine.create(function() (failing(w) + w * 3):sum():backward() end)
      assert(coroutine.resume(co))
      w:sum():backward()
      assert.equal(before + 1, w.grad:item())
      assert.is_false((coroutine.resume(co)))
      assert.equal(before + 1, w.grad:item())
    end
  end)

  it("whose backward raises undoes one that was nested in it, and adds all of it where none raises", function()
    for _, raises in ipairs {false, true} do
      local w = atomo.param {1}
      local nested = atomo.func {name = "nested", forward = function(_, x) return x * 1 end, backward = function(_, g)
        atomo.enable_grad(function() (w * 5):sum():backward() end)
        if raises then error "on purpose" end
        return g
      end}
      local co = coroutine.create(function() (nested(w) + w * 3):sum():backward() end)
      assert.equal(not raises, (coroutine.resume(co)))
      if raises then assert.is_nil(w.grad) else assert.equal(9, w.grad:item()) end
    end
  end)

  it("that yields inside a backward lets others go backward, through the same graph too", function()
    local w = atomo.param {1}
    local waits = true
    local op = atomo.func {name = "waits", forward = function(_, x) return x * 1 end, backward = function(_, g)
      if waits then coroutine.yield() end
      return g * 1
    end}
    local x = w * 2
    local y = (op(x) + x * 3):sum()
    local co = coroutine.wrap(function() y:backward(nil, {retain_graph = true}) end)
    co()
    assert.is_true(recording())
    assert.is_nil(w.grad)
    waits = false
    y:backward(nil, {retain_graph = true})
    assert.equal(8, w.grad:item())
    co()
    assert.equal(16, w.grad:item())
    waits = true
    coroutine.wrap(function() y:backward(nil, {retain_graph = true}) end)() -- never resumed
    waits = false
    y:backward()
    assert.equal(24, w.grad:item())
  end)

  it("that fails passes its error on, and leaves the resumer's state", function()
    local co = coroutine.create(function() atomo.no_grad(function() error "on purpose" end) end)
    local ok, text = coroutine.resume(co)
    assert.is_false(ok)
    assert.matches("on purpose", text)
    assert.is_true(recording())
    local wrapped = coroutine.wrap(function() atomo.no_grad(error, {code = 7}) end)
    local _, value = pcall(wrapped)
    assert.equal(7, value.code)
    assert.is_true(recording())
    assert.is_false((coroutine.resume(co)))
    assert.is_false(pcall(coroutine.resume, 5))
  end)
end)

describe("a coroutine that yields", function()
  it("inside model:evaluating leaves the modes to others, and has its own when it is resumed", function()
    local model = atomo.nn.Sequential {atomo.nn.Dropout(0.5), atomo.nn.BatchNorm2d(2)}
    model[2]:eval()
    local function modes() return {model[1].training, model[2].training} end
    local co = coroutine.create(function()
      return model:evaluating(function()
        model:evaluating(coroutine.yield, modes())
        return modes()
      end)
    end)
    assert.same({false, false}, select(2, coroutine.resume(co)))
    assert.same({true, false}, modes())
    assert.same({false, false}, select(2, coroutine.resume(co)))
    assert.same({true, false}, modes())
    coroutine.resume(coroutine.create(function() model:evaluating(coroutine.yield) end)) -- never resumed
    assert.same({true, false}, modes())
  end)

  it("inside ema:with leaves the weights to others, which may train on", function()
    local w = atomo.param {8}
    local ema = atomo.optim.ema {params = {w}, decay = 0.5}
    local function set(v) atomo.no_grad(function() w:fill_(v) end) end
    set(4)
    ema:update()
    local co = coroutine.create(function()
      return ema:with(function()
        coroutine.yield(w:item())
        return w:item()
      end)
    end)
    assert.equal(6, select(2, coroutine.resume(co)))
    assert.equal(4, w:item())
    set(2)
    ema:update()
    assert.equal(4, select(2, coroutine.resume(co)))
    assert.equal(2, w:item())
    coroutine.resume(coroutine.create(function() ema:with(coroutine.yield) end)) -- never resumed
    assert.equal(2, w:item())
    ema:update()
  end)
end)
