-- A step uses .grad as it is: written by hand in every way, cleared, replaced, before and after the optimizer was made.
-- Parameters keep their storage, so that aliases stay valid.
local atomo = require "atomo"
local fails = require "support.fails"
local nn, F = atomo.nn, atomo.F

local kinds = {"sgd", "adam", "adamw", "lars", "lamb"}

local function optimizer_of(kind, params, more)
  local o = {params = params, lr = 0.5}
  for key, value in pairs(more or {}) do o[key] = value end
  return atomo.optim[kind](o)
end

--- Losses with gradient 2 for each of w's elements; "linear" writes into .grad directly, the product's gradient is
--- copied.
local uses = {
  linear = function(w) return F.linear(atomo.full({1, 3}, 2), w:view(1, 3)):sum() end,
  ["linear, direct"] = function(w) return F.linear(atomo.full({1, 3}, 2), w):sum() end,
  product = function(w) return (w * 2):sum() end,
}

local ways = {
  ["p.grad = tensor"] = function(p) p.grad = atomo.full(p:shape(), 5) end,
  ["p.grad:fill_"] = function(p) p.grad:fill_(5) end,
  ["p.grad:copy_"] = function(p) p.grad:copy_(atomo.full(p:shape(), 5)) end,
  ["p.grad:add_"] = function(p) p.grad:add_(5) end,
  ["p.grad:axpy_"] = function(p) p.grad:axpy_(5, atomo.ones(p:shape())) end,
  ["a view"] = function(p) p.grad:view(-1):fill_(5) end,
  ["parts of a view"] = function(p) for i = 1, 3 do p.grad:view(-1):narrow(1, i, 1):fill_(5) end end,
  ["a detached one"] = function(p) p.grad:detach():fill_(5) end,
  ["set"] = function(p) for i = 1, 3 do p.grad:view(3):set(i, 5) end end,
  ["data()"] = function(p) for i = 0, 2 do p.grad:data()[i] = 5 end end,
  ["an expanded one"] = function(p) p.grad = atomo.full({1}, 5):expand(p:shape()) end,
}

describe(".grad written by hand after zero_grad", function()
  for way, write in pairs(ways) do
    for use, loss in pairs(uses) do
      for _, taken in ipairs {"before", "after", "no optimizer"} do
        it(("%s is added to by backward (%s, %s)"):format(way, use, taken), function()
          local w = atomo.param {{1, 2, 3}}
          local o = taken == "after" and optimizer_of("sgd", {w})
          loss(w):backward()
          if o then o:zero_grad() else w:zero_grad() end
          if taken == "before" then o = optimizer_of("sgd", {w}) end
          write(w)
          loss(w):backward()
          assert.same({{7, 7, 7}}, w.grad:totable())
          if o then
            o:step()
            assert.same({{1 - 3.5, 2 - 3.5, 3 - 3.5}}, w:totable())
            o:zero_grad()
          else
            w:zero_grad()
          end
          assert.same({{0, 0, 0}}, w.grad:totable())
        end)
      end
    end
    it(way .. " is cleared by the next zero_grad", function()
      local w = atomo.param {{1, 2, 3}}
      local o = optimizer_of("sgd", {w})
      o:zero_grad()
      write(w)
      o:zero_grad()
      assert.same({{0, 0, 0}}, w.grad:totable())
      uses["linear, direct"](w):backward()
      assert.same({{2, 2, 2}}, w.grad:totable())
    end)
  end

  it("through a pointer from before zero_grad counts too", function()
    local w = atomo.param {{1, 2, 3}}
    w.grad = atomo.zeros(1, 3)
    local p = w.grad:data()
    w:zero_grad()
    p[1] = 4
    uses["linear, direct"](w):backward()
    assert.same({{2, 6, 2}}, w.grad:totable())
    w:zero_grad()
    p[1] = 4
    w:zero_grad()
    assert.same({{0, 0, 0}}, w.grad:totable())
  end)

  for _, kind in ipairs(kinds) do
    it("and strided is used by " .. kind, function()
      local a, b = atomo.param {{1, 2}, {3, 4}}, atomo.param {{1, 2}, {3, 4}}
      local oa, ob = optimizer_of(kind, {a}), optimizer_of(kind, {b})
      a.grad, b.grad = atomo.tensor({{1, 2}, {3, 5}}):t(), atomo.tensor {{1, 3}, {2, 5}}
      oa:step()
      ob:step()
      assert.same(b:totable(), a:totable())
    end)
  end

  it("reaches clipping", function()
    local w = atomo.param {{3, 4}}
    optimizer_of("sgd", {w})
    w.grad = atomo.tensor {{30, 40}}
    assert.equal(50, atomo.optim.clip_grad_norm({w}, 5))
    assert.is_near(4, w.grad:get(1, 2), 1e-5)
  end)
end)

