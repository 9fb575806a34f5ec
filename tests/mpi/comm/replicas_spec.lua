-- Replicas that differ: state that must be equal on all ranks is broadcast at the start, or compared at the start,
-- after a load and by check_replicas; an error names what differs.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
local odd = world.rank == world.size - 1
local checkpoints = require "support.checkpoints"

local Net = nn.Module:extend "Net"
function Net:init()
  self.drop = nn.Sequential {nn.Identity(), nn.Dropout(0.1)}
  self.body = nn.Sequential {nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GlobalAvgPool()}
  self.scale = atomo.param(atomo.ones(4)) -- no optimizer has it
  self.head = nn.Linear(4, 10)
end
function Net:forward(x) return self.head(self.drop(self.body(x) * self.scale)) end

local function loader(seed, size)
  local data = atomo.data.synthetic {train = 8 * world.size, test = 4, seed = seed}
  return atomo.data.loader {set = data.train, batch = 4, rank = size == 1 and 0 or world.rank,
    size = size or world.size, seed = 1}
end

--- Trains two steps. o: prepare(model, optimizer), step(info, model, optimizer), options of atomo.train.
local function train(o)
  atomo.manual_seed(3 + world.rank) -- different weights on every rank
  local model = Net()
  local trained = model.body:parameters()
  for _, p in ipairs(model.head:parameters()) do trained[#trained + 1] = p end
  local optimizer = atomo.optim.adam {params = trained, lr = 0.01}
  model.body[1].bias.requires_grad = false
  local run = {model = model, optimizer = optimizer, quiet = true, eval_every = 0, data = {train = o.data or loader(1)},
    exchange = o.exchange or atomo.exchange {comm = o.comm, overlap = false}, check_replicas = 1}
  for _, key in ipairs {"save", "resume", "check_replicas", "epochs", "local_steps", "loss"} do
    if o[key] ~= nil then run[key] = o[key] end
  end
  if o.prepare then o.prepare(model, optimizer, run) end
  if o.step then run.on_step = function(info) o.step(info, model, optimizer) end end
  atomo.train(run)
  return model, optimizer
end

--- Asserts that training with o raises on all ranks, with an error that contains all given texts.
local function named(what, o, ...)
  local texts = {...}
  it(what, function()
    if world.size == 1 then return pending "one rank agrees with itself" end
    if type(o) == "function" then o = o() end
    local ok, message = pcall(train, o)
    assert(not ok, "no error")
    for _, text in ipairs(texts) do
      assert(tostring(message):find(text, 1, true), ("expected %q in: %s"):format(text, tostring(message)))
    end
    if o.path then checkpoints.remove_own(o.path) end
  end)
end

local last = ("rank %d has '"):format(world.size - 1)

describe("at the start rank 0 sends", function()
  it("parameters in the optimizer and outside, frozen ones, and buffers", function()
    local model = train {prepare = function(m)
      atomo.no_grad(function()
        m.scale:fill_(2 + world.rank)
        m.body[1].bias:fill_(3 + world.rank)
      end)
      m.body[2].running_mean:fill_(world.rank)
      m.body[2]:eval() -- in evaluation mode, so it is not updated
    end}
    assert.equal(2, model.scale:get(1))
    assert.equal(3, model.body[1].bias:get(1))
    assert.equal(0, model.body[2].running_mean:get(1))
    for _, entry in ipairs(model:named_parameters()) do
      local mine = entry[2]:detach():clone()
      world:bcast(mine, 0)
      assert.same(mine:totable(), entry[2]:totable(), entry[1])
    end
  end)

  it("parameters that only the optimizer knows", function()
    local outside = atomo.param {world.rank, 5}
    local optimizer, trained
    local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, 10)}
    trained = model:parameters()
    trained[3] = outside
    optimizer = atomo.optim.sgd {params = trained, lr = 0.01}
    atomo.train {model = model, optimizer = optimizer, quiet = true, eval_every = 0, data = {train = loader(1)},
      exchange = atomo.exchange {overlap = false}}
    assert.same({0, 5}, outside:totable())
    if world.size == 1 then return end
    local ok, text = pcall(atomo.train, {model = model, optimizer = optimizer, quiet = true, eval_every = 0,
      data = {train = loader(1)}, exchange = atomo.exchange {overlap = false}, check_replicas = 1,
      on_step = function() if odd then outside:data()[1] = 7 end end})
    assert.is_false(ok)
    assert.matches("parameter 3 of the optimizer = crc", text)
  end)

  it("and batch norm's statistics may differ later", function()
    assert.is_true(pcall(train, {epochs = 2}))
  end)
