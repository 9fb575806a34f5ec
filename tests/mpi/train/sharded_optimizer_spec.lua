-- sharded_optimizer = true of atomo.train (ZeRO-1): a run has the bits of one without it, with every topology and
-- compressor, frozen parameters and skipped steps; its checkpoints are the same files.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local fails = require "support.fails"
local nn, world = atomo.nn, atomo.mpi.world

local function net()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), nn.BatchNorm2d(8), nn.ReLU(), nn.GlobalAvgPool(),
    nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 10)}
end

local makers = {
  sgd = function(params) return atomo.optim.sgd {params = params, lr = 0.05} end,
  momentum = function(params)
    return atomo.optim.sgd {params = params, lr = 0.05, momentum = 0.9, weight_decay = 0.01}
  end,
  nesterov = function(params) return atomo.optim.sgd {params = params, lr = 0.05, momentum = 0.9, nesterov = true} end,
  adam = function(params) return atomo.optim.adam {params = params, lr = 0.01} end,
  amsgrad = function(params) return atomo.optim.adam {params = params, lr = 0.01, amsgrad = true} end,
  adamw = function(_, model)
    return atomo.optim.adamw {params = atomo.optim.no_decay_groups(model), lr = 0.01, weight_decay = 0.1}
  end,
}

--- Trains; returns the model, the optimizer, losses and bytes by step. o: optimizer (a name), exchange (options), at
--- (step, model, optimizer), loss, and options of atomo.train.
local function train(o, sharded)
  atomo.manual_seed(5)
  local data, model = atomo.data.synthetic {train = 24 * world.size, test = 4}, net()
  local optimizer = makers[o.optimizer or "adam"](model:parameters(), model)
  local exchange = {comm = world, min_size = 100, seed = 2}
  for key, value in pairs(o.exchange or {}) do exchange[key] = value end
  local losses, bytes = {}, {}
  local run = {model = model, optimizer = optimizer, exchange = atomo.exchange(exchange), quiet = true, eval_every = 0,
    check_replicas = 1, sharded_optimizer = sharded, max_steps = 5, epochs = 2,
    data = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size, seed = 1},
    on_step = function(info)
      losses[info.step], bytes[info.step] = info.loss, info.bytes_out
      if o.at then o.at(info.step, model, optimizer) end
    end}
  for key, value in pairs(o.train or {}) do run[key] = value end
  local info = atomo.train(run)
  return {model = model, optimizer = optimizer, losses = losses, bytes = bytes, info = info}
end

local function plain(state)
  local s = {}
  for name, v in pairs(state) do s[name] = atomo.is_tensor(v) and v:totable() or v end
  return s
end

local function equal(a, b)
  assert.same(a.losses, b.losses)
  assert.same(plain(a.model:state_dict()), plain(b.model:state_dict()))
  assert.same(plain(a.optimizer:state_dict()), plain(b.optimizer:state_dict()))
end

local function both(o)
  local a, b = train(o), train(o, true)
  assert.equal(world.size > 1, b.optimizer.shards ~= false)
  assert.is_false(a.optimizer.shards)
  equal(a, b)
  return a, b
end