describe("a parameter without a gradient", function()
  for _, kind in ipairs(kinds) do
    it("is left alone by " .. kind .. ", with its state", function()
      local function weights() return atomo.param {{1, -2}, {3, 4}}, atomo.param {{2, 1}, {0.5, 1}} end
      local more = {weight_decay = 0.1, momentum = (kind == "sgd" or kind == "lars") and 0.9 or nil}
      local a, b = weights()
      local o = optimizer_of(kind, {a, b}, more)
      local function step(p, q, optimizer)
        if p then p.grad = atomo.full({2, 2}, 0.25) end
        if q then q.grad = atomo.full({2, 2}, -0.5) end
        optimizer:step()
      end
      step(a, b, o)
      local before = b:clone():detach()
      b.grad = nil
      step(a, nil, o)
      o:zero_grad()
      assert.is_nil(b.grad)
      step(a, nil, o)
      assert.same(before:totable(), b:totable())
      step(a, b, o)
      step(a, b, o)
      -- b has taken three steps: as one that was stepped three times, a five
      local c, d = weights()
      local oc, od = optimizer_of(kind, {c}, more), optimizer_of(kind, {d}, more)
      for _ = 1, 5 do step(c, nil, oc) end
      for _ = 1, 3 do step(nil, d, od) end
      assert.same(c:totable(), a:totable())
      assert.same(d:totable(), b:totable())
    end)

    it("keeps its number of steps in " .. kind .. "'s state", function()
      local function net() return atomo.param {{1, -2}}, atomo.param {{2, 1}} end
      local a, b = net()
      local o = optimizer_of(kind, {a, b})
      a.grad = atomo.full({1, 2}, 0.25)
      b.grad = nil
      for _ = 1, 3 do o:step() end
      b.grad = atomo.full({1, 2}, 0.5)
      o:step()
      local c, d = atomo.param(a:detach():clone()), atomo.param(b:detach():clone())
      local again = optimizer_of(kind, {c, d})
      again:load_state_dict(o:state_dict())
      c.grad, d.grad = a.grad:clone(), b.grad:clone()
      o:step()
      again:step()
      assert.same(a:totable(), c:totable())
      assert.same(b:totable(), d:totable())
    end)
  end

  it("gets one from backward", function()
    local w = atomo.param {{1, 2, 3}}
    local o = optimizer_of("sgd", {w})
    w.grad = nil
    uses.product(w):backward()
    o:step()
    assert.same({{0, 1, 2}}, w:totable())
  end)
end)

describe("a .grad that is no gradient", function()
  local wrong = {
    {"[3,1]", function() return atomo.zeros(3, 1) end}, {"[1,4]", function() return atomo.zeros(1, 4) end},
    {"i32 [1,3]", function() return atomo.zeros(1, 3, "i32") end}, {"a number", function() return 0 end},
    {"a table", function() return {1, 2, 3} end}, {"[]", function() return atomo.zeros {} end},
  }
  for _, case in ipairs(wrong) do
    it("is refused by name: " .. case[1], function()
      local a, w = atomo.param {1}, atomo.param {{1, 2, 3}}
      local o = optimizer_of("sgd", {a, w})
      w.grad = case[2]()
      fails("sgd: .grad of parameter 2 [1,3] is " .. (case[1]:match "^%[" and "f32 " or "") .. case[1], o.step, o)
      fails("expected f32 [1,3], or nil", function() uses.product(w):backward() end)
      fails("expected f32 [1,3], or nil", function() uses["linear, direct"](w):backward() end)
      fails("expected f32 [1,3], or nil", w.zero_grad, w)
      fails("expected f32 [1,3], or nil", atomo.optim.clip_grad_norm, {w}, 1)
      assert.same({{1, 2, 3}}, w:totable())
    end)
  end

  it("and one that was freed says so", function()
    local w = atomo.param {{1, 2, 3}}
    local o = optimizer_of("sgd", {w})
    atomo.scope(function() w.grad = atomo.ones(1, 3) end)
    fails("was freed", o.step, o)
  end)
end)

