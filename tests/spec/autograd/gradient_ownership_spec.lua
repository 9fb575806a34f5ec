-- Ownership of gradients: backward only frees and writes tensors owned by the tape. Tensors that a user's backward
-- returns or receives, and the gradient from which backward starts, are never changed.
local atomo = require "atomo"
local F = atomo.F
local left_behind = require "support.live_blocks"

local function values(t) return t:totable() end

--- Makes an operator y = 2 x whose backward returns give(ctx, gy), which need not be the true gradient.
local function operator(give, keep)
  return atomo.func {
    name = "given",
    forward = function(ctx, x)
      if keep then keep(ctx, x) end
      return x * 2
    end,
    backward = give,
  }
end

describe("results of a user's backward", function()
  local mask = atomo.tensor {5, 6, 7}
  local kept
  -- name -> {backward, what forward keeps}; each backward also stores its result in `kept`
  local ways = {
    ["a saved tensor"] = {function(ctx)
      kept = ctx:saved()
      return kept
    end, function(ctx, x) ctx:save(x) end},
    ["an argument"] = {function(ctx)
      kept = ctx.args[1]
      return kept
    end},
    ["a field of ctx"] = {function(ctx)
      kept = ctx.t
      return kept
    end, function(ctx, x) ctx.t = x * 3 end},
    ["a constant"] = {function()
      kept = mask
      return kept
    end},
    ["gy"] = {function(_, gy)
      kept = gy
      return kept
    end},
    ["a view of gy"] = {function(_, gy)
      kept = gy:narrow(1, 1, 3)
      return kept
    end},
    ["a view of an argument"] = {function(ctx)
      kept = ctx.args[1]:narrow(1, 1, 3)
      return kept
    end},
    ["a new tensor that it keeps"] = {function(_, gy)
      kept = gy * 3
      return kept
    end},
    ["a parameter's .grad"] = {function(ctx)
      kept = ctx.w.grad or mask
      return kept
    end, function(ctx, x) ctx.w = x end},
  }

  for name, way in pairs(ways) do
    it(name .. ", stays, and is not added to", function()
      local op, calls = operator(way[1], way[2]), 0
      for _, wrap in ipairs {
        function(w) return op(w) end,                               -- a leaf's gradient
        function(w) return op(w * 1) end,                           -- of an operator whose backward returns gy
        function(w)                                                 -- the first of several gradients that are added
          local x = w + 0
          return x * 2 + op(x) + x * 3
        end,
        function(w) return F.relu(op(w:view(3)):view(3, 1)):view(3) + w end,
        function(w) return F.batch_norm(op(w):view(3, 1) * 1, nil, nil, {training = true, relu = true,
          residual = op(w + 1):view(3, 1)}):view(3) end,            -- its backward writes into gy where it may
      } do
        local w = atomo.param {1, 2, 3}
        local y = wrap(w)
        local gy = atomo.tensor {2, 3, 4}
        y:backward(gy, {retain_graph = true})
        local first, seen, of_w = kept, values(kept), values(w)
        assert.same({2, 3, 4}, values(gy))
        if name ~= "a parameter's .grad" then
          local before = values(w.grad)
          w.grad = nil
          y:backward(gy, {retain_graph = true})
          assert.same(before, values(w.grad))
          assert.same(seen, values(first)) -- neither freed nor added to
        else
          assert.is_truthy(first.h)
        end
        assert.same(of_w, values(w))
        assert.same({5, 6, 7}, values(mask))
        calls = calls + 1
      end
      assert.equal(5, calls)
    end)
  end

  it("for two arguments, the same tensor, counts for both", function()
    local same = atomo.func {name = "same", forward = function(_, a, b) return a + b end, backward = function(_, gy)
      local g = gy * 1
      kept = g
      return g, g
    end}
    local a, b = atomo.param {1, 2}, atomo.param {3, 4}
    local x, z = a * 1, b * 1;
    (same(x, z) + x * 2 + z * 3):backward(atomo.tensor {1, 10})
    assert.same({3, 30}, values(a.grad))
    assert.same({4, 40}, values(b.grad))
    assert.same({1, 10}, values(kept))
  end)

  it("half the square, whose slope is the argument itself", function()
    local half = atomo.func {name = "half", forward = function(ctx, x)
      ctx:save(x)
      return x * x / 2
    end, backward = function(ctx) return (ctx:saved()) end}
    local w = atomo.param {1, 2, 3}
    for _ = 1, 3 do atomo.scope(function() half(w):sum():backward() end) end
    assert.same({3, 6, 9}, values(w.grad))
    assert.same({1, 2, 3}, values(w))
  end)

  it("changed after that by the operator itself is an error, not another gradient", function()
    local scratch = atomo.zeros(2)
    local op = atomo.func {name = "scratch", forward = function(_, x) return x * 2 end,
      backward = function(_, gy) return scratch:copy_(gy):mul_(2) end}
    local w = atomo.param {1, 2}
    local x = w * 1
    op(x):sum():backward()
    assert.same({2, 2}, values(w.grad))
    x = w * 1
    local y = op(x * 3) + op(x)
    local ok, text = pcall(y.backward, y, atomo.tensor {1, 5})
    assert.is_false(ok)
    assert.matches("a gradient %[2%] was changed in place while it was passed on", text)
  end)

  it("may be gy, changed in place, while other paths still need it", function()
    local op = atomo.func {name = "in_place", forward = function(_, x) return x * 2 end,
      backward = function(_, gy) return gy:mul_(2) end}
    local a, b = atomo.param {1, 2}, atomo.param {3, 4}
    local x = b * 1
    local gy = atomo.tensor {1, 10};
    (x + op(a * 1)):backward(gy)
    assert.same({{2, 20}, {1, 10}, {1, 10}}, {values(a.grad), values(b.grad), values(gy)})
  end)

  it("which is no f32 tensor of the argument's shape is refused", function()
    local op = operator(function() return atomo.zeros(3, "i32") end)
    local ok, text = pcall(function() op(atomo.param {1, 2, 3}):sum():backward() end)
    assert.is_false(ok)
    assert.matches("given: backward returned a gradient i32 %[3%] for argument 1", text)
  end)
end)