end)

describe("at the start training names", function()
  named("an optimizer that has taken more steps", {prepare = function(_, o) if odd then o.steps = 4 end end},
    "train: at the start: a value differs: rank 0 has 'optimizer steps = 0'", last .. "optimizer steps = 4'")
  named("another state of the optimizer", {prepare = function(m, o)
    for _, p in ipairs(m:parameters()) do p.grad = atomo.full(p:shape(), odd and 2 or 1) end
    o:step()
  end}, "rank 0 has 'optimizer 1.first = crc ", last .. "optimizer 1.first = crc ", "on every rank")
  named("another rate of a group", {prepare = function(_, o) if odd then o.groups[1].lr = 0.5 end end},
    "group 1: lr = 0.5")
  named("a parameter that is frozen on some ranks only", {prepare = function(m) if odd then m.head:freeze() end end},
    "head.weight [10,4], frozen'")
  named("other data", function() return {data = loader(odd and 2 or 1)} end, "data: images = u8 [", "crc")
  named("an exchange that has taken more steps", function()
    local ex = atomo.exchange {}
    if odd then ex:set_step(3) end
    return {exchange = ex}
  end, "steps of the exchange = 0", last .. "steps of the exchange = 3'")

  it("nothing of data that is not shared out", function() train {data = loader(world.rank + 1, 1)} end)
end)

describe("after a step training names", function()
  local function changed(what, change, ...)
    named(what, {step = function(info, m, o) if odd and info.step == 1 then change(m, o) end end},
      "replicas after step 1: a value differs: rank 0 has '", ...)
  end
  changed("a parameter in no optimizer", function(m) m.scale:data()[0] = 7 end, "scale = crc")
  changed("a frozen parameter", function(m) m.body[1].bias:data()[0] = 7 end, "body.0.bias = crc")
  changed("a parameter in the optimizer", function(m) m.head.bias:data()[0] = 7 end, "head.bias = crc")
  changed("the optimizer's state", function(_, o) o.groups[1].state.second:fill_(1) end, "optimizer 1.second = crc")
  changed("the optimizer's steps", function(_, o) o.steps = 9 end, "optimizer steps = 1", "optimizer steps = 9")
  changed("a loaded state", function(m) m:load_state_dict(Net():state_dict()) end, "body.0.weight = crc")

  changed("a layer's mode", function(m) m.drop[2]:eval() end, "layer 'drop.1' = Dropout(p=0.1) in training mode",
    last:sub(1, -2), "in evaluation mode")
  changed("the mode of a norm that is frozen", function(m) m.body[2]:freeze() end, "layer 'body.1' = BatchNorm2d",
    "in evaluation mode")
  changed("the whole model's mode", function(m) m:eval() end, "model = Net", "in evaluation mode")
  changed("the mode of a class of the user's", function(m) rawset(m, "training", false) end, "model = Net",
    "in evaluation mode")
  changed("a layer's option", function(m) m.drop[2].p = 0.3 end, "Dropout(p=0.1)", last:sub(1, -2), "Dropout(p=0.3)")
  changed("an option of a norm", function(m) m.body[2].momentum = 0.5 end, "momentum=0.1", "momentum=0.5")
  changed("which parameters are frozen", function(m) m.scale.requires_grad = false end, "scale frozen = false",
    "scale frozen = true")
  named("an option of the loss", function()
    local loss = nn.CrossEntropyLoss {label_smoothing = 0.1}
    return {loss = loss, step = function(info)
      if odd and info.step == 1 then loss.opts.label_smoothing = 0.2 end
    end}
  end, "replicas after step 1: a value differs: rank 0 has 'loss = ", "label_smoothing = 0.2")

  it("by itself at the end of an epoch, unless told not to", function()
    local function run(check)
      return pcall(train, {check_replicas = check, step = function(info, m)
        if odd and info.step == 1 then m.scale:data()[0] = 7 end
      end})
    end
    assert.is_true((run(false)))
    local ok, text = run(1000)
    assert.equal(world.size == 1, ok)
    if not ok then assert.matches("replicas after step 2", text) end
  end)
end)

