-- Ranks that disagree in settings, data or operations: every rank raises an error that names the difference, at the
-- start, within the step, or at the next check of replicas, and none hangs. (A killed rank, another script, an early
-- end: tests/spec/comm/watchdog_spec.lua.)
local atomo = require "atomo"
local version = require "atomo.core.version"
local nn, world = atomo.nn, atomo.mpi.world
local odd = world.rank == world.size - 1 -- is this the rank that differs from the others?

--- Asserts that fn(odd) raises on all ranks, with an error that contains all given texts.
local function named(what, fn, ...)
  local texts = {...}
  it(what, function()
    if world.size == 1 then return pending "one rank agrees with itself" end
    local ok, message = pcall(fn, odd)
    assert(not ok, "no error")
    for _, text in ipairs(texts) do
      assert(tostring(message):find(text, 1, true), ("expected %q in: %s"):format(text, tostring(message)))
    end
  end)
end

local last = ("rank %d has '"):format(world.size - 1)

describe("exchange names, when it is made,", function()
  named("another seed", function() atomo.exchange {seed = odd and 8 or 7} end,
    "exchange: a setting differs: rank 0 has 'seed = 7'", last .. "seed = 8'")
  named("another compressor", function() atomo.exchange {compress = odd and "svd:ratio=8" or "svd:ratio=4"} end,
    "rank 0 has 'compressor = svd:", "ratio=4", "ratio=8")
  named("another topology", function()
    atomo.exchange {compress = "entry:ratio=4", topology = odd and "sharded" or "allgather"}
  end, "rank 0 has 'topology = allgather'", last .. "topology = sharded'")
  named("another smallest size", function() atomo.exchange {min_size = odd and 10 or 20} end, "min_size = 20")
  named("another time to wait", function() atomo.exchange {stall_abort = odd and 0 or 600} end, "stall_abort = 600")
  named("another library", function()
    local original = version.versions
    version.versions = function()
      local v = original()
      if odd then v.mpi = "Open MPI v9.9.9" end
      return v
    end
    local ok, text = pcall(atomo.exchange, {})
    version.versions = original
    assert(ok, text)
  end, "rank 0 has 'version of MPI = ", last .. "version of MPI = Open MPI v9.9.9'")
  named("one setting more", function()
    local same = require "atomo.comm.consistency"
    same.check(world, "mine", odd and {{"a", 1}, {"b", 2}} or {{"a", 1}})
  end, "mine: a setting differs: rank 0 has 'nothing', " .. last .. "b = 2'")

  it("nothing where ranks agree", function()
    local ex = atomo.exchange {seed = 7, compress = "svd:ratio=4"}
    local g = atomo.full({3}, world.rank)
    ex:push(1, g)
    ex:finish()
    assert.near((world.size - 1) / 2, g:get(2), 1e-6)
  end)
end)

describe("the first step names", function()
  local function push(...)
    local ex = atomo.exchange {}
    for i, g in ipairs {...} do ex:push(i, g) end
    ex:finish()
  end
  named("a gradient of another shape", function() push(atomo.ones(3), atomo.ones(odd and 5 or 4)) end,
    "exchange: a setting differs: rank 0 has 'gradient 2 = [4]', " .. last .. "gradient 2 = [5]'")
  named("a gradient that is missing", function() push(atomo.ones(3), not odd and atomo.ones(4) or nil) end,
    "rank 0 has 'number of gradients = 2', " .. last .. "number of gradients = 1'")
end)

