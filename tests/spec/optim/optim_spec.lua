-- Optimizers against PyTorch's trajectories (golden/make_optim.py), parameter groups, state, schedules.
local atomo = require "atomo"
local root = require "support.root"
local golden = dofile(root .. "tests/golden/optim.lua")

local function start()
  return atomo.param {{1, -2, 0.5}, {3, 0.1, -0.7}}, atomo.param {0.3, -1.5, 2}
end
local c = atomo.tensor {{1, 2, 3}, {4, 5, 6}}

local function step(optimizer, w, b)
  atomo.scope(function()
    optimizer:zero_grad()
    local loss = (w * w * c * 0.5 + w:sin()):sum() + (b * b * 0.5 + b:cos()):sum()
    loss:backward()
    optimizer:step()
  end)
end

local function values(w, b)
  local v = w:view(-1):totable()
  for _, x in ipairs(b:totable()) do v[#v + 1] = x end
  return v
end

local function with(options, more)
  local o = {}
  for k, v in pairs(options) do o[k] = v end
  for k, v in pairs(more) do o[k] = v end
  return o
end

describe("50 steps of", function()
  for i, case in ipairs(golden) do
    it(("%s (case %d) follow the reference to 1e-5"):format(case.name, i), function()
      local w, b = start()
      local optimizer = atomo.optim[case.name](with(case.options, {params = {w, b}}))
      for s = 1, 50 do
        step(optimizer, w, b)
        if s % 10 == 0 then
          for k, v in ipairs(values(w, b)) do
            local want = case.path[s / 10][k]
            assert.is_true(math.abs(v - want) <= 1e-5 * math.max(1, math.abs(want)),
              ("step %d, value %d: %g, expected %g"):format(s, k, v, want))
          end
        end
      end
    end)
  end
end)

describe("optimizers", function()
  it("take groups whose options override the common ones", function()
    local w, b = start()
    local o = atomo.optim.sgd {lr = 0.1, weight_decay = 0.5, params = {{params = {w}}, {params = {b}, weight_decay = 0,
      lr = 0.2}}}
    w.grad:zero_()
    b.grad:fill_(1)
    o:step()
    assert.is_true(math.abs(w:get(2, 1) - 3 * (1 - 0.05)) < 1e-6)
    assert.is_true(math.abs(b:get(1) - (0.3 - 0.2)) < 1e-6)
  end)

  it("go on from their state bit for bit", function()
    local w1, b1 = start()
    local o1 = atomo.optim.adam {params = {w1, b1}, lr = 0.05}
    for _ = 1, 5 do step(o1, w1, b1) end
    local w2, b2 = atomo.param(w1:detach():clone()), atomo.param(b1:detach():clone())
    local o2 = atomo.optim.adam {params = {w2, b2}, lr = 0.01}
    o2:load_state_dict(o1:state_dict())
    for _ = 1, 5 do
      step(o1, w1, b1)
      step(o2, w2, b2)
    end
    assert.same(values(w1, b1), values(w2, b2))
  end)

  local function message(fn, ...)
    local ok, text = pcall(fn, ...)
    assert.is_false(ok)
    return text
  end

  it("refuse invalid arguments", function()
    local w, b = start()
    assert.matches("unknown option 'momentun'", message(atomo.optim.sgd, {params = {w}, lr = 1, momentun = 1}))
    assert.matches("lr is %-1", message(atomo.optim.sgd, {params = {w}, lr = -1}))
    assert.matches("'lr' is missing", message(atomo.optim.sgd, {params = {w}}))
    assert.matches("params is missing", message(atomo.optim.adam, {lr = 1}))
    assert.matches("nesterov needs momentum", message(atomo.optim.sgd, {params = {w}, lr = 1, nesterov = true}))
    assert.matches("listed twice", message(atomo.optim.sgd, {params = {b, b}, lr = 1}))
    assert.matches("no parameter", message(atomo.optim.sgd, {params = {atomo.zeros(2)}, lr = 1}))
  end)
end)

describe("gradient clipping", function()
  local function gradients()
    local w, b = start()
    w.grad, b.grad = atomo.tensor {{3, 0, 0}, {0, 4, 0}}, atomo.tensor {0, 0, -12}
    return w, b
  end

  it("by norm scales all together to the norm, and only down", function()
    local w, b = gradients()
    assert.equal(13, atomo.optim.clip_grad_norm({w, b}, 6.5))
    assert.is_near(2, w.grad:get(2, 2), 1e-5)
    assert.is_near(-6, b.grad:get(3), 1e-5)
    assert.is_near(6.5, atomo.optim.clip_grad_norm({w, b}, 100), 1e-5)
    assert.is_near(-6, b.grad:get(3), 1e-5)
    assert.is_near(6, atomo.optim.grad_norm({w, b}, math.huge), 1e-5)
    assert.is_near(1.5 + 2 + 6, atomo.optim.grad_norm({w, b}, 1), 1e-5)
  end)

  it("by value holds each element", function()
    local w, b = gradients()
    atomo.optim.clip_grad_value({w, b}, 3.5)
    assert.same({0, 0, -3.5}, b.grad:totable())
    assert.same({{3, 0, 0}, {0, 3.5, 0}}, w.grad:totable())
  end)

  it("refuses invalid arguments", function()
    local w, b = gradients()
    assert.error_matches(function() atomo.optim.clip_grad_norm({w, b, w}, 1) end, "parameter 3 is listed twice")
    assert.error_matches(function() atomo.optim.clip_grad_value({w, w}, 1) end, "parameter 2 is listed twice")
    assert.error_matches(function() atomo.optim.ema {params = {w, b, w}} end, "parameter 3 is listed twice")
    assert.has_error(function() atomo.optim.clip_grad_norm({}, 0) end)
    assert.has_error(function() atomo.optim.clip_grad_value(3, 1) end)
  end)
end)

describe("the average of weights", function()
  it("follows its formula, swaps in and out, and continues from its state", function()
    local w, b = start()
    local ema = atomo.optim.ema {params = {w, b}, decay = 0.75}
    local want = 0.3
    for i = 1, 4 do
      atomo.no_grad(function() b:fill_(i) end)
      ema:update()
      want = 0.75 * want + 0.25 * i
    end
    local inside = ema:with(function() return b:get(1) end)
    assert.is_near(want, inside, 1e-6)
    assert.equal(4, b:get(1))
    assert.equal(1, w:get(1, 1))
    local other = atomo.optim.ema {params = {w, b}, decay = 0.75}
    other:load_state_dict(ema:state_dict())
    assert.equal(4, other.updates)
    assert.is_near(want, other.averages[2]:get(1), 1e-6)
    assert.has_error(function() other:load_state_dict {updates = 1} end)
    assert.has_error(function() atomo.optim.ema {params = {w}, decay = 1} end)
  end)

  it("puts the weights back after an error", function()
    local w, b = start()
    local ema = atomo.optim.ema {params = {w}}
    assert.has_error(function() ema:with(function() error "x" end) end)
    local once = ema:with(function() return b:get(1) end)
    assert.equal(once, ema:with(function() return ema:with(function() return b:get(1) end) end))
    for _, name in ipairs {"update", "state_dict", "load_state_dict"} do -- would take averages for weights
      local ok, text = pcall(ema.with, ema, ema[name], ema, {})
      assert.is_false(ok)
      assert.matches("ema: " .. name .. ": the averages are in place of the weights", text)
    end
    assert.equal(1, w:get(1, 1))
  end)
end)

describe("no_decay_groups", function()
  it("lets biases and norms alone", function()
    local nn = atomo.nn
    local net = nn.Sequential {nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm(3), nn.Linear(3, 2)}
    local groups = atomo.optim.no_decay_groups(net)
    assert.equal(2, #groups[1].params)
    assert.equal(6, #groups[2].params)
    local o = atomo.optim.sgd {params = groups, lr = 0.1, weight_decay = 0.5}
    net[2].weight.grad:zero_()
    o:step()
    assert.equal(1, net[2].weight:get(1))
    assert.equal(0.5, o.groups[1].weight_decay)
  end)
end)

describe("40 steps of", function()
  for i, case in ipairs(dofile(root .. "tests/golden/schedule.lua")) do
    it(("schedule.%s (case %d) are PyTorch's"):format(case.name, i), function()
      local schedule = atomo.schedule[case.name](case.options)
      for s, want in ipairs(case.rates) do assert.is_near(want, schedule(s - 1), 1e-8) end
    end)
  end
end)

describe("schedules", function()
  local s = atomo.schedule
  it("follow their formulas", function()
    local cosine = s.cosine {lr = 1, steps = 10, warmup = 2}
    assert.equal(0.5, cosine(0))
    assert.is_true(math.abs(cosine(5) - 0.5) < 1e-12 and math.abs(cosine(10)) < 1e-12)
    assert.equal(0.1, s.step {lr = 1, every = 3}(3))
    assert.is_true(math.abs(s.multistep {lr = 1, milestones = {2, 4}}(4) - 0.01) < 1e-12)
    assert.equal(0.3, s.constant {lr = 0.3}(1e6))
    local cycle = s.one_cycle {lr = 1, steps = 10, rise = 0.1} -- the rise ends at step 0
    assert.is_true(cycle(0) == 1 and cycle(1) < 1 and math.abs(cycle(9) - 4e-6) < 1e-12)
  end)
  it("refuse missing options", function()
    assert.has_error(function() s.cosine {lr = 1} end)
    assert.has_error(function() s.one_cycle {lr = 1, steps = 9, rise = 1} end)
    assert.has_error(function() s.multistep {lr = 1} end)
  end)
end)
