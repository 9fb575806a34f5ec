-- A run that is stopped within an epoch, saved and resumed is bit-identical to an uninterrupted one: weights, running
-- statistics, losses of every step, optimizer. For topologies with compressors, alternately with and without overlap,
-- and for everything else in which a run has state.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local files = require "atomo.core.files"
local matrix = require "support.exchange_matrix"
local nn, world = atomo.nn, atomo.mpi.world

local function net()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2, bias = false}), nn.BatchNorm2d(8, {relu = true}),
    nn.GlobalAvgPool(), nn.Dropout(0.2), nn.Linear(8, 10)}
end

local function adam(model) return atomo.optim.adam {params = model:parameters(), lr = 0.01} end

local function images(o, size)
  local data = atomo.data.synthetic {train = size or 60, test = 10}
  local function loader(set)
    return atomo.data.loader {set = set, batch = 4, rank = world.rank, size = world.size, seed = 2,
      augment = {crop = 4, flip = true}, mean = data.mean, std = data.std}
  end
  return {train = loader(data.train), test = o.eval_every and loader(data.test) or nil}
end

--- Trains. o: net, data, optimizer (functions), exchange (options), prepare(options, model), which adds options, and
--- options of atomo.train. Returns the final state as text by name.
local function train(o, more)
  atomo.manual_seed(3)
  local model = (o.net or net)()
  local data = (o.data or images)(o)
  local optimizer = (o.optimizer or adam)(model)
  local ex = {min_size = 30, seed = 5}
  for key, value in pairs(o.exchange or {}) do ex[key] = value end
  local left, steps = {}, {}
  local options = {model = model, data = data, optimizer = optimizer, exchange = atomo.exchange(ex), quiet = true,
    epochs = 2, eval_every = 0, schedule = function(step) return 0.01 / (1 + step / 10) end}
  for _, key in ipairs {"accumulate", "local_steps", "eval_every", "nonfinite", "clip_norm", "schedule", "epochs"} do
    if o[key] ~= nil then options[key] = o[key] end
  end
  if o.prepare then o.prepare(options, model, left) end
  local on_step = options.on_step
  options.on_step = function(info)
    steps[info.step] = ("%.17g"):format(info.loss)
    if on_step then on_step(info) end
  end
  for key, value in pairs(more or {}) do options[key] = value end
  local info = atomo.train(options)
  if info.loss then left.epoch = ("%.17g %.17g"):format(info.loss, info.accuracy) end
  for name, t in pairs(model:state_dict()) do left["model " .. name] = t:bytes() end
  for name, v in pairs(optimizer:state_dict()) do left["optimizer " .. name] = type(v) == "table" and v:bytes() or v end
  return left, steps
end

--- Asserts that two final states are equal on all ranks; the error names the first difference.
local function assert_same(whole, rest, what)
  local different = ""
  for name, v in pairs(whole) do
    if rest[name] ~= v then different = ("rank %d: %s"):format(world.rank, name) end
  end
  for _, text in ipairs(world:allgatherv(different)) do
    assert(text == "", ("%s: %s differs"):format(what, text))
  end
end

local function resumes(o, stops, what)
  local whole, losses = train(o)
  for _, stop in ipairs(stops) do
    local path = checkpoints.path()
    train(o, {max_steps = stop, save = path})
    local rest, later = train(o, {resume = path})
    checkpoints.remove(path)
    local text = ("%s, stopped after step %d"):format(what, stop)
    assert_same(whole, rest, text)
    for step, loss in pairs(losses) do
      if step > stop then assert.equal(loss, later[step], text .. ", loss of step " .. step) end
    end
  end
end

