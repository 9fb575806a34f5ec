-- topology = "auto" and compress = "adaptive": all ranks measure, choose, check and change together, replicas stay
-- bit-identical through every change, and a compressor is chosen on a simulated slow network. Nothing here depends on
-- measured times: the winner of a trial is not asserted, only that all ranks agree on it.
local atomo = require "atomo"
local auto = require "atomo.exchange.auto"
local choose = require "atomo.exchange.auto.choose"
local probe = require "atomo.exchange.auto.probe"
local world = atomo.mpi.world
local joined = require "support.parameters"
local hosts_of_two = require "support.hosts"
local checkpoints = require "support.checkpoints"

local slow = {ranks = world.size, hosts = world.size, latency = 1e-3, rate = 1e4}

--- Returns invented works (cost.lua) of the gradients below with every compressor.
local function works()
  local list = {}
  for i, name in ipairs(choose.compressors) do
    list[name] = {dense = 26300, small = 28, message = i == 1 and 26272 or 400, encode = i == 1 and 0 or 1e-4,
      decode = i == 1 and 0 or 1e-5, copy = 1e-5, tensors = 3, scales = 1, backward = 0}
  end
  return list
end

local function quiet(ex)
  local told = {}
  ex.notify = function(text, event) told[#told + 1] = {text = text, event = event} end
  return told
end

local function gradients(step)
  local grads = {}
  for i, shape in ipairs {{48, 64}, {7}, {32, 3, 3, 8}, {40, 30}} do
    atomo.manual_seed(1000 * step + 10 * i + world.rank)
    grads[i] = atomo.randn(shape)
  end
  return grads
end

--- Runs one step; asserts that averages are bit-identical on all ranks. Returns the averages and the pushed gradients.
local function step(ex, k)
  local grads, before = gradients(k), {}
  for i, g in ipairs(grads) do before[i] = g:clone() end
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
  ex:finish()
  for i, g in ipairs(grads) do ex:check_replicas(g, ("gradient %d of step %d"):format(i, k)) end
  return grads, before
end

local function run(ex, steps)
  for k = 1, steps do
    step(ex, k)
    world:check("choice", ex:choice())
  end
end

describe("the probe", function()
  it("gives all ranks the same figures", function()
    for _, comm in ipairs {world, hosts_of_two} do
      local net = probe.network(comm)
      assert.equal(world.size, net.ranks)
      assert.equal(comm == world and 1 or math.ceil(world.size / 2), net.hosts)
      for _, key in ipairs {"latency", "rate", "memory_latency", "memory_rate"} do
        world:check(key, net[key] or "none")
        assert.is_true(net[key] == nil or net[key] > 0 and net[key] < math.huge, key)
      end
      assert.equal(net.hosts > 1, net.rate ~= nil)
      assert.equal(world.size > 1, net.memory_rate ~= nil)
    end
  end)
end)

if world.size == 1 then
  describe("one rank", function()
    it("has nothing to choose", function()
      local ex = atomo.exchange {compress = "adaptive"}
      assert.equal("none", ex.compressor.name)
      assert.equal("allreduce", ex.topology)
      assert.is_nil(ex.choice)
      assert.equal("allgather", atomo.exchange {compress = "entry:ratio=4", topology = "auto"}.topology)
    end)
  end)
  return
end

describe("auto", function()
  it("compresses on a slow network, and is right on average there", function()
    local ex = auto.new({compress = "adaptive", min_size = 50}, {network = slow})
    local told = quiet(ex)
    run(ex, 3)
    assert.not_equal("none", ex.compressor.name)
    assert.equal(3, ex.step)
    assert.equal("first choice, by prediction", told[1].event.why)
    assert.matches(choose.network_text(slow), told[1].text, 1, true)
    assert.matches("->", told[1].text, 1, true)
    local s = ex:stats()
    assert.is_true(s.bytes_out > 0 and s.bytes_out < s.dense_bytes * world.size)
  end)

  it("averages dense gradients exactly, whichever way it chooses", function()
    local ex = auto.new({compress = "none", topology = "auto", min_size = 50}, {network = slow})
    quiet(ex)
    for k = 1, 6 do
      local grads, before = step(ex, k)
      assert.equal("none", ex.compressor.name)
      for i, g in ipairs(before) do
        world:allreduce(g, "sum")
        assert.is_true((g:mul_(1 / world.size) - grads[i]):norm_value(math.huge) < 1e-6)
      end
    end
  end)

  it("chooses the topology alone of a compressor that is named", function()
    for _, spec in ipairs {"entry:ratio=8", {name = "svd", ratio = 8, bits = 8}, "none"} do
      local ex = auto.new({compress = spec, topology = "auto", min_size = 50, comm = hosts_of_two},
        {network = {ranks = world.size, hosts = math.ceil(world.size / 2), latency = 1e-4, rate = 1e5,
          memory_latency = 1e-6, memory_rate = 1e9}})
      local told = quiet(ex)
      run(ex, 5)
      assert.equal(tostring(atomo.compressor(spec)), tostring(ex.compressor))
      if spec == "none" and world.size == 4 then assert.equal("hierarchical", ex.topology) end
      assert.equal("exchange", told[1].event.event)
    end
  end)

  it("measures the network itself where it is not told", function()
    local ex = atomo.exchange {compress = "adaptive", min_size = 50, check_after = 10}
    local told, steps = quiet(ex), 0
    while not ex.chooser.settled and steps < 300 do -- on a busy machine measured times may cause another trial
      run(ex, 5)
      steps = steps + 5
    end
    assert.is_true(ex.chooser.settled)
    assert.equal(world.size, told[1].event.network.ranks)
  end)

  it("checks a wrong prediction against the clock; all ranks change alike, or none", function()
    for _, o in ipairs {{compress = "adaptive"}, {compress = "entry:ratio=8", topology = "auto"}} do
      o.min_size, o.check_after = 50, 10
      local ex = auto.new(o, {network = slow})
      local told = quiet(ex)
      run(ex, 30)
      assert.is_true(ex.chooser.settled)
      assert.is_false(ex.chooser.pending)
      assert.equal(30, ex.step)
      local checked
      for _, t in ipairs(told) do
        if t.event.why == "checked" then checked = t.event end
      end
      assert.is_true(checked.measured > 0 and checked.predicted_exchange > 0)
    end
  end)

  it("falls back to dense only if measured times say so", function()
    -- 26 kB of dense gradients take 44 ms: long enough for a compressor to be chosen, and short enough for dense to be
    -- tried
    local rate = 6e5 * math.ceil(math.log(world.size) / math.log(2) - 1e-9)
    local net = {ranks = world.size, hosts = world.size, latency = 1e-4, rate = rate}
    -- In the last two cases, steps with the compressor are not 3 % shorter than dense ones, so it is not kept.
    for _, case in ipairs {{none = 1e-3, other = 0.05, ends = true}, {none = 0.05, other = 1e-3, ends = false},
      {none = 0.05, other = 0.049, ends = true}, {none = 0.05, other = 0.048, ends = false}} do
      local ex, now = nil, 0
      local function clock() -- each call advances by a time that depends on the running compressor
        now = now + (ex and ex.compressor.name ~= "none" and case.other or case.none)
        return now
      end
      ex = auto.new({compress = "adaptive", min_size = 50, check_after = 10},
        {network = net, works = works(), now = clock})
      local told = quiet(ex)
      run(ex, 5)
      assert.not_equal("none", ex.compressor.name)
      run(ex, 40)
      assert.is_true(ex.chooser.settled)
      assert.equal(case.ends, ex.compressor.name == "none")
      local tried = 0
      for _, t in ipairs(told) do
        if t.event.why == "tried" then tried = tried + 1 end
      end
      assert.is_true(tried >= 1 or not case.ends)
    end
  end)

  it("tries dense again if the network was slow only at the start of the run", function()
    local fine = {ranks = world.size, hosts = world.size, latency = 1e-5, rate = 1e9}
    for _, later in ipairs {fine, slow} do
      local ex, now, probes = nil, 0, 0
      local function network()
        probes = probes + 1
        return probes == 1 and slow or later
      end
      -- the compressor's steps are so short that dense ones cannot be as short on the slow network
      local function clock()
        now = now + (ex and ex.compressor.name ~= "none" and 2e-3 or 1e-3)
        return now
      end
      ex = auto.new({compress = "adaptive", min_size = 50, check_after = 10}, {network = network, works = works(),
        now = clock})
      quiet(ex)
      run(ex, 40)
      assert.is_true(ex.chooser.settled)
      assert.equal(2, probes)
      assert.equal(later == fine, ex.compressor.name == "none")
    end
  end)

  it("gives up a step, also the first", function()
    local ex = auto.new({compress = "adaptive", min_size = 50}, {network = slow})
    quiet(ex)
    for k = 1, 3 do
      for i, g in ipairs(gradients(k)) do ex:push(i, g) end
      if k ~= 2 then ex:drop() else ex:finish() end
    end
    assert.equal(1, ex.step)
    run(ex, 2)
  end)

  it("keeps the choice of a checkpoint, with the same bits", function()
    local first = auto.new({compress = "adaptive", min_size = 50, seed = 2}, {network = slow})
    quiet(first)
    run(first, 4)
    local second = auto.new({compress = "adaptive", min_size = 50, seed = 2}, {network = slow})
    second:restore(first:choice())
    assert.is_true(second.chooser.settled)
    second.step = 7
    assert.equal(first:choice(), second:choice())
    local s = atomo.log.decode(first:choice())
    local plain = atomo.exchange {compress = s.compress, topology = s.topology, min_size = 50, seed = 2,
      downlink = s.downlink, inter_node = s.inter_node}
    plain.step = 7
    local a, b = step(second, 1), step(plain, 1)
    for i, g in ipairs(a) do assert.equal(0, (g - b[i]):norm_value(math.huge)) end
  end)

  --- Trains a small net with exchange ex; returns its parameters as one tensor.
  local function train(ex, more)
    local data = atomo.data.synthetic {train = 96, test = 8}
    atomo.manual_seed(1)
    local nn = atomo.nn
    local model = nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), nn.ReLU(), nn.Flatten(), nn.Linear(15 * 15 * 8, 10)}
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01}
    local o = {model = model, optimizer = optimizer, quiet = true, check_replicas = 1, exchange = ex,
      data = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, seed = 1,
        mean = data.mean, std = data.std}}
    for key, value in pairs(more) do o[key] = value end
    atomo.train(o)
    return joined(optimizer)
  end

  it("resumes from a checkpoint with the choice that is stored in it", function()
    local path = checkpoints.path()
    local ex = auto.new({compress = "adaptive", check_after = 10, seed = 1}, {network = slow})
    train(ex, {epochs = 1, save = path})
    local choice = ex:choice()
    local again = atomo.exchange {compress = "adaptive", seed = 1}
    local flat = train(again, {epochs = 2, resume = path})
    assert.equal(choice, again:choice())
    local s = atomo.log.decode(choice)
    local plain = atomo.exchange {compress = s.compress, topology = s.topology, seed = 1, downlink = s.downlink,
      inter_node = s.inter_node}
    local expected = train(plain, {epochs = 2, resume = path})
    assert.equal(0, (flat:detach() - expected:detach()):norm_value(math.huge))
    checkpoints.remove(path)
  end)

  it("trains like any exchange, and logs its decisions", function()
    local path = world.rank == 0 and os.tmpname() or nil
    local ex = auto.new({compress = "adaptive", check_after = 10}, {network = slow})
    train(ex, {epochs = 3, log = path})
    world:check("choice", ex:choice())
    if not path then return end
    local seen = 0
    for _, e in ipairs((atomo.log.read(path))) do if e.event == "exchange" then seen = seen + 1 end end
    os.remove(path)
    assert.is_true(seen >= 2)
  end)
end)

describe("an invalid combination of options", function()
  local function refused(text, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    assert.matches(text, message, 1, true)
  end

  it("is refused by name", function()
    refused("check_after is 3", atomo.exchange, {topology = "auto", check_after = 3})
    refused("topology is ring, expected allreduce", atomo.exchange, {compress = "adaptive", topology = "ring"})
    refused("unknown compressor 'svt'", atomo.exchange, {compress = "svt", topology = "auto"})
    local ex = atomo.exchange {compress = "entry:ratio=4", topology = "auto"}
    refused("is no choice that a checkpoint holds", ex.restore, ex, "{}")
    refused("this run asks for entry:ratio=4", ex.restore, ex, '{"compress":"none","topology":"allreduce"}')
  end)
end)
