-- Freezing: a parameter with requires_grad = false is left alone by backward, every optimizer and the training loop,
-- and kept in the state; modes that the user set stay. The exchange's part is in tests/mpi/train/freeze_spec.lua.
local atomo = require "atomo"
local nn = atomo.nn
local checkpoints = require "support.checkpoints"

local kinds = {"sgd", "adam", "adamw", "lars", "lamb"}

local function copy(model)
  local values = {}
  for name, t in pairs(model:state_dict()) do values[name] = t:totable() end
  return values
end

local function net()
  return nn.Sequential {nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, {relu = true}), nn.GlobalAvgPool(), nn.Dropout(0.5),
    nn.Linear(4, 10)}
end

local function train(model, optimizer, more)
  local data = atomo.data.synthetic {train = 24, test = 8}
  local o = {model = model, optimizer = optimizer, quiet = true,
    data = {train = atomo.data.loader {set = data.train, batch = 8, rank = 0, size = 1, seed = 1},
      test = atomo.data.loader {set = data.test, batch = 8, rank = 0, size = 1, shuffle = false}}}
  for key, value in pairs(more or {}) do o[key] = value end
  return atomo.train(o)
end

--- Runs a step on every parameter.
local function step(model, optimizer)
  optimizer:zero_grad()
  atomo.F.cross_entropy(model(atomo.randn(4, 6, 6, 3)), atomo.tensor({0, 1, 2, 3}, "i32")):backward()
  optimizer:step()
end