describe("a run stopped within an epoch and resumed ends with the same bits", function()
  teardown(checkpoints.remove_all)

  local compressors = {"none", "entry:ratio=4", "svd:ratio=4,bits=8,every=3", "powersgd:rank=1,ef=true", "qsgd:bits=4",
    "topk:ratio=8,ef=true", "taps:ratio=4",
    "rotated:ratio=8", "auto:ratio=8,keep=3", "auto:ratio=8,every=2,keep=3,ef=true"}

  --- Returns these compressors, and in turns a third of all that the program has, so that each is tried by three
  --- topologies.
  local function compressors_of(turn)
    local list = {unpack(compressors)}
    local all = matrix.compressors {"rotated:ratio=8,ef=true", "eden:bits=1,ef=true", "signsgd:ef=true"}
    for k, compress in ipairs(all) do
      if (k + turn) % 3 == 0 then list[#list + 1] = compress end
    end
    return list
  end

  for turn, o in ipairs(matrix.topologies) do
    it("by " .. matrix.name(o, "all compressors"), function()
      for k, compress in ipairs(compressors_of(turn)) do
        -- Half of the pairs on 1 and 3 ranks, the others on 2 and 4.
        if matrix.possible(o, compress) and (k + turn + world.size) % 2 == 0 then
          -- Overlap in turns: tests/mpi/exchange/exchange_state_spec.lua has both.
          local ex = {compress = compress, overlap = math.floor((k + turn) / 2) % 2 == 0}
          for key, value in pairs(o) do ex[key] = value end
          resumes({exchange = ex}, {k % 3 == 0 and 3 or 5}, matrix.name(o, compress))
        end
      end
    end)
  end

  local half = math.ceil(math.ceil(60 / 4 / world.size) / 2) -- steps of an epoch, of two batches each
  for _, case in ipairs {
    {"with accumulation, also where the epoch's last step has fewer batches", {accumulate = 2}, {1, half, half + 1}},
    {"with local steps, within a round", {local_steps = 3, exchange = {compress = "topk:ratio=8,ef=true"}},
      {1, 2, 3, 4, 6}},
    {"with local steps and accumulation", {local_steps = 2, accumulate = 2, exchange = {compress = "entry:ratio=4"}},
      {1, 2, 3}},
    {"with tests that fall in neither half", {eval_every = 2}, {3, math.ceil(60 / 4 / world.size)}},
    {"with clipping", {clip_norm = 0.1}},
  } do
    it(case[1], function() resumes(case[2], case[3] or {1, 3, 5}, case[1]) end)
  end

  it("with averages of weights, and a schedule that follows the losses", function()
    resumes({eval_every = 1, schedule = false, prepare = function(options, model, left)
      local ema = atomo.optim.ema {params = model:parameters(), decay = 0.8}
      local plateau = {best = math.huge, worse = 0, lr = 0.01, halved = false, name = "p"}
      function plateau:state_dict()
        return {best = self.best, worse = self.worse, lr = self.lr, halved = self.halved, name = self.name}
      end
      function plateau:load_state_dict(s) for key, v in pairs(s) do self[key] = v end end
      options.schedule = function() return plateau.lr end
      options.state = {ema = ema, plateau = plateau}
      options.on_step = function(info)
        ema:update()
        plateau.worse = info.loss < plateau.best and 0 or plateau.worse + 1
        plateau.best = math.min(plateau.best, info.loss)
        if plateau.worse > 1 then plateau.lr, plateau.worse, plateau.halved = plateau.lr / 2, 0, true end
        for i, a in ipairs(ema.averages) do left["average " .. i] = a:bytes() end
        left.plateau = ("%.17g %.17g %s"):format(plateau.lr, plateau.best, tostring(plateau.halved))
      end
      options.on_epoch = function() plateau.lr = plateau.lr * 0.9 end
    end}, {2, 5, math.ceil(60 / 4 / world.size)}, "ema and plateau")
  end)

  it("with draws of the script from the runtime's streams, and a state of each rank's own", function()
    resumes({prepare = function(options, _, left)
      local own = {sum = world.rank, t = atomo.zeros(2)}
      function own:state_dict() return {sum = self.sum, t = self.t} end
      function own:load_state_dict(s)
        self.sum = s.sum
        self.t:copy_(s.t)
      end
      options.state = {own = own}
      options.on_step = function()
        own.sum = own.sum + math.random() * (1 + world.rank)
        own.t:add_(atomo.randn(2):mul_(1 + world.rank))
        left.own = ("%.17g %s"):format(own.sum, own.t:bytes())
      end
    end}, {3}, "draws")
  end)

  it("with data that begin an epoch at its first batch only", function()
    resumes({data = function(o)
      local inner = images(o).train
      return {steps = inner.steps, epoch = function(_, e) return inner:epoch(e) end}
    end}, {3, 5}, "data without seeks")
  end)

  it("with text, of which a rank has no window at the epoch's end", function()
    resumes({exchange = {compress = "svd:ratio=4,every=2"}, net = function()
      return require("models.lstm").lstm {vocab = 8, width = 8, layers = 1, length = 6, dropout = 0.1}
    end, data = function()
      local text = atomo.text.of(("abcdefgh"):rep(16) .. ("hgfe"):rep(7), 0)
      return atomo.text.loader {tokens = text.train, batch = 3, length = 6, seed = 4, rank = world.rank,
        size = world.size}
    end}, {1, 3}, "text")
  end)

  it("after steps that were given up", function()
    local function poisoned(logits, labels)
      local loss = atomo.F.cross_entropy(logits, labels)
      return labels:get(1) == 3 and loss * math.huge or loss
    end
    resumes({nonfinite = "skip", exchange = {compress = "svd:ratio=4,ef=true"}, prepare = function(options)
      options.loss = poisoned
    end}, {2, 4}, "skips")
  end)

  it("with a layer that is frozen for one step, which is given up", function()
    for _, compress in ipairs {"entry:ratio=8", "auto:ratio=8,keep=3,ef=true"} do
      resumes({nonfinite = "skip", exchange = {compress = compress}, prepare = function(options, model)
        local at
        options.schedule = function(step)
          at = step + 1
          model[5].bias.requires_grad = at ~= 2
          return 0.01
        end
        options.loss = function(logits, labels)
          local loss = atomo.F.cross_entropy(logits, labels)
          return at == 2 and loss * math.huge or loss
        end
      end}, {1, 2, 3}, compress)
    end
  end)

  it("with a learning rate set for a group, and steps of some parameters only", function()
    resumes({optimizer = function(model)
      return atomo.optim.adamw {lr = 0.01, params = atomo.optim.no_decay_groups(model)}
    end, prepare = function(options, model)
      options.on_step = function(info)
        if info.step == 2 then options.optimizer.groups[2].lr = 0.5 end
        model[5].bias.requires_grad = info.step % 2 == 0
      end
    end}, {1, 2, 3, 4}, "groups")
  end)

  it("with layers that are frozen at first, and unfrozen later, with their normalisation", function()
    for _, o in ipairs {{exchange = {compress = "svd:ratio=4,ef=true"}}, {local_steps = 2}} do
      o.prepare = function(options, model)
        model[1]:freeze()
        model[2]:eval()
        options.on_step = function(info)
          if info.step == 2 then
            model[1]:unfreeze()
            model[2]:freeze()
          elseif info.step == 4 then
            model[2]:unfreeze() -- in evaluation mode, as before
            model[4]:eval()
          end
        end
      end
      resumes(o, {1, 2, 3, 4, 5}, "unfreezing")
    end
  end)
end)

describe("what is frozen or in evaluation mode", function()
  teardown(checkpoints.remove_all)

  it("stays as the resumed run sets it, if it begins otherwise than the saved one, and is named", function()
    local path, model, said = checkpoints.path(), nil, {}
    local function frozen(module)
      return {prepare = function(options, m)
        model = m
        m[module]:freeze()
        options.on_step = function() m[1]:freeze() end
      end}
    end
    train(frozen(5), {max_steps = 1, save = path})
    local put = files.put
    files.put = function(text) said[#said + 1] = text end
    local ok, why = pcall(train, frozen(2), {max_steps = 1, resume = path, quiet = false})
    files.put = put
    assert(ok, why)
    assert.same({true, false, true}, {model[1].weight.requires_grad, model[2].weight.requires_grad,
      model[5].weight.requires_grad})
    assert.same({true, false, true}, {model[1].training, model[2].training, model[5].training})
    local text = world:allgatherv(table.concat(said))[1]
    assert(text:find("as this run sets them, not as they were saved", 1, true), text)
  end)
end)

describe("an option that the run sets after its first step", function()
  teardown(checkpoints.remove_all)

  it("of a group of the optimizer, or of averages of weights, is restored", function()
    local function options_set(kind, sets)
      resumes({optimizer = function(model)
        return atomo.optim[kind] {lr = 0.01, params = atomo.optim.no_decay_groups(model)}
      end, prepare = function(options, model, left)
        local ema = atomo.optim.ema {params = model:parameters(), decay = 0.8}
        options.state = {ema = ema}
        options.on_step = function(info)
          if info.step == 2 then
            for name, value in pairs(sets) do options.optimizer.groups[2][name] = value end
            ema.decay = 0.5
          end
          ema:update()
          for i, a in ipairs(ema.averages) do left["average " .. i] = a:bytes() end
        end
      end}, {1, 2, 4}, kind)
    end
    options_set("sgd", {momentum = 0.5, weight_decay = 0.1, nesterov = true})
    options_set("adam", {beta1 = 0.5, eps = 1e-4, amsgrad = true})
    options_set("lars", {trust = 0.01})
  end)

  it("of a layer, is restored, unless the resumed run begins with another value", function()
    local last
    local o = {prepare = function(options, model, left)
      last = model[4]
      options.on_step = function(info)
        if info.step == 2 then
          model[4].p = 0.5
          model[2].momentum = 0.3
        end
        left.p, left.momentum = model[4].p, model[2].momentum
      end
    end}
    resumes(o, {1, 2, 4}, "a layer's options")
    local path = checkpoints.path()
    train(o, {max_steps = 2, save = path})
    local prepare = o.prepare
    o.prepare = function(options, model, left)
      prepare(options, model, left)
      model[4].p = 0.1
    end
    train(o, {max_steps = 3, resume = path})
    assert.equal(0.1, last.p)
  end)

  it("is saved again by the resumed run", function()
    local o = {optimizer = function(model)
      return atomo.optim.sgd {lr = 0.01, momentum = 0.9, params = model:parameters()}
    end, prepare = function(options)
      options.on_step = function(info)
        if info.step == 1 then options.optimizer.groups[1].momentum = 0.5 end
      end
    end}
    local whole, first, second = train(o), checkpoints.path(), checkpoints.path()
    train(o, {max_steps = 2, save = first})
    train(o, {max_steps = 3, resume = first, save = second})
    assert_same(whole, (train(o, {resume = second})), "two stops")
  end)
end)

describe("a state of the user", function()
  teardown(checkpoints.remove_all)

  local function with_state(state, more)
    local got = {}
    train({prepare = function(options)
      options.state = {mine = {state_dict = function() return state end,
        load_state_dict = function(_, s) got.s = s end}}
    end}, more)
    return got.s
  end

  it("that is a list comes back as one, its numbers and texts as they were", function()
    local path = checkpoints.path()
    with_state({3, "b\0c", true, atomo.ones(2), [2.5] = -1, ["a/b"] = 4, ["#x"] = 5, [""] = 6},
      {max_steps = 1, save = path})
    local s = with_state({}, {resume = path, max_steps = 1})
    assert.same({3, "b\0c", true}, {s[1], s[2], s[3]})
    assert.equal(2, s[4]:numel())
    assert.same({-1, 4, 5, 6}, {s[2.5], s["a/b"], s["#x"], s[""]})
  end)

  it("that cannot be saved is refused by name", function()
    for _, case in ipairs { -- in one order on all ranks
      {{[true] = 1}, "the name true of state mine is a boolean, expected a text"},
      {{["#1"] = 1}, "the name #1 of state mine is a number with #"}, {3, "state mine: state_dict returned 3"},
      {atomo.ones(2), "state_dict returned a tensor"}, {{x = {}}, "'x' of state mine is a table"},
    } do
      local state, said = case[1], case[2]
      local ok, why = pcall(with_state, state, {max_steps = 1, save = checkpoints.path()})
      assert.is_false(ok, said)
      assert(why:find(said, 1, true), why)
    end
  end)
end)

describe("saving", function()
  teardown(checkpoints.remove_all)

  it("changes nothing in a run, at any step", function()
    for _, o in ipairs {{exchange = {compress = "svd:ratio=4,bits=8,every=3"}, eval_every = 2},
      {local_steps = 3, exchange = {compress = "auto:ratio=8,keep=3"}}} do
      local whole = train(o)
      for _, every in ipairs {1, 2, "1h"} do
        local path = checkpoints.path()
        assert_same(whole, train(o, {save = path, save_every = every, keep = 2}), "save_every " .. every)
        checkpoints.remove(path)
      end
    end
  end)

  it("leaves checkpoints from each of which a run ends with the same bits", function()
    for _, o in ipairs {{exchange = {compress = "entry:ratio=4,ef=true"}}, {local_steps = 3}} do
      local path = checkpoints.path()
      local whole = train(o, {save = path, save_every = 2, keep = 0})
      local names = checkpoints.names(path)
      assert.is_true(#names > 3)
      for _, name in ipairs(names) do
        local rest = train(o, {resume = path .. "/" .. name})
        rest.epoch = rest.epoch or whole.epoch -- after the last checkpoint nothing is left to train
        assert_same(whole, rest, name)
      end
      checkpoints.remove(path)
    end
  end)
end)