describe("a resumed run names", function()
  named("a file that is not the other ranks'", function()
    local path = os.tmpname() .. ".checkpoints"
    local alone = world:split(world.rank)
    train {save = path, comm = alone, data = loader(1, 1), step = function(_, m)
      if odd then m.scale:data()[0] = 7 end
    end}
    alone:close()
    return {resume = path, epochs = 2, path = path}
  end, "the ranks read other manifests")
end)

describe("a run whose objects change a layer on one rank when they are loaded", function()
  teardown(checkpoints.remove_all)

  it("names the layer", function()
    if world.size == 1 then return pending "one rank agrees with itself" end
    local path, loaded = checkpoints.path(), nil
    local function counter(m)
      return {state_dict = function() return {n = 1} end, load_state_dict = function()
        loaded = true
        if odd then m.drop[2]:eval() end
      end}
    end
    train {save = path, prepare = function(m, _, run) run.state = {counter = counter(m)} end}
    local ok, text = pcall(train, {resume = path, epochs = 2, prepare = function(m, _, run)
      run.state = {counter = counter(m)}
    end})
    assert.is_true(loaded)
    assert.is_false(ok)
    assert.matches("train: after resuming: a value differs: rank 0 has 'layer 'drop.1' = Dropout%(p=0.1%)", text)
    assert.matches(last .. "layer 'drop.1' = Dropout%(p=0.1%) in evaluation mode", text)
  end)
end)

describe("exchange:check_replicas", function()
  it("takes tensors, tables, models, optimizers and averages of weights", function()
    if world.size == 1 then return end
    local ex = atomo.exchange {overlap = false}
    local function check(v, text)
      local ok, message = pcall(ex.check_replicas, ex, v, "mine")
      assert.equal(text == nil, ok, message)
      if text then assert.truthy(tostring(message):find(text, 1, true), message) end
    end
    atomo.manual_seed(1)
    local model = nn.Linear(2, 2)
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1, momentum = 0.5}
    local ema = atomo.optim.ema {params = model:parameters()}
    for _, v in ipairs {model, optimizer, ema, model.weight, {a = model.bias, b = 3}} do check(v) end
    if odd then
      atomo.no_grad(function() model.bias:fill_(3) end)
      ema:update()
      optimizer.steps = 2
    end
    check(model, "replicas of mine after step 0: a value differs: rank 0 has 'bias = crc")
    check(optimizer, "steps = 2")
    check(ema, "updates = 0")
    check(model.bias, "tensor = crc")
    check({b = world.rank}, "b = 0")
    local drop = nn.Sequential {nn.Dropout(0.1)}
    check(drop)
    if odd then drop[1]:eval() end
    check(drop, "rank 0 has 'layer '0' = Dropout(p=0.1)")
    drop:train()
    drop[1].p = odd and 0.2 or 0.1
    check(drop, "Dropout(p=0.2)")
    assert.has_error(function() ex:check_replicas(3) end)
  end)
end)
