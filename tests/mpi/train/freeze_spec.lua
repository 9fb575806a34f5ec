-- Freezing on several ranks: frozen parameters are not sent, the exchange makes a new plan when the set changes,
-- replicas stay equal, and an error names ranks that freeze different parameters.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local nn, world = atomo.nn, atomo.mpi.world

local function net()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), nn.ReLU(), nn.GlobalAvgPool(), nn.Linear(8, 200), nn.ReLU(),
    nn.Linear(200, 10)}
end

--- Trains `steps` steps; calls at(step, model) after each. Returns the model, bytes sent by step, the exchange.
local function train(o, at)
  atomo.manual_seed(5)
  local data = atomo.data.synthetic {train = 8 * world.size * (o.steps or 6), test = 4}
  local model = net()
  if at then at(0, model) end
  local options = {comm = world, min_size = 100}
  for key, value in pairs(o.exchange or {}) do options[key] = value end
  local ex, bytes = atomo.exchange(options), {}
  local run = {model = model, quiet = true, eval_every = 0, check_replicas = 1, exchange = ex,
    optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01, weight_decay = 0.1},
    data = {train = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size, seed = 1}},
    on_step = function(info)
      bytes[info.step] = info.bytes_out
      if at then at(info.step, model) end
    end}
  for key, value in pairs(o.train or {}) do run[key] = value end
  atomo.train(run)
  return model, bytes, ex
end

local function equal_on_all_ranks(model)
  for _, entry in ipairs(model:named_parameters()) do
    local mine = entry[2]:detach():clone()
    world:bcast(mine, 0)
    assert.same(mine:totable(), entry[2]:totable(), entry[1])
  end
end

local ways = {{}, {overlap = false}, {topology = "sharded"}, {topology = "hierarchical"}, {compress = "entry:ratio=4"},
  {compress = "svd:ratio=4,ef=true"}, {compress = "powersgd:rank=2", topology = "allreduce"},
  {compress = "qsgd:bits=8", topology = "sharded"}, {compress = "auto:ratio=16"}}
if world.size > 1 then ways[#ways + 1] = {topology = "ps"} end

describe("parameters that are frozen in mid-run", function()
  for _, way in ipairs(ways) do
    local name = ("%s %s %s"):format(way.topology or "standard", way.compress or "none", tostring(way.overlap ~= false))
    it("stay as they are, the others train on, and they train again: " .. name, function()
      local kept = {}
      local model, bytes = train({exchange = way}, function(step, m)
        if step == 2 then m[4]:freeze() end
        if step == 2 or step == 4 then kept[step] = m[4].weight:totable() end
        if step == 4 then m[4]:unfreeze() end
      end)
      assert.same(kept[2], kept[4])
      assert.is_false(kept[4][1][1] == model[4].weight:get(1, 1))
      equal_on_all_ranks(model)
      if world.size > 1 and not way.compress then
        assert.equal(bytes[2], bytes[6])
        local sums = atomo.tensor {bytes[2], bytes[3]} -- a single rank may send more: it owns other tensors
        world:allreduce(sums, "sum")
        assert.is_true(sums:get(2) < sums:get(1), ("%d bytes, %d before"):format(sums:get(2), sums:get(1)))
      end
    end)
  end

  it("do not change the bits of the others", function()
    local function frozen_from(when)
      return train({steps = 5}, function(step, m)
        if step == when then m[1]:requires_grad_(false) end
      end)
    end
    -- a convolution frozen after step 5, the last, is not frozen at all
    local a, b = frozen_from(5), train {steps = 5}
    for name, t in pairs(a:state_dict()) do assert.same(b:state_dict()[name]:totable(), t:totable()) end
  end)

  it("take the memory of the others with the plan", function()
    local _, _, ex = train({steps = 3, exchange = {compress = "topk:ratio=8,ef=true", topology = "allgather"}})
    local before = ex:state_dict()
    ex:replan()
    assert.is_false(ex.plan)
    local after = ex:state_dict()
    assert.is_true(before["/5.weight [10,200]"]:norm_value(2) > 0)
    for key, t in pairs(before) do assert.same(t:totable(), after[key]:totable(), key) end
  end)

  it("are named if ranks freeze different ones", function()
    if world.size == 1 then return end
    local function differ(freeze, check)
      local comm = world:split(0) -- separate, since it cannot be used after the failure
      local run = {exchange = {comm = comm, overlap = false}, train = {check_replicas = check}}
      local ok, text = pcall(train, run, function(step, m)
        if step == 2 then freeze(m) end
      end)
      assert.is_false(ok)
      return text
    end
    local text = differ(function(m) if world.rank == 1 then m[4]:freeze() end end, false)
    assert.matches("'step 3, lr 0.01'", text)
    assert.matches("'freezes 3.weight", text)
    text = differ(function(m) m[world.rank == 1 and 4 or 6]:freeze() end, false)
    assert.matches("'freezes 5.weight", text)
    assert.matches("'freezes 3.weight", text)
    text = differ(function(m) if world.rank == 1 then m[4].weight.requires_grad = false end end, 1)
    assert.matches("replicas after step 2: .*'3.weight frozen = false'.*'3.weight frozen = true'", text)
  end)

  it("stay as they are with local steps", function()
    local kept = {}
    local model = train({steps = 8, train = {local_steps = 2, outer = {lr = 0.7, momentum = 0.9}}}, function(step, m)
      if step == 3 then m[4]:freeze() end -- in the middle of a round, which still updates it
      if step >= 4 then kept[step] = m[4].weight:totable() end
    end)
    assert.same(kept[4], kept[8])
    assert.same(kept[4], model[4].weight:totable())
    equal_on_all_ranks(model)
  end)
end)

describe("a layer frozen between two rounds of local steps", function()
  teardown(checkpoints.remove_all)
  local FROM, ROUND = 4, 2 -- frozen after this step

  --- Trains 8 steps, or up to `stop`, or from a checkpoint; returns the model and the layer's weights by step.
  local function rounds(more, resumed)
    local kept = {}
    local options = {local_steps = ROUND, outer = {lr = 0.7, momentum = 0.9}}
    for key, value in pairs(more or {}) do options[key] = value end
    local model = train({steps = 8, train = options}, function(step, m)
      if step == FROM or step == 0 and resumed then m[4]:freeze() end
      kept[step] = m[4].weight:totable()
    end)
    return model, kept
  end

  it("does not move any more, also by the outer momentum", function()
    local _, kept = rounds()
    assert.is_false(kept[0][1][1] == kept[FROM][1][1])
    assert.same(kept[FROM], kept[FROM + ROUND])
    assert.same(kept[FROM], kept[8])
  end)

  it("is the same after a resume, within the round and after it", function()
    local whole = rounds()
    for _, stop in ipairs {FROM, FROM + 1} do
      local path = checkpoints.path()
      rounds {save = path, max_steps = stop}
      local rest = rounds({resume = path}, true)
      checkpoints.remove(path)
      for name, t in pairs(whole:state_dict()) do assert.same(t:totable(), rest:state_dict()[name]:totable(), name) end
    end
  end)
end)

describe("two runs over one exchange", function()
  it("freeze the parameters that the first one trained", function()
    local ex = atomo.exchange {comm = world, min_size = 100, compress = "entry:ratio=4"}
    local function tuned(prepare)
      return train({train = {exchange = ex}}, function(step, m) if step == 0 then prepare(m) end end)
    end
    tuned(function() end)
    local model = tuned(function(m) m[1]:freeze() end)
    assert.equal(4, #ex.plan.shapes)
    equal_on_all_ranks(model)
  end)
end)
