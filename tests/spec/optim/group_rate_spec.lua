-- The learning rate of a group: the step uses what the user sets, before or after a common rate, with a schedule, with
-- a common rate of 0, and after loading a checkpoint.
local atomo = require "atomo"

local function two(lr, first, second)
  local a, b = atomo.param {0}, atomo.param {0}
  local o = atomo.optim.sgd {lr = lr, params = {{params = {a}, lr = first}, {params = {b}, lr = second}}}
  return o, function(common)
    if common then o.lr = common end
    local x, y = a:get(1), b:get(1)
    a.grad:fill_(-1)
    b.grad:fill_(-1)
    o:step()
    return a:get(1) - x, b:get(1) - y
  end
end

local function near(first, second, x, y)
  assert.is_near(first, x, 1e-6)
  assert.is_near(second, y, 1e-6)
end

describe("groups[i].lr", function()
  it("set later is used", function()
    local o, step = two(0.1)
    near(0.1, 0.1, step())
    o.groups[2].lr = 0.5
    near(0.1, 0.5, step())
    near(0.1, 0.5, step(0.1)) -- as atomo.train without a schedule sets it
    o.groups[2].lr = 0
    near(0.1, 0, step())
  end)

  it("keeps its ratio under a schedule, as it was given or set", function()
    local o, step = two(0.1, nil, 0.2)
    near(0.05, 0.1, step(0.05))
    o.groups[1].lr = 0.15 -- three times the common one
    near(0.15, 0.1, step())
    near(0.3, 0.2, step(0.1))
    near(0, 0, step(0))
    near(0.06, 0.04, step(0.02))
  end)

  it("is used unchanged together with another common rate", function()
    local o, step = two(0.1)
    o.groups[1].lr = 0.7
    near(0.7, 0.2, step(0.2))
    near(0.35, 0.1, step(0.1))
  end)

  it("under a common lr of 0 is used, and stays", function()
    local o, step = two(0, 0.3)
    near(0.3, 0, step())
    near(0.3, 0.1, step(0.1))
    o.lr = 0
    o.groups[2].lr = 0.4
    near(0.3, 0.4, step())
    near(0.3, 0.4, step(1))
  end)

  it("in atomo.train is used, with a schedule and without", function()
    for _, schedule in ipairs {false, atomo.schedule.constant {lr = 0.1}} do
      atomo.manual_seed(1)
      local model = atomo.nn.Sequential {atomo.nn.GlobalAvgPool(), atomo.nn.Linear(3, 10)}
      local set = atomo.data.synthetic {train = 8, test = 1}.train
      local o = atomo.optim.sgd {lr = 0.1, params = {{params = {model[2].weight}}, {params = {model[2].bias}}}}
      local bias
      atomo.train {model = model, optimizer = o, quiet = true, eval_every = 0, schedule = schedule or nil,
        data = {train = atomo.data.loader {set = set, batch = 4}}, on_step = function(info)
          if info.step == 1 then
            bias = model[2].bias:totable()
            o.groups[2].lr = 0
          end
        end}
      assert.same(bias, model[2].bias:totable())
    end
  end)

  it("is saved in the state if it was set", function()
    local o, step = two(0.1, nil, 0.2)
    step()
    assert.is_nil(o:state_dict()["2.lr"])
    o.groups[2].lr = 0.5
    step()
    local again, step_again = two(0.1, nil, 0.2)
    again:load_state_dict(o:state_dict())
    near(0.1, 0.5, step_again())
    near(0.2, 1, step_again(0.2))
    local zero = two(0, 0.3)
    zero.groups[2].lr = 0.4
    again:load_state_dict(zero:state_dict())
    near(0, 0.4, step_again())
  end)

  local function fails(text, fn)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    assert.truthy(tostring(message):find(text, 1, true), message)
  end

  it("that is invalid is refused, as are unknown options and options in the wrong place", function()
    for _, v in ipairs {-1, 0 / 0, math.huge, "fast"} do
      local o, step = two(0.1)
      o.groups[1].lr = v
      fails("sgd: lr is ", step)
    end
    local o = two(0.1)
    o.groups[1].lr = nil
    fails("sgd: lr is nil", function() o:step() end)
    o = two(0.1)
    fails("unknown option 'betas'", function() o.groups[1].betas = {0.9, 0.9} end)
    fails("unknown option 'momentun'", function() o.groups[1].momentun = 0.9 end)
    fails("set it of a group, optimizer.groups[i].momentum", function() o.momentum = 0.9 end)
    o.lr = -1
    fails("sgd: lr is -1", function() o:step() end)
    o = two(0.1)
    o.groups[1].momentum = -1
    fails("sgd: momentum is -1", function() o:step() end)
  end)

  it("and another option set later is used", function()
    local w = atomo.param {1}
    local o = atomo.optim.sgd {params = {w}, lr = 0.1}
    o.groups[1].weight_decay = 0.5
    o:step()
    assert.is_near(0.95, w:get(1), 1e-6)
  end)
end)

describe("load_state_dict of an optimizer", function()
  local function taken(kind)
    local w = atomo.param {1, 2}
    local o = atomo.optim[kind] {params = {w}, lr = 0.1}
    w.grad:fill_(1)
    o:step()
    return o, w
  end

  it("refuses another optimizer's state, incomplete and misshapen ones, and changes nothing then", function()
    local o, w = taken "adam"
    local before = o.groups[1].state.first:totable()
    local cases = {
      {"'1.velocity' is no state of adam", {steps = 1, lr = 1, ["1.velocity"] = atomo.zeros(16)}},
      {"'1.second' is missing", {steps = 1, lr = 1, ["1.first"] = atomo.zeros(16)}},
      {"'1.first' has 3 elements", {steps = 1, lr = 1, ["1.first"] = atomo.zeros(3)}},
      {"'2.first' belongs to no group", {steps = 1, lr = 1, ["2.first"] = atomo.zeros(16)}},
      {"'1.shapes' is [2,1], this group's parameters are [2]",
        {steps = 1, lr = 1, ["1.shapes"] = atomo.tensor({2, 2, 1}, "i32")}},
      {"'1.shapes' is no shapes", {steps = 1, lr = 1, ["1.shapes"] = atomo.tensor({2, 2}, "i32")}},
      {"'1.shapes' is no shapes", {steps = 1, lr = 1, ["1.shapes"] = "[2]"}},
      {"steps and lr are missing", {}},
    }
    for _, case in ipairs(cases) do
      local ok, message = pcall(o.load_state_dict, o, case[2])
      assert.is_false(ok)
      assert.truthy(tostring(message):find(case[1], 1, true), message)
    end
    assert.same(before, o.groups[1].state.first:totable())
    assert.equal(1, o.steps)
    assert.is_near(0.9, w:get(1), 1e-6)
  end)
end)

it("the state of parameters of other shapes and the same padded size is refused", function()
  local function made(...)
    local params = {}
    for i, sizes in ipairs {...} do params[i] = atomo.param(atomo.zeros(sizes)) end
    return atomo.optim.sgd {params = params, lr = 0.1, momentum = 0.9}
  end
  local o = made({3, 4}, {5})
  for _, p in ipairs(o.params) do p.grad:fill_(1) end
  o:step()
  local state = o:state_dict()
  made({3, 4}, {5}):load_state_dict(state)
  for _, other in ipairs {{{4, 3}, {5}}, {{5}, {3, 4}}, {{3, 4}, {6}}, {{2, 4}, {5}}} do
    local ok, message = pcall(o.load_state_dict, made(unpack(other)), state)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("'1.shapes' is [3,4] [5], this group's parameters are ", 1, true), message)
  end
end)
