-- The exchange and the training loop on any number of ranks: dense training equals that of one rank with the whole
-- batch; replicas are bit-identical for every compressor; uneven last batches, non-finite steps, refusals.
local atomo = require "atomo"
local world = atomo.mpi.world
local joined = require "support.parameters"

local nn = atomo.nn

--- Makes a net without batch norm and without kinks: a ReLU could amplify differences of rounding between runs.
local function smooth_net()
  local function tanh(x) return x:tanh() end
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), tanh, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(200, 30), tanh,
    nn.Linear(30, 10)}
end

--- Trains a small net (or that of make_net) for two epochs; returns its parameters as one tensor and the last info.
local function run(comm, batch, exchange_options, more, make_net)
  atomo.manual_seed(5)
  local data = atomo.data.synthetic {train = 50, test = 20}
  local model = (make_net or smooth_net)()
  local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.02, momentum = 0.9, weight_decay = 1e-3}
  exchange_options.comm = comm
  local function loader(set, shuffle)
    return atomo.data.loader {set = set, batch = batch, rank = comm.rank, size = comm.size, seed = 1, shuffle = shuffle,
      mean = data.mean, std = data.std}
  end
  local o = {model = model, optimizer = optimizer, exchange = atomo.exchange(exchange_options), epochs = 2,
    data = {train = loader(data.train, true), test = loader(data.test, false)}, quiet = true}
  for key, value in pairs(more or {}) do o[key] = value end
  local info = atomo.train(o)
  return joined(optimizer), info, o
end

local function largest_difference(a, b) return (a:detach() - b:detach()):norm_value(math.huge) end

describe("dense exchange", function()
  -- 50 images in global batches of 4 * size: the last one is uneven, or leaves ranks without images.
  it("equals one rank with the whole batch", function()
    local alone = world:split(world.rank)
    local whole, info_whole = run(alone, 4 * world.size, {})
    for _, topology in ipairs {"allreduce", "allgather"} do
      local shared, info = run(world, 4, {topology = topology, min_size = 0})
      assert.is_true(largest_difference(whole, shared) < 1e-5, "difference " .. largest_difference(whole, shared))
      assert.is_true(math.abs(info.loss - info_whole.loss) < 1e-4)
      assert.is_true(math.abs(info.test_loss - info_whole.test_loss) < 1e-4)
      assert.is_true(math.abs(info.test_accuracy - info_whole.test_accuracy) < 1e-6)
    end
    alone:close()
  end)

  it("gives the same bits with overlap on and off", function()
    local a = run(world, 4, {overlap = true})
    local b = run(world, 4, {overlap = false})
    assert.equal(0, largest_difference(a, b))
  end)
end)

describe("replicas", function()
  for _, spec in ipairs {"none", "entry:ratio=16", "entry:atoms=200", "svd:ratio=8,bits=8",
    "svd:atoms=2,bits=32,fold=paper", "svd:bytes=4000,bits=16"} do
    it("hold the same bits under " .. spec, function()
      local seen = 0
      local flat, info = run(world, 8, {compress = spec, min_size = 100}, {check_replicas = 1,
        on_step = function(step) seen = seen + step.bytes_out end})
      local mine = atomo.tensor(flat:detach())
      world:bcast(mine, 0)
      assert.equal(0, largest_difference(flat, mine))
      assert.is_true(info.loss == info.loss and info.loss < 10)
      assert.is_true(world.size == 1 or seen > 0)
    end)
  end

  it("run the same way twice, and another way with another seed", function()
    local a = run(world, 8, {compress = "svd:ratio=16,bits=8", min_size = 100, seed = 3}):clone()
    local b = run(world, 8, {compress = "svd:ratio=16,bits=8", min_size = 100, seed = 3})
    local c = run(world, 8, {compress = "svd:ratio=16,bits=8", min_size = 100, seed = 4})
    assert.equal(0, largest_difference(a, b))
    assert.is_true(largest_difference(a, c) > 0)
  end)

  it("that differ are found", function()
    if world.size == 1 then return pending "one rank has no replica" end
    local ex = atomo.exchange {}
    local t = atomo.full({8}, world.rank == 1 and 1 or 0)
    local ok, text = pcall(ex.check_replicas, ex, t, "t")
    assert.is_false(ok)
    assert.matches("replicas of t", text)
  end)
end)

describe("budgets", function()
  it("of the whole step are met by the bytes sent", function()
    if world.size == 1 then return pending "one rank sends nothing" end
    local bytes, dense, n = 0, 0, 0
    run(world, 8, {compress = "entry:ratio=20", min_size = 500}, {on_step = function(s)
      bytes, dense, n = bytes + s.bytes_out, dense + s.dense_bytes, n + 1
    end, epochs = 4}, require("models.lenet").lenet)
    -- bytes_out counts what this rank hands to MPI: its messages once for each other rank, and the dense bucket.
    local a_message = bytes / n / (world.size - 1)
    assert.is_true(a_message < 1.3 * dense / n / 20, ("%g bytes a message, dense %g"):format(a_message, dense / n))
  end)
end)

describe("bytes of an all-reduce", function()
  it("are 2 (P - 1)/P of the gradient, of its factors, and of half of it", function()
    for _, each in ipairs {{"none", 64 * 128}, {"powersgd:rank=2,ef=true", 2 * (64 + 128)},
      {"bf16:round=stochastic", 64 * 128 / 2}, {"fp16", 64 * 128 / 2}} do
      local compress, floats = unpack(each)
      local ex = atomo.exchange {compress = compress, topology = "allreduce", checked = false, min_size = 10}
      for _ = 1, 2 do
        ex:push(1, atomo.ones(64, 128))
        ex:finish()
      end
      local s, want = ex:stats(), 8 * floats * (world.size - 1) / world.size
      assert.is_true(math.abs(s.bytes_out - want) <= 16, compress .. ": " .. s.bytes_out) -- the largest factor besides
      assert.is_true(math.abs(s.bytes_in - want) <= 16, compress .. ": " .. s.bytes_in)
    end
  end)
end)

