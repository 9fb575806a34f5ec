-- State that no optimizer can have is refused before anything changes; norms of high order do not overflow.
local atomo = require "atomo"
local optim = atomo.optim
local inf, nan = math.huge, 0 / 0

local function refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.truthy(tostring(message):find(pattern), ("'%s' is not in '%s'"):format(pattern, tostring(message)))
end

local function trained(kind)
  local w = atomo.param {1, 2}
  local o = optim[kind] {params = {w}, lr = 0.1, [kind == "sgd" and "momentum" or "weight_decay"] = 0.5}
  w.grad = atomo.ones(2)
  o:step()
  return o
end

local kinds = {"sgd", "adam", "adamw", "lars", "lamb"}

describe("an optimizer's load_state_dict refuses", function()
  it("steps that are no count and rates that are no rate", function()
    for _, kind in ipairs(kinds) do
      local o = trained(kind)
      for _, steps in ipairs {2.5, -1, nan, inf} do
        local s = o:state_dict()
        s.steps = steps
        refused("load_state_dict: steps is .*expected a whole number", o.load_state_dict, o, s)
      end
      for _, lr in ipairs {-1, nan, inf} do
        for _, key in ipairs {"lr", "1.lr"} do
          local s = o:state_dict()
          s[key] = lr
          refused("lr.* is .*expected a number >= 0", o.load_state_dict, o, s)
        end
      end
      local s = o:state_dict()
      s["1.lr"], s["1.ratio"] = 0.1, nan
      refused("ratio.* is .*expected a number >= 0", o.load_state_dict, o, s)
      assert.equal(1, o.steps)
      assert.equal(0.1, o.lr)
    end
  end)

  it("counts of a parameter's steps that are no whole numbers up to the optimizer's", function()
    local o = trained "adam"
    for _, taken in ipairs {1.5, -1, nan, 2} do
      local s = o:state_dict()
      s["1.taken"] = atomo.tensor {taken}
      refused("'1.taken' holds .*expected whole numbers from 0 to 1", o.load_state_dict, o, s)
    end
    local s = o:state_dict()
    s["1.taken"] = atomo.tensor({1}, "i32")
    o:load_state_dict(s)
    assert.same({1}, o.groups[1].taken)
  end)

  it("moments of another dtype", function()
    for _, kind in ipairs(kinds) do
      local o = trained(kind)
      for key, value in pairs(o:state_dict()) do
        if atomo.is_tensor(value) and value:dtype() == "f32" then
          local s = o:state_dict()
          s[key] = atomo.zeros({value:numel()}, "i32")
          refused(("'%s' is i32, expected f32"):format(key), o.load_state_dict, o, s)
        end
      end
    end
  end)
end)

it("an average's load_state_dict refuses another dtype, another shape and updates that are no count", function()
  local w = atomo.param {{1, 2}}
  local ema = optim.ema {params = {w}}
  ema:update()
  for _, bad in ipairs {{2.5, atomo.ones(1, 2)}, {-1, atomo.ones(1, 2)}, {nil, atomo.ones(1, 2)},
    {1, atomo.ones({1, 2}, "i32")}, {1, atomo.ones(2, 1)}} do
    refused("ema: load_state_dict", ema.load_state_dict, ema, {updates = bad[1], ["1"] = bad[2]})
  end
  refused("ema: load_state_dict", ema.load_state_dict, ema, nil)
  assert.equal(1, ema.updates)
  assert.same({{1, 2}}, ema.averages[1]:totable())
end)

it("a norm of a high order neither overflows nor vanishes", function()
  for _, scale in ipairs {1e-45, 1e-30, 1, 1e30, 3e38} do
    for _, p in ipairs {3, 8, 40, 1000} do
      local w = atomo.param {scale, 0, -scale}
      local value = w:norm(p)
      assert.is_near(2 ^ (1 / p), w:norm_value(p) / w:get(1), 1e-6)
      if p < 100 and scale > 1e-38 and scale < 1e38 then
        value:backward()
        assert.is_near(2 ^ (1 / p - 1), w.grad:get(1), 1e-5)
        assert.is_near(-2 ^ (1 / p - 1), w.grad:get(3), 1e-5)
      end
    end
  end
end)