describe("a run with a sharded optimizer has the bits of one without:", function()
  local ways = {{}, {overlap = false}, {topology = "sharded"}, {topology = "hierarchical"}, {topology = "allgather",
    compress = "entry:ratio=4"}, {compress = "svd:ratio=4,ef=true"}, {compress = "powersgd:rank=2",
    topology = "allreduce"}, {compress = "qsgd:bits=8", topology = "sharded"}, {compress = "auto:ratio=16"}}
  if world.size > 1 then
    ways[#ways + 1] = {topology = "ps"}
    ways[#ways + 1] = {topology = "ps", compress = "qsgd:bits=4", downlink = "compress"}
  end
  local names = {"adam", "sgd", "adamw", "momentum", "amsgrad", "nesterov"}
  for k, way in ipairs(ways) do
    for _, name in ipairs(k <= 3 and names or {names[k % #names + 1], names[(k + 3) % #names + 1]}) do
      it(("%s %s %s %s"):format(name, way.topology or "default", way.compress or "none",
        way.overlap == false and "without overlap" or ""), function()
        both {optimizer = name, exchange = way}
      end)
    end
  end

  it("with clipping, micro-batches, a schedule, and parameters frozen and unfrozen in mid-run", function()
    both {optimizer = "adamw", train = {clip_norm = 0.1, clip_value = 0.05, accumulate = 2,
      schedule = function(step) return 0.01 / (1 + step) end},
      at = function(step, model)
        if step == 2 then model[5]:freeze() end
        if step == 4 then model[5]:unfreeze() end
      end}
  end)

  it("with an average of the weights", function()
    local function run(sharded)
      local ema
      local r = train({at = function(_, model)
        ema = ema or atomo.optim.ema {params = model:parameters(), decay = 0.9}
        ema:update()
      end}, sharded)
      r.ema = plain(ema:state_dict())
      return r
    end
    local a, b = run(false), run(true)
    equal(a, b)
    assert.same(a.ema, b.ema)
  end)

  it("with steps that are skipped for NaN", function()
    local function run(sharded)
      local calls = 0
      return train({train = {nonfinite = "skip", loss = function(logits, labels)
        calls = calls + 1
        local loss = atomo.F.cross_entropy(logits, labels)
        return calls == 2 and world.rank == world.size - 1 and loss * (0 / 0) or loss
      end}}, sharded)
    end
    local a, b = run(false), run(true)
    assert.equal(1, b.info.skipped)
    equal(a, b)
  end)

  it("in a second run with the same optimizer, which stays sharded", function()
    local function run(sharded)
      local first = train({train = {max_steps = 2}}, sharded)
      local set = atomo.data.synthetic({train = 16 * world.size, test = 4}).train
      atomo.train {model = first.model, optimizer = first.optimizer, quiet = true, eval_every = 0,
        data = atomo.data.loader {set = set, batch = 8, rank = world.rank, size = world.size, seed = 1},
        exchange = atomo.exchange {comm = world}}
      assert.equal(sharded and world.size > 1, first.optimizer.shards ~= false)
      return first
    end
    equal(run(false), run(true))
  end)
end)

describe("a run with a sharded optimizer", function()
  teardown(checkpoints.remove_all)

  it("keeps 1/P of the state on each rank", function()
    local _, b = both {optimizer = "amsgrad"}
    local n, whole = 0, 0
    for _, group in ipairs(b.optimizer.groups) do
      for _, block in pairs(group.state) do n, whole = n + block:numel(), whole + group.n end
    end
    assert.is_true(math.abs(n - whole / world.size) <= 3 * 16, ("%d of %d elements"):format(n, whole))
  end)

  it("counts the bytes of the weights that it sends in those of its steps", function()
    local a, b = both {optimizer = "momentum"}
    local sent = b.optimizer.shards and b.optimizer.shards.bytes_out or 0
    local sum, all = atomo.tensor {sent}, 0
    for _, p in ipairs(b.model:parameters()) do all = all + 4 * p:numel() end
    assert.equal(all * (world.size - 1), world:allreduce(sum):item())
    for step, bytes in ipairs(a.bytes) do assert.equal(bytes + sent, b.bytes[step]) end
  end)

  it("saves the same files, and resumes from either with the same bits", function()
    local whole = train {optimizer = "adamw", train = {max_steps = 6}}
    local folders = {}
    for k, sharded in ipairs {false, true} do
      folders[k] = checkpoints.path()
      train({optimizer = "adamw", train = {max_steps = 4, save = folders[k]}}, sharded)
    end
    for _, file in ipairs {"model", "optimizer"} do
      local bytes = {}
      for k, folder in ipairs(folders) do
        bytes[k] = checkpoints.bytes(("%s/step-4/%s.safetensors"):format(folder, file))
      end
      assert.equal(#bytes[1], #bytes[2])
      assert.is_true(bytes[1] == bytes[2], file .. " differs")
    end
    for k, sharded in ipairs {true, false} do -- each from the other's
      local later = checkpoints.path()
      train({optimizer = "adamw", train = {max_steps = 5, resume = folders[k], save = later}}, sharded)
      local r = train({optimizer = "adamw", train = {max_steps = 6, resume = later}}, not sharded)
      for step = 1, 5 do r.losses[step] = whole.losses[step] end
      equal(whole, r)
    end
  end)

  it("sends rounded changes of weights, and resumes with the same bits", function()
    local exact = train({optimizer = "momentum"}, true)
    local whole, folder = train({optimizer = "momentum"}, "bf16"), checkpoints.path()
    for step, loss in ipairs(whole.losses) do assert.near(exact.losses[step], loss, 0.01) end
    if world.size > 1 then
      assert.equal("bf16", whole.optimizer.shards.weights)
      assert.is_false(exact.losses[5] == whole.losses[5])
      assert.is_true(whole.bytes[1] < exact.bytes[1])
    end
    train({optimizer = "momentum", train = {max_steps = 3, save = folder}}, "bf16")
    local rest = train({optimizer = "momentum", train = {resume = folder}}, "bf16")
    for step = 1, 3 do rest.losses[step] = whole.losses[step] end
    equal(whole, rest)
  end)

  it("saves and restores a second one, which the user names", function()
    local folder = checkpoints.path()
    local function run(options)
      local p = atomo.param(atomo.ones(100))
      local second = atomo.optim.adam({params = {p}, lr = 0.1}):shard(world)
      local o = {train = {state = {second = second}}, at = function()
        p.grad = atomo.full({100}, 0.5)
        second:step()
      end}
      for key, v in pairs(options) do o.train[key] = v end
      train(o, true)
      return plain(second:state_dict())
    end
    local whole = run {max_steps = 5}
    run {max_steps = 3, save = folder}
    assert.same(whole, run {max_steps = 5, resume = folder})
  end)

  it("refuses local steps, lars and lamb, and what is no answer", function()
    fails("train: sharded_optimizer and local_steps exclude each other", train, {train = {local_steps = 2}}, true)
    for _, kind in ipairs {"lars", "lamb"} do
      makers[kind] = function(params) return atomo.optim[kind] {params = params, lr = 0.1} end
      fails(kind .. ": it cannot be sharded", train, {optimizer = kind}, true)
    end
    fails("train: sharded_optimizer is 4, expected true, false or 'bf16'", train, {}, 4)
  end)

  if world.size == 1 then return end

  it("takes an optimizer that is sharded already, over as many ranks, and not with local steps", function()
    local plain_run, other, own = train {}, world:split(0), world:split(world.rank)
    makers.ready = function(params) return makers.adam(params):shard(world) end
    equal(plain_run, train {optimizer = "ready"})
    equal(plain_run, train {optimizer = "ready", exchange = {comm = other}})
    fails("train: sharded_optimizer and local_steps exclude", train, {optimizer = "ready", train = {local_steps = 2}})
    fails(("train: the optimizer is sharded over %d ranks, the exchange has 1"):format(world.size), train,
      {optimizer = "ready", exchange = {comm = own}})
    other:close()
    own:close()
  end)

  it("refuses an option that differs between ranks", function()
    fails({"rank 0 has 'sharded_optimizer = false'", "'sharded_optimizer = true'"}, train, {},
      world.rank == world.size - 1)
  end)

  it("refuses weights in another format than other ranks", function()
    fails({"sharded_weights = fp32", "sharded_weights = bf16"}, train, {},
      world.rank == world.size - 1 and "bf16" or true)
  end)

  it("ends with an error on every rank if one rank's optimizer has another option", function()
    fails({"adam: step: a setting differs", "group 1: eps = "}, train, {train = {check_replicas = false},
      at = function(step, _, optimizer)
        if step == 2 and world.rank == 1 then optimizer.groups[1].eps = 0.1 end
      end}, true)
  end)
end)