describe("a step with NaN on one rank", function()
  local function poisoned(policy)
    local calls = 0
    return pcall(run, world, 8, {}, {nonfinite = policy, loss = function(logits, labels)
      calls = calls + 1
      local loss = atomo.F.cross_entropy(logits, labels)
      if calls == 2 and world.rank == world.size - 1 then loss = loss * (0 / 0) end
      return loss
    end})
  end

  it("is skipped by all where the policy says so", function()
    local ok, flat, info = poisoned "skip"
    assert.is_true(ok, tostring(flat))
    assert.equal(1, info.skipped)
    assert.equal(0, (flat:count_nonfinite()))
  end)

  it("ends the run where it says abort", function()
    local ok, text = poisoned "abort"
    assert.is_false(ok)
    assert.matches(("step 2: NaN or Inf in the loss or the gradient on 1 of %d ranks"):format(world.size), text)
    assert.matches(("this is rank %d, its loss is "):format(world.rank), text)
  end)
end)

describe("the exchange refuses", function()
  local function message(fn, ...)
    local ok, text = pcall(fn, ...)
    assert.is_false(ok)
    return text
  end

  it("invalid combinations, naming valid ones", function()
    assert.matches("messages of 'svd' cannot be added; those of bf16.*can go by topology allgather",
      message(atomo.exchange, {compress = "svd:ratio=4", topology = "allreduce"}))
  end)

  it("unknown options and invalid values, naming valid ones", function()
    assert.matches("unknown option 'compres', did you mean 'compress'%?, options are comm, compress, topology",
      message(atomo.exchange, {compres = "none"}))
    for _, case in ipairs {
      {"topology", "ring", "allreduce, allgather, ps, sharded, hierarchical, default or auto"},
      {"overlap", 3, "true or false"}, {"checked", "no", "true or false"},
      {"min_size", -1, "a number of elements >= 0"}, {"min_size", 0 / 0, "a number of elements >= 0"},
      {"downlink", "up", "dense or compress"},
      {"inter_node", "hierarchical", "auto, allreduce, allgather, ps or sharded"},
      {"fuse_small", "large", "auto, dense or compress"}, {"check_after", 9, "a whole number of steps, 10 or more"},
      {"check_after", 12.5, "a whole number"}, {"stall_warn", -1, "seconds, or 0 for never"},
      {"stall_abort", math.huge, "seconds, or 0"}, {"flight_prefix", "", "the beginning of a path"},
    } do
      local text = message(atomo.exchange, {[case[1]] = case[2]})
      local want = ("exchange: %s is %s, expected %s"):format(case[1], tostring(case[2]), case[3])
      assert.is_truthy(text:find(want, 1, true), text)
    end
    for _, value in ipairs {0, 0.5, 1e6} do
      assert.is_true(pcall(atomo.exchange, {stall_warn = value, stall_abort = value}))
    end
    assert.matches("stall_warn is soon, expected seconds", message(atomo.exchange, {stall_warn = "soon"}))
  end)

  it("gradients that are missing, doubled or of another shape", function()
    local ex = atomo.exchange {}
    ex:push(1, atomo.ones(3))
    assert.matches("pushed twice", message(ex.push, ex, 1, atomo.ones(3)))
    ex:finish()
    ex:push(1, atomo.ones(3))
    assert.matches("in the first step it was %[3%]", message(function()
      local other = atomo.exchange {}
      other:push(1, atomo.ones(3))
      other:finish()
      other:push(1, atomo.ones(4))
    end))
    assert.matches("the first step had 1", message(ex.push, ex, 2, atomo.ones(3)))
    ex:finish()
    assert.matches("0 of 1 gradients", message(ex.finish, ex))
  end)
end)

describe("peers in an exchange", function()
  it("majority vote: every rank gets the sign of most ranks", function()
    local ex = atomo.exchange {comm = world, compress = "signsgd:vote=true", min_size = 0}
    atomo.manual_seed(40 + world.rank)
    local g = atomo.randn(20, 30)
    local votes = (g:lt(0) * -2 + 1):contiguous()
    world:allreduce(votes, "sum")
    ex:push(1, g)
    ex:finish()
    local v, got = votes:data(), g:data()
    for i = 0, 599 do assert.equal(v[i] > 0 and 1 or v[i] < 0 and -1 or 0, got[i]) end
    ex:check_replicas(g, "votes")
  end)

  for _, text in ipairs {"qsgd", "terngrad", "natural", "eden", "randk:ratio=4", "topk:ratio=8,ef=true",
    "signsgd:ef=true",
    "powersgd:rank=2,ef=true", "fp16", "atomo-published"} do
    it(text .. ": the average of what every rank sends, the same bits everywhere", function()
      local ex = atomo.exchange {comm = world, compress = text, min_size = 0, seed = 3}
      local mine = atomo.compressor(text, {seed = 3})
      for step = 0, 2 do
        atomo.manual_seed(50 * step + world.rank)
        local g = atomo.randn(12, 3, 3, 4)
        local want = mine:decode(mine:encode(g, {step = step, rank = world.rank, tensor = 1}))
        world:allreduce(want, "sum")
        ex:push(1, g)
        ex:finish()
        assert.is_true((want * (1 / world.size) - g):norm_value(math.huge) < 1e-5 * (1 + want:norm_value(math.huge)))
        ex:check_replicas(g, "averages")
      end
    end)
  end
end)