describe("a frozen parameter", function()
  before_each(function() atomo.manual_seed(3) end)

  it("is listed, saved and loaded, and counted", function()
    local a, b = net(), net()
    local n, names = a:num_parameters(), #a:named_parameters()
    a[1]:requires_grad_(false)
    a[5].weight.requires_grad = false
    assert.equal(n, a:num_parameters())
    assert.equal(names, #a:named_parameters())
    b:load_state_dict(a:state_dict())
    assert.same(copy(a), copy(b))
    a:load_state_dict(b:state_dict())
    assert.is_false(a[5].weight.requires_grad)
  end)

  it("gets no gradient, and earlier layers get theirs through it", function()
    local plain, model = net(), net()
    model:load_state_dict(plain:state_dict())
    for _, m in ipairs {model[2], model[5]} do
      for _, p in ipairs(m:parameters()) do
        p.grad = atomo.zeros(p:shape())
        p:zero_grad()
        p.requires_grad = false
      end
    end
    local x, labels = atomo.randn(4, 6, 6, 3), atomo.tensor({0, 1, 2, 3}, "i32")
    for _, m in ipairs {plain, model} do
      atomo.manual_seed(4)
      atomo.F.cross_entropy(m(x), labels):backward()
    end
    assert.same(plain[1].weight.grad:totable(), model[1].weight.grad:totable())
    for _, m in ipairs {model[2], model[5]} do
      for _, p in ipairs(m:parameters()) do assert.equal(0, p.grad:norm_value()) end
    end
  end)

  it("gets no gradient if it was frozen after forward, also where its .grad is known to be zero", function()
    for _, zeroed in ipairs {false, true} do
      local layer = nn.Linear(2, 2)
      if zeroed then
        for _, p in ipairs(layer:parameters()) do p.grad = atomo.ones(p:shape()) end
        layer:zero_grad()
      end
      local x = atomo.param {{1, 2}}
      local y = layer(x) * layer.weight:sum()
      layer.weight:requires_grad_(false)
      y:sum():backward()
      if zeroed then assert.equal(0, layer.weight.grad:norm_value()) else assert.is_nil(layer.weight.grad) end
      assert.is_true(layer.bias.grad:norm_value() > 0 and x.grad:norm_value() > 0)
    end
  end)

  for _, kind in ipairs(kinds) do
    it("takes no step of " .. kind .. ", and continues where it was", function()
      local model = net()
      local more = {params = model:parameters(), lr = 0.1, weight_decay = 0.1}
      if kind == "sgd" or kind == "lars" then more.momentum = 0.9 end
      local optimizer = atomo.optim[kind](more)
      step(model, optimizer)
      local last, group = model[5].weight, optimizer.groups[1]
      local at = #group.params - 1
      assert.is_true(group.params[at] == last)
      local function moments()
        local m = {}
        for name, views in pairs(group.views) do m[name] = views[at]:totable() end
        return m
      end
      local value, state = last:totable(), moments()
      assert.is_true(next(state) ~= nil)
      last.requires_grad = false
      for _ = 1, 3 do step(model, optimizer) end
      assert.same(value, last:totable())
      assert.same(state, moments())
      assert.equal(1, group.taken[at])
      assert.equal(4, group.taken[1])
      last:requires_grad_()
      step(model, optimizer)
      assert.is_false(value[1][1] == last:get(1, 1))
      assert.equal(2, group.taken[at])
    end)
  end

  it("may be frozen when the optimizer is made, and train later", function()
    local model = net()
    model[1]:freeze()
    local before = copy(model)
    local optimizer = atomo.optim.adam {params = model:parameters()}
    train(model, optimizer)
    local after = copy(model)
    assert.same(before["0.weight"], after["0.weight"])
    assert.is_false(before["4.weight"][1][1] == after["4.weight"][1][1])
    model[1]:unfreeze()
    train(model, optimizer)
    assert.is_false(before["0.weight"][1][1][1][1] == copy(model)["0.weight"][1][1][1][1])
  end)

  it("stays in checkpoints, also when it was frozen in mid-run", function()
    local path = checkpoints.path()
    local function run(more)
      atomo.manual_seed(7)
      local model = net()
      model[1].bias.requires_grad = false
      more.epochs = more.epochs or 3
      more.on_epoch = function(info) model[5].weight.requires_grad = info.epoch ~= 1 end
      if more.resume then model[5].weight.requires_grad = false end
      train(model, atomo.optim.adamw {params = model:parameters(), weight_decay = 0.1}, more)
      return copy(model)
    end
    local whole = run {}
    run {epochs = 1, save = path}
    assert.same(whole, run {resume = path})
    checkpoints.remove(path)
  end)

  it("that is all there is, is refused", function()
    local model = net():freeze()
    local ok, text = pcall(train, model, atomo.optim.sgd {params = model:parameters(), lr = 1})
    assert.is_false(ok)
    assert.matches("no parameter of the optimizer trains", text)
  end)

  it("of a result of an operator is refused", function()
    local ok, text = pcall(function() (atomo.param {1} * 2):requires_grad_(false) end)
    assert.is_false(ok)
    assert.matches("the result of an operator", text)
  end)
end)

describe("modes that the user set", function()
  --- Trains; returns the batch norm's statistics before and after.
  local function statistics(prepare, more)
    local model = net()
    train(model, atomo.optim.sgd {params = model:parameters(), lr = 0.1})
    model = prepare(model) or model
    local bn = model[2] or model.body[2]
    local before = bn.running_mean:totable()
    train(model, atomo.optim.sgd {params = model:parameters(), lr = 0.1}, more)
    return before, bn.running_mean:totable(), model
  end

  it("stay through training and its evaluations: bn:eval()", function()
    local before, after, model = statistics(function(m) m[2]:eval() end, {epochs = 3})
    assert.same(before, after)
    assert.is_true(model.training and model[4].training)
    assert.is_false(model[2].training)
  end)

  it("stay, set between epochs", function()
    local model, before = net(), nil
    train(model, atomo.optim.sgd {params = model:parameters(), lr = 0.1}, {epochs = 3, on_epoch = function(info)
      if info.epoch == 1 then
        model[2]:eval()
        before = model[2].running_mean:totable()
      end
    end})
    assert.same(before, model[2].running_mean:totable())
  end)

  it("of a frozen module stay whatever is called", function()
    local before, after, model = statistics(function(m)
      m[2]:freeze()
      m:eval():train()
    end)
    assert.same(before, after)
    assert.is_false(model[2].training)
    assert.is_true(model[2]:unfreeze().training)
  end)

  it("by a class of its own stay", function()
    local Own = nn.Module:extend "Own"
    function Own:init(body) self.body = body end
    function Own:forward(x) return self.body(x) end
    function Own:train(on)
      nn.Module.train(self, on)
      self.body[2]:eval()
      return self
    end
    local before, after = statistics(function(m) return Own(m) end)
    assert.same(before, after)
    local outer = nn.Sequential {Own(net())}
    outer:train()
    assert.is_true(outer[1].body[4].training)
    assert.is_false(outer[1].body[2].training)
  end)

  it("of a network in evaluation mode as a whole: it trains", function()
    local before, after = statistics(function(m) m:eval() end)
    assert.is_false(before[1] == after[1])
  end)

  it("come back after an error in an evaluation", function()
    local model = net()
    model[2]:eval()
    assert.has_error(function() model:evaluating(error, "no") end)
    assert.is_true(model.training and model[4].training)
    assert.is_false(model[2].training)
    assert.same({false, 3}, {model:evaluating(function(a) return model[4].training, a end, 3)})
  end)

  it("stay those of freeze() and unfreeze() in an evaluation", function()
    local model = net()
    model:evaluating(function() model[2]:freeze() end)
    assert.is_false(model[2].training)
    assert.is_true(model.training)
    model:train()
    assert.is_false(model[2].training)
    model[2]:unfreeze()
    assert.is_true(model[2].training)
    model[2]:freeze()
    model:evaluating(function() model[2]:unfreeze() end)
    assert.is_true(model[2].training)
    model[2]:freeze()
    model:evaluating(function() assert.is_false(model[2].training) end)
    model[2]:unfreeze()
    assert.is_true(model[2].training)
  end)
end)
