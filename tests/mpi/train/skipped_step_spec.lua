-- A skipped training step has no effect: parameters, buffers (running statistics), optimizer state and compressor
-- memories are bit-identical to those of a run without its batch, with and without overlap. The same holds for a round
-- of local SGD that is given up. The error names stage, tensor and rank of what was not finite.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world

local last = world.rank == world.size - 1
local poison -- what the current batch spoils: "step", "round" or nil

--- Makes a loader of batches of 4 images per rank, spoiled as the list says (false: not); `ignored`: with a label that
--- is ignored.
local function loader(list, ignored)
  local good = 0
  local batches = {}
  for k, kind in ipairs(list) do
    if not kind then good = good + 1 end
    atomo.manual_seed(100 * (kind and 50 + k or good) + world.rank)
    local x, y = atomo.randn(4, 6, 6, 2), atomo.tensor({1, 2, 3, 4}, "i32"):mul_(1)
    if kind == "step" and last then x:set(2, 3, 3, 1, 0 / 0) end
    if kind == "huge" and last then x:mul_(1e21) end
    if ignored and kind then y:set(1, -100) end
    batches[k] = {x = x, y = y, n = 4, total = 4 * world.size, kind = kind}
  end
  local function following(_, before)
    local k = before and before.number + 1 or 1
    local batch = batches[k]
    if batch then batch.number, poison = k, batch.kind end
    return batch
  end
  return {steps = #batches, batch = 4, size = world.size, epoch = function() return following end}
end

local function build()
  atomo.manual_seed(8)
  return nn.Sequential {nn.Conv2d(2, 16, 3, {padding = 1}), nn.BatchNorm2d(16), nn.ReLU(), nn.GlobalAvgPool(),
    nn.Linear(16, 5)}
end

--- Trains on such batches; returns the state on which later steps depend, by name, and the result of atomo.train.
local function train(list, options, make_optimizer)
  local model = build()
  local optimizer = (make_optimizer or function(params)
    return atomo.optim.sgd {params = params, lr = 0.05, momentum = 0.9}
  end)(model:parameters())
  local exchange = atomo.exchange {compress = options.compress, topology = options.topology, min_size = 64,
    overlap = options.overlap, seed = 4, downlink = options.downlink}
  local info = atomo.train {model = model, optimizer = optimizer, exchange = exchange, quiet = true, eval_every = 0,
    data = loader(list, options.ignored), nonfinite = "skip", accumulate = options.accumulate,
    local_steps = options.local_steps}
  local all = {}
  for name, t in pairs(model:state_dict()) do all["model." .. name] = t end
  for name, t in pairs(optimizer:state_dict()) do all["optimizer." .. name] = t end
  for name, t in pairs(exchange:state_dict()) do all["exchange." .. name] = t end
  all["optimizer.lr"] = nil
  return all, info
end

local function same(a, b, what)
  for name in pairs(b) do assert.truthy(a[name] ~= nil, ("%s: %s is missing"):format(what, name)) end
  for name, t in pairs(a) do
    if type(t) == "number" then
      assert.equal(b[name], t, ("%s: %s"):format(what, name))
    else
      assert.equal(b[name]:bytes(), t:bytes(), ("%s: %s"):format(what, name))
    end
  end
end

local ways = {{compress = "none"}, {compress = "entry:ratio=4,ef=true"}, {compress = "svd:ratio=4,every=2"},
  {compress = "auto:ratio=4"}, {compress = "powersgd:ef=true"}, {compress = "powersgd:ef=true", topology = "allreduce"},
  {compress = "randk:ratio=4", topology = "sharded"}, {compress = "topk:ratio=4,ef=true", topology = "sharded"},
  {compress = "entry:ratio=4", topology = "ps", downlink = "compress"}, {compress = "entry:ratio=4",
    topology = "hierarchical"}}

describe("a skipped step", function()
  for _, way in ipairs(ways) do
    local name = ("%s by %s"):format(way.compress, way.topology or "the standard topology")
    it("leaves no trace: " .. name, function()
      if way.topology == "ps" and world.size == 1 then return pending "ps wants two ranks" end
      way.overlap = false
      local plain = train({false, false, false, false}, way)
      for _, kind in ipairs {"step", "huge"} do
        way.overlap = true
        local marked, info = train({false, kind, false, kind, kind, false, false}, way)
        assert.equal(3, info.skipped)
        same(marked, plain, kind)
      end
    end)
  end

  it("leaves no trace in any of its micro-batches", function()
    local way = {compress = "entry:ratio=4,ef=true", accumulate = 2}
    local plain = train({false, false, false, false}, way)
    same(train({false, false, "step", "step", false, false}, way), plain, "both")
    same(train({false, false, "round", "step", false, false}, way), plain, "the second")
    same(train({false, false, "step", "round", false, false}, way), plain, "the first")
  end)

  it("as the first step with counted labels does not change how gradients are weighted", function()
    local way = {compress = "none", ignored = true}
    local plain = train({false, false, false}, way)
    same(train({"step", false, false, "step", false}, way), plain, "steps")
    way.local_steps = 2
    plain = train({false, false, false, false}, way)
    local function marked()
      local step = 0
      return function(params)
        local optimizer = atomo.optim.sgd {params = params, lr = 0.05, momentum = 0.9}
        local take = optimizer.step
        optimizer.step = function(self)
          take(self)
          step = step + 1
          if step == 2 and last then self.params[1]:detach():fill_(1 / 0) end
        end
        return optimizer
      end
    end
    same(train({"round", "round", false, false, false, false}, way, marked()), plain, "a round")
  end)
end)

describe("local steps", function()
  local function adam(params)
    local optimizer = atomo.optim.adam {params = params, lr = 0.01}
    local step = optimizer.step
    optimizer.step = function(self)
      step(self)
      if poison == "round" and last then self.params[1]:detach():fill_(1 / 0) end
    end
    return optimizer
  end

  it("leave no trace where they are skipped, nor does a round that is given up", function()
    for _, compress in ipairs {"none", "entry:ratio=4,ef=true"} do
      local way = {compress = compress, local_steps = 2}
      local plain = train({false, false, false, false}, way, adam)
      local middle = {false, false, "round", "round", false, false}
      local first = {"round", "round", false, false, false, false}
      same(train(middle, way, adam), plain, compress .. ": a round in the middle")
      same(train(first, way, adam), plain, compress .. ": the first round")
      if world.size == 1 then
        way.local_steps = 100 -- one round, whatever the number of steps
        local longer = train({false, false, false}, way, adam)
        same(train({"huge", false, "step", false, "huge", false}, way, adam), longer, compress .. ": a step")
      end
    end
  end)

  it("count rounds that are given up to the limit on skips in a row", function()
    local list = {}
    for k = 1, 40 do list[k] = "round" end
    local ok, why = pcall(train, list, {compress = "none", local_steps = 2}, adam)
    assert.is_false(ok)
    assert.matches("step %d+: NaN or Inf in the loss or the gradient", why)
    assert.matches("parameter 0.weight: %d+ of %d+ entries are NaN or Inf", why)
  end)
end)

--- A list of batches for loader: a good one if `before`, then n poisoned ones, then a good one.
local function row(before, n)
  local list = {}
  if before then list[1] = false end
  for _ = 1, n do list[#list + 1] = "step" end
  list[#list + 1] = false
  return list
end

describe("ten skipped steps in a row", function()
  local function raises(list, way, step, text)
    local ok, why = pcall(train, list, way)
    assert.is_false(ok)
    assert.truthy(why:find(("step %d: NaN or Inf in the loss or the gradient %s"):format(step, text), 1, true), why)
    assert.matches("10 steps in a row were skipped. Lower the learning rate", why)
    assert.falsy(why:find("nonfinite = ", 1, true), "advises what is set")
  end

  it("end the run, nine do not", function()
    for _, before in ipairs {true, false} do
      local first = before and 1 or 0
      assert.equal(9, select(2, train(row(before, 9), {compress = "none"})).skipped)
      raises(row(before, 10), {compress = "none"}, first + 10, "on 1 of " .. world.size)
      if world.size == 1 then -- else each rank goes by its own local steps, and the others wait
        local way = {compress = "none", local_steps = 100}
        assert.equal(9, select(2, train(row(before, 9), way)).skipped)
        raises(row(before, 10), way, first + 10, "of a local step")
      end
    end
  end)
end)

describe("NaN or Inf is reported for the first place where it appears:", function()
  local function why(list, options, change)
    local model = build()
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = options.lr or 0.05}
    if change then change(model, optimizer) end
    local ok, text = pcall(atomo.train, {model = model, optimizer = optimizer, data = loader(list), quiet = true,
      eval_every = 0, exchange = atomo.exchange {compress = options.compress or "none", min_size = 64},
      accumulate = options.accumulate, loss = options.loss})
    assert.is_false(ok)
    return text
  end
  local by_last = ("rank %d: "):format(world.size - 1) -- whose batch is poisoned

  it("the loss of a micro-batch", function()
    assert.matches(by_last .. ("the loss is %%-?nan in micro%%-batch 2; this is rank %d"):format(world.rank),
      why({false, "step"}, {accumulate = 2}))
  end)
  it("a gradient", function()
    assert.matches("rank 0: gradient of %S+: %d+ of %d+ entries are NaN or Inf", why({false}, {loss = function(x, y)
      return atomo.F.cross_entropy(x, y) * 1e-30 * 1e30 + (x * 0):sum():sqrt()
    end}))
  end)
  it("running statistics, of a finite loss and finite gradients", function()
    assert.matches(by_last .. "buffer 1.running_var: 16 of 16 entries are NaN or Inf", why({"huge"}, {}))
  end)
  it("parameters, which no step can put right", function()
    assert.matches("rank 0: parameter 4.weight: 1 of 80 entries are NaN or Inf, the first is number 1",
      why({false}, {}, function(model) model:parameters()[5]:detach():set(1, 1, 0 / 0) end))
  end)
  it("the update", function()
    assert.matches("step 1 %(lr 1e%+38%): the update's parameter %S+: %d+ of %d+ entries are NaN or Inf",
      why({false, false}, {lr = 1e38, loss = function(x, y) return atomo.F.cross_entropy(x, y) * 1e4 end}))
  end)
end)