--- Trains with the same settings on all ranks, except for what `change(o, make)` changes.
local function train(change)
  atomo.manual_seed(4)
  local data = atomo.data.synthetic {train = 24, test = 4}
  local make = {batch = 2, seed = 1, lr = 0.1, momentum = 0.9, width = 8, layers = 2}
  local o = {quiet = true, eval_every = 0, settings = {model = "small", log = "run.jsonl"}}
  change(o, make)
  local layers = {nn.GlobalAvgPool(), nn.Linear(3, make.width)}
  for _ = 2, make.layers do layers[#layers + 1] = nn.Linear(make.width, make.width) end
  if make.extra then layers[#layers + 1] = make.extra() end
  layers[#layers + 1] = nn.Linear(make.width, 10)
  o.model = nn.Sequential(layers)
  o.exchange = atomo.exchange {}
  o.optimizer = atomo.optim.sgd {params = o.model:parameters(), lr = make.lr, momentum = make.momentum}
  o.data = {train = atomo.data.loader {set = data.train, batch = make.batch, rank = world.rank, size = world.size,
    seed = make.seed}}
  return atomo.train(o)
end

describe("training names, at its start,", function()
  named("another model", function() train(function(_, m) m.width = odd and 9 or 8 end) end,
    "train: a setting differs: rank 0 has 'parameter 1 = ", "[8,3]'", "[9,3]'")
  named("a layer that is missing", function() train(function(_, m) m.layers = odd and 1 or 2 end) end,
    "rank 0 has 'number of parameters = 6', " .. last .. "number of parameters = 4'")
  --- A layer without parameters, which leaves no trace in them.
  local function extra(name, ours, other, ...)
    named(name, function() train(function(_, m) m.extra = odd and other or ours end) end,
      "train: a setting differs: rank 0 has 'layer '3", ...)
  end
  extra("another activation", function() return nn.ReLU() end, function() return nn.Tanh() end, "ReLU()", "Tanh()")
  extra("another option", function() return nn.Dropout(0.1) end, function() return nn.Dropout(0.2) end, "p=0.1",
    "p=0.2")
  extra("another slope", function() return nn.LeakyReLU(0.1) end, function() return nn.LeakyReLU(0.2) end, "0.2")
  extra("another option of a norm", function() return nn.BatchNorm1d(8, {affine = false, momentum = 0.1}) end,
    function() return nn.BatchNorm1d(8, {affine = false, momentum = 0.2}) end, "momentum=0.2")
  extra("another mode", function() return nn.Dropout(0.1) end, function() return nn.Dropout(0.1):eval() end,
    "in evaluation mode")
  extra("an option inside a layer", function() return nn.Residual(nn.Sequential {nn.Dropout(0.1)}) end,
    function() return nn.Residual(nn.Sequential {nn.Dropout(0.3)}) end, "3.body.0'")
  named("another function among the layers", function()
    train(function(_, m)
      m.extra = function() return nn.Sequential {odd and atomo.F.relu or atomo.F.tanh} end
    end)
  end, "1 = F.tanh", "1 = F.relu")
  named("another option of the loss", function()
    train(function(o) o.loss = nn.CrossEntropyLoss {label_smoothing = odd and 0.1 or 0.2} end)
  end, "loss = CrossEntropyLoss", "label_smoothing = 0.1", "label_smoothing = 0.2")
  named("another learning rate", function() train(function(_, m) m.lr = odd and 0.2 or 0.1 end) end,
    "rank 0 has 'lr = 0.1", last .. "lr = 0.2")
  named("another optimizer", function() train(function(_, m) m.momentum = odd and 0.8 or 0.9 end) end,
    "group 1: momentum = 0.9")
  named("another batch", function() train(function(_, m) m.batch = odd and 3 or 2 end) end, "train: a setting differs")
  named("another order of the data", function() train(function(_, m) m.seed = odd and 2 or 1 end) end,
    "rank 0 has 'seed = 1', " .. last .. "seed = 2'")
  named("other rounds", function() train(function(o) o.local_steps = odd and 3 or 2 end) end,
    "rank 0 has 'local_steps = 2', " .. last .. "local_steps = 3'")
  named("other accumulation", function() train(function(o) o.accumulate = odd and 3 or 2 end) end,
    "train: a setting differs")
  named("another precision", function() train(function(o) o.precision = odd and "bf16" or "fp32" end) end,
    "rank 0 has 'precision = fp32', " .. last .. "precision = bf16'")
  named("another precision that is set", function()
    atomo.set_precision(odd and "bf16" or "fp32")
    local ok, why = pcall(train, function() end)
    atomo.set_precision "fp32"
    if not ok then error(why, 0) end
  end, "rank 0 has 'precision = fp32', " .. last .. "precision = bf16'")
  named("another policy", function() train(function(o) o.nonfinite = odd and "skip" or "abort" end) end,
    "rank 0 has 'nonfinite = abort'")
  named("other settings of the script", function() train(function(o) o.settings.model = odd and "b" or "a" end) end,
    "rank 0 has 'model = a', " .. last .. "model = b'")

  it("nothing where ranks differ in names of files only, or in the weights that they begin with", function()
    local model
    local Own = nn.Module:extend "Own" -- a user's class may hold what is this rank's own
    function Own:init() self.rank = world.rank end
    function Own:forward(x) return x end -- luacheck: ignore 212
    local info = train(function(o, m)
      m.extra = function() return Own() end
      o.settings.log = "run" .. world.rank
      atomo.manual_seed(world.rank)
      o.check_replicas = 1
      o.on_epoch = function() model = o.model end
    end)
    assert.equal(math.ceil(24 / (2 * world.size)), info.step)
    for i, p in ipairs(model:parameters()) do world:check("parameter " .. i, p:norm_value(2)) end
  end)
end)

describe("a step names", function()
  named("another learning rate than the other ranks'", function()
    train(function(o) o.schedule = function(step) return step == 2 and odd and 0.05 or 0.1 end end)
  end, "rank 0 is in allreduce #", "for 'step 3, lr 0.1'", "for 'step 3, lr 0.05'")

  named("replicas that are no longer equal", function()
    train(function(o)
      o.check_replicas = 2
      o.on_step = function(info)
        if info.step == 1 and odd then o.optimizer.params[1]:data()[3] = 0.123 end
      end
    end)
  end, "replicas after step 2: a value differs: rank 0 has '1.weight = crc ", last .. "1.weight = crc ",
    "make, load and change it alike on every rank")

  named("an all-reduce of another type", function() world:allreduce(atomo.full({4}, 1, odd and "i32" or "f32")) end,
    "rank 0 is in allreduce #", "(f32, 4 elements, sum)", "(i32, 4 elements, sum)")
  named("an all-reduce of another size", function() world:allreduce(atomo.ones(odd and 2 ^ 20 or 2 ^ 20 + 1)) end,
    "1048577 elements", "1048576 elements")
  named("another reduction", function() world:allreduce(atomo.ones(4), odd and "max" or "sum") end,
    "4 elements, sum", "4 elements, max")
  named("another collective", function()
    if odd then world:barrier() else world:bcast(atomo.ones(4), 0) end
  end, "rank 0 is in bcast #", " is in barrier #")
  named("another root", function() world:bcast(atomo.ones(4), odd and 1 or 0) end, "root 0", "root 1")
end)

describe("a communicator", function()
  it("that is not checked reports no difference", function()
    local alone = world:split(0)
    atomo.exchange {comm = alone, checked = false}
    local out = alone:bytes()
    alone:allreduce(atomo.ones(4))
    local now = alone:bytes()
    local n = math.floor(2 * 16 * (world.size - 1) / world.size)
    assert.equal(n, now - out)
    atomo.exchange {comm = alone, checked = true}
    out = alone:bytes()
    alone:allreduce(atomo.ones(4))
    now = alone:bytes()
    assert.equal(n + 48 * (world.size - 1), now - out)
    alone:close()
  end)
end)
