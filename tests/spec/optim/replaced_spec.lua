-- A parameter or module that is replaced after the optimizer was made is refused: the optimizer would update one
-- tensor, the model compute with another.
local atomo = require "atomo"
local nn, optim = atomo.nn, atomo.optim

--- Returns a model, its optimizer and a function that takes a training step.
local function training(make, kind)
  local model = make()
  local o = optim[kind or "sgd"] {params = model:parameters(), lr = 0.1}
  return model, o, function()
    o:zero_grad()
    model(atomo.ones(2, 3)):square():sum():backward()
    o:step()
  end
end

local function two_layers() return nn.Sequential {nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)} end

local function refused(step, o, text)
  local steps = o.steps
  collectgarbage() -- what was replaced is garbage for the user
  collectgarbage()
  local ok, message = pcall(step)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
  assert.equal(steps, o.steps)
end

describe("an optimizer refuses", function()
  for _, kind in ipairs {"sgd", "adam", "adamw", "lars", "lamb"} do
    it("a weight that was replaced: " .. kind, function()
      local model, o, step = training(two_layers, kind)
      step()
      local old, bias = model[1].weight, model[1].bias:clone()
      model[1].weight = atomo.param(atomo.ones(4, 3))
      refused(step, o, kind .. ": parameter 1 was in 'weight' of a Linear")
      assert.equal(0, (model[1].bias - bias):norm_value()) -- nothing was updated
      model[1].weight = old
      step()
      model[1].weight = atomo.param(atomo.ones(4, 3))
      o = optim[kind] {params = model:parameters(), lr = 0.1}
      o:zero_grad()
      model(atomo.ones(2, 3)):sum():backward()
      o:step()
    end)
  end

  it("a module that was replaced, in a Sequential, in a field and further up", function()
    local model, o, step = training(two_layers)
    model[3] = nn.Linear(4, 5)
    refused(step, o, "parameter 3 was in '3' of a Sequential")

    local Net = nn.Module:extend "Net"
    function Net:init() self.body, self.head = two_layers(), nn.Linear(2, 2) end
    function Net:forward(x) return self.head(self.body(x)) end
    model, o, step = training(Net)
    step()
    model.head = nn.Linear(2, 3)
    refused(step, o, "was in 'head' of a Net")
    model, o, step = training(Net)
    model.body = two_layers()
    refused(step, o, "was in 'body' of a Net")
  end)

  it("no tie of which one end was replaced, nothing that was taken away, no model used by itself", function()
    local Tied = nn.Module:extend "Tied"
    function Tied:init()
      self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
      self.b.weight = self.a.weight
    end
    function Tied:forward(x) return self.b(self.a(x)) end
    local model, o, step = training(Tied)
    step()
    model.b.weight = atomo.param(atomo.ones(3, 3))
    step()
    model.a.weight = atomo.param(atomo.ones(3, 3))
    refused(step, o, "parameter 1 was in 'weight' of a Linear")

    model, o, step = training(two_layers)
    model[1].bias = nil
    step()
    assert.equal(1, o.steps)

    model, o, step = training(two_layers)
    local outer = nn.Sequential {model, nn.Linear(2, 2)}
    assert.equal(6, #outer:parameters())
    outer[1] = nn.Linear(3, 2)
    step()
    assert.equal(1, o.steps)

    local Listed = nn.Module:extend "Listed"
    function Listed:init() self.blocks = {nn.Linear(3, 3), nn.Linear(3, 3)} end
    function Listed:forward(x) return self.blocks[2](self.blocks[1](x)) end
    o, step = select(2, training(Listed))
    step()
    assert.equal(1, o.steps)
  end)

  it("a module that was replaced though it is held by its own parts, and no such module while it is there", function()
    local Part, Whole, Top = nn.Module:extend "Part", nn.Module:extend "Whole", nn.Module:extend "Top"
    function Part:init(whole) self.whole, self.layer = whole, nn.Linear(3, 2) end
    function Part:forward(x) return self.layer(x) end
    function Whole:init() self.one, self.two = Part(self), Part(self) end
    function Whole:forward(x) return self.one(x) + self.two(x) end
    function Top:init() self.whole = Whole() end
    function Top:forward(x) return self.whole(x) end
    for _ = 1, 20 do -- the order in which holders are met differs
      local model, o, step = training(Top)
      step()
      model.whole = Whole()
      refused(step, o, "was in 'whole' of a Top")
    end
  end)

  it("a module that was replaced in a plain table, at any depth", function()
    local Listed = nn.Module:extend "Listed"
    function Listed:init() self.blocks = {{nn.Linear(3, 3)}, {nn.Linear(3, 3), head = nn.Linear(3, 2)}} end
    function Listed:forward(x) return self.blocks[2].head(self.blocks[2][1](self.blocks[1][1](x))) end
    local model, o, step = training(Listed)
    step()
    model.blocks[2].head = nn.Linear(3, 2)
    refused(step, o, "parameter 5 was in 'head' in '2' in 'blocks' of a Listed")
    model, o, step = training(Listed)
    model.blocks[1] = {nn.Linear(3, 3)}
    refused(step, o, "parameter 1 was in '1' in 'blocks' of a Listed")
    model, o, step = training(Listed)
    model.blocks = {model.blocks[1], model.blocks[2]} -- another table, the same modules
    step()
    assert.equal(1, o.steps)
  end)

  it("a module whose own parameters or state were asked for: by a group, a checkpoint, a file", function()
    for _, ask in ipairs {function(m) return m.body:parameters() end, function(m) return m.body:state_dict() end} do
      local model, o, step = training(function()
        local m = nn.Sequential {}
        m.body, m.head = two_layers(), nn.Linear(2, 2)
        m.forward = function(self, x) return self.head(self.body(x)) end
        return m
      end)
      ask(model)
      step()
      model.body = two_layers()
      refused(step, o, "was in 'body' of a Sequential")
    end

    local Net = nn.Module:extend "Net"
    function Net:init() self.body, self.head = two_layers(), nn.Linear(2, 2) end
    function Net:forward(x) return self.head(self.body(x)) end
    local model = Net()
    assert.equal(6, #model:parameters())
    local o = optim.sgd {lr = 0.1, params = {{params = model.body:parameters(), lr = 0.01},
      {params = model.head:parameters()}}}
    local function step()
      o:zero_grad()
      model(atomo.ones(2, 3)):square():sum():backward()
      o:step()
    end
    step()
    model.head = nn.Linear(2, 2)
    refused(step, o, "parameter 5 was in 'head' of a Net")

    local saved, again = training(function() return nn.Sequential {nn.Checkpoint(two_layers()), nn.Linear(2, 2)} end)
    saved[1](atomo.ones(2, 3))
    o = optim.sgd {params = saved:parameters(), lr = 0.1}
    assert.is_table(again)
    saved[1] = nn.Checkpoint(two_layers())
    refused(function() o:step() end, o, "was in '1' of a Sequential")
  end)

  it("no parameter whose module nobody has any more", function()
    local list = two_layers():parameters()
    collectgarbage()
    collectgarbage()
    local o = optim.sgd {params = list, lr = 0.1}
    for _, p in ipairs(list) do p.grad = atomo.ones(p:shape()) end
    o:step()
    assert.equal(1, o.steps)
  end)
end)

describe("an optimizer whose lists were changed", function()
  it("refuses the step: an added parameter would not be trained", function()
    for _, change in ipairs {
      {function(o, p) table.insert(o.params, p) end,
        "optimizer.params has 5 parameters, the optimizer was made with 4"},
      {function(o, p) table.insert(o.groups[1].params, p) end,
        "groups[1].params has 5 parameters, the group was made with 4"},
      {function(o) table.remove(o.groups[1].params) end, "groups[1].params has 3 parameters"},
    } do
      local _, o, step = training(two_layers)
      step()
      change[1](o, atomo.param {1})
      refused(step, o, change[2])
    end
  end)
end)

describe("an average of weights refuses", function()
  it("a state with averages of others", function()
    local a, b = atomo.param {1}, atomo.param {2}
    local state = optim.ema({params = {a, b}}):state_dict()
    local ema = optim.ema {params = {a}}
    local ok, message = pcall(ema.load_state_dict, ema, state)
    assert.is_false(ok)
    assert.truthy(tostring(message):find("'2' belongs to no average, there are 1", 1, true), tostring(message))
  end)

  it("a weight that was replaced, and takes back what it has put in place before", function()
    local model = two_layers()
    local ema = optim.ema {params = model:parameters(), decay = 0.5}
    ema:update()
    local old = model[1].weight
    model[1].weight = atomo.param(atomo.ones(4, 3))
    for _, call in ipairs {function() ema:update() end, function() ema:swap() end, function() ema:with(print) end} do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.truthy(tostring(message):find("ema: parameter 1 was in 'weight' of a Linear", 1, true), tostring(message))
    end
    assert.equal(1, ema.updates)
    model[1].weight = old
    ema:with(function() model[1].weight = atomo.param(atomo.ones(4, 3)) end)
    assert.is_false(ema.swapped)
  end)
end)

describe("atomo.train refuses", function()
  it("a head that a hook replaced", function()
    local model = nn.Sequential {nn.Flatten(), nn.Linear(32 * 32 * 3, 10)}
    local data = atomo.data.synthetic({train = 16, test = 8}).train
    local ok, message = pcall(atomo.train, {model = model, quiet = true, epochs = 2,
      data = {train = atomo.data.loader {set = data, batch = 8}},
      optimizer = optim.sgd {params = model:parameters(), lr = 0.1},
      on_step = function(info) if info.step == 1 then model[2] = nn.Linear(32 * 32 * 3, 10) end end})
    assert.is_false(ok)
    assert.truthy(tostring(message):find("was in '2' of a Sequential", 1, true), tostring(message))
  end)
end)