describe("results of a user's forward", function()
  it("stays the user's: a constant, a global, a parameter is not marked", function()
    local shared = atomo.tensor {1, 2}
    local p = atomo.param {3, 4}
    for _, t in ipairs {shared, p} do
      local op = atomo.func {name = "constant", forward = function() return t end,
        backward = function(_, g) return g end}
      local w = atomo.param {5, 6}
      local y = op(w)
      y:sum():backward()
      assert.same({1, 1}, values(w.grad))
      assert.is_nil(t.node)
      assert.is_nil(p.grad)
    end
    assert.is_nil(shared.requires_grad)
    assert.is_true(p.requires_grad)
  end)
end)

describe("the gradient that backward starts from", function()
  it("stays as it is", function()
    local w = atomo.param(atomo.randn(2, 3, 3, 4))
    local gy = atomo.randn(2, 3, 3, 4)
    local before = gy:bytes()
    for _, fn in ipairs {
      function(x) return x end,
      function(x) return x * 1 + x end,
      function(x) return F.batch_norm(x, nil, nil, {training = true, relu = true, residual = x}) end,
      function(x) return x:view(6, 12):view(2, 3, 3, 4) end,
      function(x) return x:clone():clone() end,
    } do
      fn(w):backward(gy)
      fn(w * 1):backward(gy)
      assert.is_true(before == gy:bytes())
    end
  end)

  it("may be a .grad, even the one to which backward adds", function()
    local w = atomo.param {1, 2}
    w.grad = atomo.tensor {3, 4};
    (w * 2):backward(w.grad)
    assert.same({9, 12}, values(w.grad))
    w:backward(w.grad)
    assert.same({18, 24}, values(w.grad))
  end)
end)

describe("a gradient in flight", function()
  it("that a view's backward passes on is not added to while another path waits for its elements", function()
    local w, v = atomo.param {1, 2}, atomo.param {3, 4}
    local q, r = v * 1, w * 1
    local twice = r * 2;
    (((r:view(1, 2):view(2) + q) + twice) * atomo.tensor {1, 10}):sum():backward()
    assert.same({{3, 30}, {1, 10}}, {values(w.grad), values(v.grad)})
  end)

  it("of nn.Checkpoint is not the body's to keep", function()
    local input
    local body = atomo.nn.Sequential {function(x)
      input = x
      return x * 2
    end}
    local w = atomo.param {1, 2}
    atomo.nn.Checkpoint(body)(w * 3):sum():backward()
    assert.same({6, 6}, values(w.grad))
    assert.same({3, 6}, values(input))
    assert.is_nil(input.grad)
  end)

  it("is not written into a .grad that the operator reads", function()
    local w, b = atomo.param(atomo.randn(2, 2)), atomo.param {1, 2}
    b.grad = atomo.ones(2)
    b:zero_grad()
    F.linear(b.grad:view(1, 2), w, b):sum():backward()
    assert.same({{{0, 0}, {0, 0}}, {1, 1}}, {values(w.grad), values(b.grad)})
  end)
end)

describe("a gradient that a user's backward was given", function()
  it("stays when it is kept", function()
    local given = {}
    local watch = atomo.func {name = "watch", forward = function(_, x) return x * 1 end, backward = function(_, gy)
      given[#given + 1] = gy
      return gy * 1
    end}
    local w = atomo.param {1, 2, 3}
    local x = watch(w * 1)
    local y = watch(x * 2) + watch(x):square()
    y:sum():backward()
    assert.equal(3, #given)
    for _, g in ipairs(given) do assert.equal(3, #values(g)) end
  end)

  it("is freed when the collector has run", function()
    local twice = atomo.func {name = "twice", forward = function(_, x) return x * 2 end,
      backward = function(_, gy) return gy * 2 end}
    local w = atomo.param(atomo.randn(1000))
    local function step() atomo.scope(function() twice(twice(w) + w):square():mean():backward() end) end
    assert.equal(0, left_behind(step))
  end)
end)

describe("a scope", function()
  it("that returns a tensor from outside leaves it to whom it belongs", function()
    local w = atomo.param {1, 2}
    local given = atomo.tensor {3}
    atomo.scope(function()
      assert.equal(w, atomo.scope(function() return w, given end))
    end)
    assert.same({1, 2}, values(w))
    assert.same({3}, values(given))
    atomo.scope(function() -- and of one from an outer scope, the outer scope's
      local t = atomo.ones(2)
      assert.equal(t, atomo.scope(function() return t, t end))
      assert.same({1, 1}, values(t))
      given = t
    end)
    assert.is_false(pcall(function() return given:totable() end))
  end)
end)
