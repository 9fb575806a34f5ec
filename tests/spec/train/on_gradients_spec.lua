-- on_gradients of atomo.train: the hook on this rank's gradients between backward and exchange.
local atomo = require "atomo"
local fails = require("support.codec").fails
local nn = atomo.nn

--- Trains a small network; returns its parameters as one list of numbers, and the result. more: options.
local function train(more)
  atomo.manual_seed(1)
  local x, y = atomo.randn(24, 6), atomo.arange(24):int()
  for i = 1, 24 do y:set(i, i % 3) end
  local net = nn.Sequential {nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)}
  local o = {model = net, data = atomo.data.tensors {x = x, y = y, batch = 6}, epochs = 1, quiet = true,
    optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1}}
  for key, value in pairs(more or {}) do o[key] = value end
  local info = atomo.train(o)
  local list = {}
  for _, p in ipairs(net:parameters()) do
    for _, v in ipairs(p:contiguous():view(-1):totable()) do list[#list + 1] = v end
  end
  return list, info
end

local function each(gradients, fn)
  for _, g in pairs(gradients) do fn(g) end
end

describe("on_gradients", function()
  local plain
  setup(function() plain = train() end)

  it("gets all gradients by name, once a step, and leaves the run as it is if it changes nothing", function()
    local steps, names = {}, {}
    local got = train {on_gradients = function(gradients, info)
      steps[#steps + 1] = info.step
      assert.same({0, 0.1}, {info.rank, info.lr})
      for name, g in pairs(gradients) do names[name] = g:numel() end
    end}
    assert.same(plain, got)
    assert.same({1, 2, 3, 4}, steps)
    assert.same({["0.weight"] = 30, ["0.bias"] = 5, ["2.weight"] = 15, ["2.bias"] = 3}, names)
  end)

  it("runs once for a step of micro-batches, and before each local update", function()
    local calls = 0
    local function count() calls = calls + 1 end
    train {accumulate = 2, on_gradients = count}
    assert.equal(2, calls)
    train {local_steps = 2, on_gradients = count}
    assert.equal(6, calls)
  end)

  it("changes what is exchanged, and clipping follows", function()
    assert.same(train {schedule = function() return 0.2 end}, train {on_gradients = function(gradients)
      each(gradients, function(g) g:mul_(2) end)
    end})
    local clipped, scaled = train {clip_norm = 1e-3}, train {clip_norm = 1e-3, on_gradients = function(gradients)
      each(gradients, function(g) g:mul_(1024) end)
    end}
    for i, v in ipairs(clipped) do assert.is_true(math.abs(v - scaled[i]) < 1e-6) end
    local still = train {on_gradients = function(gradients) each(gradients, function(g) g:zero_() end) end}
    assert.same(train {epochs = 0}, still)
  end)

  it("that makes a gradient NaN gives the step up", function()
    local function spoil(gradients, info)
      if info.step == 2 then gradients["0.bias"]:fill_(0 / 0) end
    end
    fails("gradient of 0.bias: 5 of 5 entries are NaN or Inf", train, {on_gradients = spoil})
    local _, info = train {on_gradients = spoil, nonfinite = "skip"}
    assert.equal(1, info.skipped)
  end)

  it("that replaces or frees a gradient is refused by name", function()
    fails("gradient of 2.bias was replaced; change it in place", train, {on_gradients = function(gradients)
      gradients["2.bias"] = atomo.zeros(3)
    end})
    fails("on_gradients is 'clip', a string, expected a function", train, {on_gradients = "clip"})
  end)
end)
