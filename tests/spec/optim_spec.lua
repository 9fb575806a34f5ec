-- Optimizers against PyTorch's trajectories (golden/make_optim.py), parameter groups, state, schedules.
local atomo = require "atomo"
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local golden = dofile(here .. "/../golden/optim.lua")

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

  it("refuse what makes no sense", function()
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

describe("schedules", function()
  local s = atomo.schedule
  it("follow their formulas", function()
    local cosine = s.cosine {lr = 1, steps = 10, warmup = 2}
    assert.equal(0.5, cosine(0))
    assert.is_true(math.abs(cosine(5) - 0.5) < 1e-12 and math.abs(cosine(10)) < 1e-12)
    assert.equal(0.1, s.step {lr = 1, every = 3}(3))
    assert.is_true(math.abs(s.multistep {lr = 1, milestones = {2, 4}}(4) - 0.01) < 1e-12)
    assert.equal(0.3, s.constant {lr = 0.3}(1e6))
  end)
  it("refuse missing options", function()
    assert.has_error(function() s.cosine {lr = 1} end)
    assert.has_error(function() s.multistep {lr = 1} end)
  end)
end)