describe("aliases of a parameter from before an optimizer took it", function()
  for _, kind in ipairs(kinds) do
    it("follow the steps of " .. kind, function()
      local model = nn.Linear(2, 2)
      local w = model.weight
      local state, detached, turned, row = model:state_dict(), w:detach(), w:detach():t(), w:detach():select(1, 2)
      local pointer = w:data()
      local ema = atomo.optim.ema {params = {w}, decay = 0}
      local o = optimizer_of(kind, model:parameters())
      local before = w:detach():clone()
      w.grad:fill_(1)
      model.bias.grad:fill_(1)
      o:step()
      ema:update()
      assert.is_false(before:get(2, 1) == w:get(2, 1))
      assert.equal(w:get(2, 1), detached:get(2, 1))
      assert.equal(w:get(2, 1), turned:get(1, 2))
      assert.equal(w:get(2, 1), row:get(1))
      assert.equal(w:get(2, 1), state.weight:get(2, 1))
      assert.equal(w:get(2, 1), ema.averages[1]:get(2, 1))
      assert.equal(w:get(2, 1), pointer[2])
    end)
  end

  it("tie weights that are each other's transpose", function()
    local w = atomo.param {{1, 2, 3}, {4, 5, 6}}
    local tied = w:t()
    local o = optimizer_of("sgd", {w})
    w.grad:fill_(2)
    o:step()
    assert.same({{0, 3}, {1, 4}, {2, 5}}, tied:totable())
  end)

  it("may be parameters: one that is not contiguous steps too", function()
    local base = atomo.tensor {{1, 2, 3}, {4, 5, 6}}
    local w = atomo.param(base:t())
    local o = optimizer_of("adam", {w}, {lr = 1})
    w.grad:fill_(1)
    o:step()
    for i, row in ipairs(base:totable()) do
      for j, v in ipairs(row) do assert.is_near(3 * (i - 1) + j - 1, v, 1e-5) end
    end
  end)

  it("a second optimizer begins with the parameter as it is, and no state", function()
    local w = atomo.param {{1, 2, 3}}
    local adam = optimizer_of("adam", {w})
    for _ = 1, 3 do
      adam:zero_grad()
      uses.product(w):backward()
      adam:step()
    end
    local v = atomo.param(w:detach():clone())
    local a, b = optimizer_of("sgd", {w}, {momentum = 0.9}), optimizer_of("sgd", {v}, {momentum = 0.9})
    for _ = 1, 2 do
      a:zero_grad()
      b:zero_grad()
      uses.product(w):backward()
      uses.product(v):backward()
      a:step()
      b:step()
    end
    assert.same(v:totable(), w:totable())
  end)
end)

describe("the saved pass", function()
  it("writes a weight's gradient where .grad is, and makes no other", function()
    local layer = nn.Linear(3, 2)
    local o = optimizer_of("sgd", layer:parameters())
    local x = atomo.ones(4, 3)
    for _ = 1, 2 do
      o:zero_grad()
      local buffer = layer.weight.grad
      local loss = layer(x):sum()
      local live = atomo.mem().live
      loss:backward()
      collectgarbage()
      collectgarbage()
      assert.is_true(buffer == layer.weight.grad)
      assert.is_true(atomo.mem().live <= live)
    end
    assert.same({{4, 4, 4}, {4, 4, 4}}, layer.weight.grad:totable())
  end)
end)

describe("a second backward", function()
  it("is refused with the call that would allow it, and options in the gradient's place with theirs", function()
    local w = atomo.param {3}
    local y = (w * w):sum()
    assert.error_matches(function() y:backward({retain_graph = true}) end, "options come second")
    y:backward(nil, {retain_graph = true})
    y:backward()
    assert.equal(12, w.grad:item())
    assert.error_matches(function() y:backward() end, "y:backward%(nil, {retain_graph=true}%)")
  end)
end)