describe("a state that exchanges the object's own tensors", function()
  it("gives each group of an optimizer the other's state", function()
    local a, b = atomo.param {1, 2}, atomo.param {3, 4}
    local o = optim.sgd {params = {{params = {a}}, {params = {b}}}, lr = 0.1, momentum = 0.9}
    a.grad, b.grad = atomo.tensor {1, 2}, atomo.tensor {10, 20}
    o:step()
    local s = o:state_dict()
    s["1.velocity"], s["2.velocity"] = s["2.velocity"], s["1.velocity"]
    o:load_state_dict(s)
    s = o:state_dict()
    assert.same({10, 20}, s["1.velocity"]:narrow(1, 1, 2):totable())
    assert.same({1, 2}, s["2.velocity"]:narrow(1, 1, 2):totable())
  end)

  it("exchanges averages of weights, and takes parameters as values without recording", function()
    local e = optim.ema {params = {atomo.param {1}, atomo.param {2}}}
    local s = e:state_dict()
    e:load_state_dict {updates = 0, ["1"] = s["2"], ["2"] = s["1"]}
    assert.same({2, 1}, {e.averages[1]:item(), e.averages[2]:item()})
    e:load_state_dict {updates = 0, ["1"] = atomo.param {5}, ["2"] = s["1"]}
    assert.same({5, 2}, {e.averages[1]:item(), e.averages[2]:item()})
    assert.is_nil(e.averages[1].node)
  end)
end)

describe("a gradient that several parameters share", function()
  it("is clipped once", function()
    local p, q = atomo.param {1}, atomo.param {1}
    local g = atomo.tensor {3}
    p.grad, q.grad = g, g
    assert.is_true(math.abs(optim.clip_grad_norm({p, q}, 1) - 18 ^ 0.5) < 1e-6)
    assert.is_true(math.abs(optim.grad_norm {p, q} - 1) < 1e-5)
  end)
end)

describe("a norm of gradients of a high order", function()
  local function with(...)
    local list = {}
    for i, g in ipairs {...} do
      list[i] = atomo.param {0}
      list[i].grad = atomo.tensor {g}
    end
    return list
  end

  it("neither overflows nor vanishes", function()
    assert.is_near(1, optim.grad_norm(with(1e10, 1), 100) / 1e10, 1e-6)
    assert.is_near(2 ^ 0.01, optim.grad_norm(with(1e-10, 1e-10), 100) / 1e-10, 1e-6)
    assert.is_near(2 ^ 0.05, optim.grad_norm(with(1e30, 1e30), 20) / 1e30, 1e-6)
    assert.equal(0, optim.grad_norm(with(0, 0), 100))
    assert.equal(inf, optim.grad_norm(with(inf, 1), 100))
    local n = optim.grad_norm(with(nan, 1), 100)
    assert.is_true(n ~= n)
  end)

  it("that is NaN makes all gradients NaN, as in PyTorch, so that none is used without being clipped", function()
    for _, p in ipairs {2, 1, inf} do
      local list = with(nan, 1e6)
      local n = optim.clip_grad_norm(list, 1, p)
      assert.is_true(n ~= n)
      for _, w in ipairs(list) do assert.is_true(w.grad:item() ~= w.grad:item()) end
    end
  end)

  it("does not clip gradients to zero", function()
    local list = with(1e10, 0)
    optim.clip_grad_norm(list, 1, 100)
    assert.is_near(1, list[1].grad:item(), 1e-5)
  end)
end)

it("a milestone that is NaN, which no step reaches, is refused", function()
  refused("milestones is a table, expected a list of steps", atomo.schedule.multistep, {lr = 1, milestones = {3, nan}})
end)

describe("a step that is refused", function()
  local mistakes = {
    {"a gradient of another shape", function(_, q) q.grad = atomo.ones(3) end,
      function(_, q) q.grad = atomo.ones(2) end},
    {"a gradient that is the parameter", function(_, q) q.grad = q:detach() end,
      function(_, q) q.grad = atomo.ones(2) end},
    {"an option out of range", function(o) o.groups[2].weight_decay = -1 end,
      function(o) o.groups[2].weight_decay = 0 end},
  }
  for _, kind in ipairs {"sgd", "adam", "adamw", "lars", "lamb"} do
    for _, mistake in ipairs(mistakes) do
      it(("changes nothing: %s, %s"):format(kind, mistake[1]), function()
        local function new()
          local p, q = atomo.param {1, 2}, atomo.param {3, 4}
          p.grad, q.grad = atomo.ones(2), atomo.ones(2)
          local o = atomo.optim[kind] {params = {{params = {p}}, {params = {q}}}, lr = 0.1, weight_decay = 0}
          o:step()
          o.groups[1].lr = 0.3
          return p, q, o
        end
        local p, q, o = new()
        mistake[2](o, q)
        local before = p:totable()
        assert.is_false(pcall(o.step, o))
        assert.same(before, p:totable())
        assert.equal(1, o.steps)
        mistake[3](o, q)
        o:step()
        local a, b, plain = new()
        plain:step()
        assert.same({a:totable(), b:totable(), plain.steps}, {p:totable(), q:totable(), o.steps})
      end)
    end
  end
end)

describe("options that were set after the first step", function()
  local function made(kind)
    local w, v = atomo.param {1, 2}, atomo.param {3}
    return optim[kind] {params = {{params = {w}}, {params = {v}}}, lr = 0.1, weight_decay = 0.2}
  end

  it("are in the state, and restored; without them those before the first step are", function()
    for _, kind in ipairs(kinds) do
      local o, other = made(kind), made(kind)
      o.groups[1].weight_decay = 0.3 -- set up before the first step: the script that loads does the same
      o:zero_grad()
      o:step()
      local before = o:state_dict()
      o.groups[2].weight_decay = 0.4
      local s = o:state_dict()
      assert.is_nil(s["1.weight_decay"])
      assert.equal(0.4, s["2.weight_decay"])
      other:load_state_dict(s)
      assert.equal(0.2, other.groups[1].weight_decay)
      assert.equal(0.4, other.groups[2].weight_decay)
      assert.equal(0.4, other:state_dict()["2.weight_decay"])
      o:load_state_dict(before)
      assert.equal(0.3, o.groups[1].weight_decay)
      assert.equal(0.2, o.groups[2].weight_decay)
      s["2.weight_decay"] = -1
      refused("2.weight_decay is %-1, expected a number >= 0", o.load_state_dict, o, s)
      s["2.weight_decay"], s["2.momentun"] = nil, 1
      refused("'2.momentun' is no state of ", o.load_state_dict, o, s)
    end
  end)

  it("the decay of an average too", function()
    local w = atomo.param {1}
    local function average() return optim.ema {params = {w}, decay = 0.9} end
    local ema, other = average(), average()
    ema:update()
    local before = ema:state_dict()
    ema.decay = 0.5
    local s = ema:state_dict()
    other:load_state_dict(s)
    assert.equal(0.5, other.decay)
    assert.equal(0.5, other:state_dict()["*decay"])
    ema:load_state_dict(before)
    assert.equal(0.9, ema.decay)
    s["*decay"] = 2
    refused("ema: load_state_dict: decay is 2, expected 0 <= decay < 1", ema.load_state_dict, ema, s)
    ema.decay = "x"
    refused("ema: update: decay is 'x'", ema.update, ema)
  end)
end)
