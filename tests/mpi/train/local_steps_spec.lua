-- Gradient accumulation equals a larger batch. Local SGD keeps replicas equal, equals the averaging of parameters at
-- H = 1, counts its bytes, and resumes bit-identically from a checkpoint.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
local joined = require "support.parameters"
local checkpoints = require "support.checkpoints"

local function tanh(x) return x:tanh() end

--- Makes a net without batch norm and kinks, which could amplify differences of rounding.
local function smooth_net()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), tanh, nn.AvgPool2d(3), nn.Flatten(), nn.Linear(200, 30), tanh,
    nn.Linear(30, 10)}
end

local function net_with_norm()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2, bias = false}), nn.BatchNorm2d(8, {relu = true}),
    nn.GlobalAvgPool(), nn.Dropout(0.2), nn.Linear(8, 10)}
end

--- Trains; o: batch, images, net, comm, exchange (options), optimizer, and options of atomo.train. Returns the state as
--- text by name, the info, the parameters as one tensor, the steps' infos.
local function run(o)
  atomo.manual_seed(5)
  local comm, data = o.comm or world, atomo.data.synthetic {train = o.images or 48, test = 10}
  local model = (o.net or smooth_net)()
  local ex = {comm = comm, min_size = 50, seed = 2}
  for key, value in pairs(o.exchange or {}) do ex[key] = value end
  local steps = {}
  local options = {model = model, quiet = true, eval_every = 0, epochs = 2, exchange = atomo.exchange(ex),
    optimizer = o.optimizer and o.optimizer(model:parameters()) or
      atomo.optim.sgd {params = model:parameters(), lr = 0.02, momentum = 0.9, weight_decay = 1e-3},
    data = {train = atomo.data.loader {set = data.train, batch = o.batch or 4, rank = comm.rank, size = comm.size,
      seed = 1, mean = data.mean, std = data.std}},
    on_step = function(info) steps[#steps + 1] = info end}
  for _, key in ipairs {"epochs", "accumulate", "local_steps", "outer", "save", "resume", "loss", "nonfinite",
    "max_steps", "check_replicas", "on_epoch"} do
    if o[key] ~= nil then options[key] = o[key] end
  end
  local info = atomo.train(options)
  local state = {}
  for name, t in pairs(model:state_dict()) do state[name] = t:bytes() end
  return state, info, joined(options.optimizer), steps
end

local function largest_difference(a, b) return (a:detach() - b:detach()):norm_value(math.huge) end

local function assert_equal_on_all_ranks(flat)
  local mine = atomo.tensor(flat:detach())
  world:bcast(mine, 0)
  assert.equal(0, largest_difference(flat, mine))
end

describe("accumulate", function()
  -- 50 images: the last step of an epoch has fewer micro-batches, and the last of these fewer images, none on some
  -- ranks.
  it("equals the larger batch, to rounding", function()
    for _, n in ipairs {2, 3} do
      local _, info_whole, whole, steps_whole = run {images = 50, batch = 2 * n}
      local _, info, parts, steps = run {images = 50, batch = 2, accumulate = n}
      assert.equal(#steps_whole, #steps)
      assert.is_true(largest_difference(whole, parts) < 1e-5, largest_difference(whole, parts))
      assert.is_true(math.abs(info.loss - info_whole.loss) < 1e-4)
      assert.is_true(math.abs(info.accuracy - info_whole.accuracy) < 1e-6)
      for i, s in ipairs(steps) do
        assert.equal(steps_whole[i].images, s.images)
        assert.equal(steps_whole[i].bytes_out, s.bytes_out) -- one exchange a step, however many micro-batches
      end
    end
  end)

  it("is another step than the small batch's", function()
    local _, _, one, steps_one = run {images = 48, batch = 2}
    local _, _, two, steps_two = run {images = 48, batch = 2, accumulate = 2}
    assert.equal(#steps_one, 2 * #steps_two)
    assert.is_true(largest_difference(one, two) > 1e-4)
  end)

  it("goes with every topology and with compressors", function()
    for _, topology in ipairs(world.size > 1 and {"allgather", "ps", "sharded", "hierarchical"} or {"allgather"}) do
      local _, _, flat = run {accumulate = 2, epochs = 1, exchange = {topology = topology, compress = "entry:ratio=4"}}
      assert_equal_on_all_ranks(flat)
    end
  end)
end)

describe("local steps", function()
  --- Averages the parameters after every step, which must equal H = 1 with outer learning rate 1 without momentum.
  local function average_by_hand()
    atomo.manual_seed(5)
    local data = atomo.data.synthetic {train = 48, test = 10}
    local model = smooth_net()
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.02, momentum = 0.9, weight_decay = 1e-3}
    for _, p in ipairs(optimizer.params) do world:bcast(p, 0) end
    local loader = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, seed = 1,
      mean = data.mean, std = data.std}
    for epoch = 1, 2 do
      for batch in loader:epoch(epoch) do
        optimizer:zero_grad()
        if batch.n > 0 then
          atomo.F.cross_entropy(model(batch.x), batch.y):backward()
          optimizer:step()
        end
        for _, p in ipairs(optimizer.params) do world:allreduce(p, "sum"):detach():mul_(1 / world.size) end
      end
    end
    return joined(optimizer)
  end

  it("of one step, with an outer lr of 1 and no momentum, average the parameters", function()
    local _, _, flat = run {local_steps = 1, outer = {lr = 1, momentum = 0}}
    assert.is_true(largest_difference(flat, average_by_hand()) < 2e-6)
  end)

  it("on one rank with a plain outer step of 1 are ordinary training, to rounding", function()
    local alone = world:split(world.rank)
    local _, _, plain = run {comm = alone}
    local _, _, outer = run {comm = alone, local_steps = 3, outer = {lr = 1, momentum = 0}}
    assert.is_true(largest_difference(plain, outer) < 2e-6)
    alone:close()
  end)

  it("take the gradient of a parameter that backward did not reach as zero, as an exchange does", function()
    local alone = world:split(world.rank)
    local function with_another(o)
      o.comm, o.optimizer = alone, function(params)
        o.another = atomo.param(atomo.ones(40))
        params[#params + 1] = o.another
        o.another.requires_grad = false -- so that the optimizer, when it is made, gives it no gradient
        local optimizer = atomo.optim.sgd {params = params, lr = 0.02, momentum = 0.9, weight_decay = 0.5}
        o.another.requires_grad = true
        assert.is_nil(o.another.grad)
        return optimizer
      end
      return o
    end
    local exchanged, here = with_another {}, with_another {local_steps = 1, outer = {lr = 1, momentum = 0}}
    run(exchanged)
    run(here)
    assert.is_true(exchanged.another:get(1) < 0.9) -- weight decay has reduced it
    assert.is_true(largest_difference(exchanged.another, here.another) < 2e-6)
    alone:close()
  end)

  it("apply Nesterov's momentum to the averaged moves", function()
    local alone = world:split(world.rank)
    local ends, starts = {}, {}
    local function record(o)
      o.comm, o.epochs, o.images, o.batch = alone, 1, 8, 4 -- two steps: two rounds of one
      local loss = atomo.F.cross_entropy
      o.optimizer = function(params)
        local optimizer = atomo.optim.sgd {params = params, lr = 0.05}
        local step = optimizer.step
        optimizer.step = function(self)
          starts[#starts + 1] = joined(self)
          step(self)
          ends[#ends + 1] = joined(self)
        end
        return optimizer
      end
      o.loss = loss
      return o
    end
    local _, _, flat = run(record {local_steps = 1, outer = {lr = 0.7, momentum = 0.9}})
    local d1, d2 = starts[1] - ends[1], starts[2] - ends[2]
    local after1 = starts[1] - (d1 + d1 * 0.9) * 0.7              -- v = d1; step by d1 + 0.9 v
    assert.is_true(largest_difference(after1, starts[2]) < 1e-6)
    local after2 = starts[2] - (d2 + (d1 * 0.9 + d2) * 0.9) * 0.7 -- v = 0.9 d1 + d2
    assert.is_true(largest_difference(after2, flat) < 1e-6)
    alone:close()
  end)

  it("leave the same bits on all ranks after every outer step, by every topology and compressor", function()
    local many = world.size > 1
    for _, e in ipairs {{compress = "none"}, {compress = "svd:ratio=4,bits=8"}, {compress = "topk:ratio=8,ef=true"},
      many and {compress = "entry:ratio=4", topology = "ps"}, {compress = "entry:ratio=4", topology = "sharded"},
      {compress = "entry:ratio=4", topology = "hierarchical"}, {compress = "powersgd:rank=2,ef=true"}} do
      if e then
        local _, info, flat, steps = run {local_steps = 3, check_replicas = 1, exchange = e}
        assert_equal_on_all_ranks(flat)
        assert.is_true(info.loss == info.loss and info.loss < 10)
        assert.equal(info.step, #steps)
      end
    end
  end)

  it("between exchanges send nothing, and let the ranks differ", function()
    if world.size == 1 then return pending "one rank sends nothing" end
    local of_epoch
    local _, info, _, steps = run {local_steps = 2, images = 12 * world.size, epochs = 1, -- rounds of 2 and 1
      on_epoch = function(i) of_epoch = i.bytes_out end}
    assert.equal(3, #steps)
    assert.equal(0, steps[1].bytes_out)
    assert.is_true(steps[2].bytes_out > 0 and steps[3].bytes_out > 0)
    assert.equal(of_epoch, steps[2].bytes_out + steps[3].bytes_out)
    if world.rank == 0 then assert.equal(info.bytes_out, of_epoch) end
    assert.is_true(steps[1].dense_bytes > 0)
    local own = world:allgatherv(("%.17g"):format(steps[1].loss))
    local shared = world:allgatherv(("%.17g"):format(steps[2].loss))
    assert.is_true(own[1] ~= own[2])
    assert.equal(shared[1], shared[2])
  end)

  it("go with accumulation", function()
    local _, _, flat, steps = run {local_steps = 2, accumulate = 2, images = 32 * world.size, epochs = 1}
    assert.equal(4, #steps)
    assert_equal_on_all_ranks(flat)
    assert.equal(0, steps[3].bytes_out)
  end)

  it("continue from a checkpoint bit-identically: inner and outer state, error memory, running statistics", function()
    for _, compress in ipairs {"entry:ratio=4", "topk:ratio=8,ef=true"} do
      local path = checkpoints.path()
      local function options(more)
        more.local_steps, more.images, more.net, more.exchange = 2, 60, net_with_norm, {compress = compress}
        more.optimizer = function(params) return atomo.optim.adam {params = params, lr = 0.01} end
        return more
      end
      local whole = run(options {epochs = 3, save = path .. ".whole"})
      run(options {epochs = 2, save = path})
      local resumed = run(options {epochs = 3, resume = path, save = path .. ".again"})
      for name, bytes in pairs(whole) do assert.is_true(bytes == resumed[name], name .. " differs") end
      local own = ("%s/rank-%d.safetensors"):format(checkpoints.named(path), world.size - 1)
      checkpoints.with_bytes(own, nil, function() -- the inner optimizer would lose its state
        local ok, text = pcall(run, options {epochs = 3, resume = checkpoints.named(path)})
        assert.is_false(ok)
        assert.matches(("step%%-%%d+: rank%%-%d%%.safetensors is missing"):format(world.size - 1), text)
      end)
      checkpoints.remove_all()
    end
  end)

  it("skip a step with NaN if the policy says so, else name the rank", function()
    local function poisoned(policy)
      local calls = 0
      return pcall(run, {local_steps = 3, nonfinite = policy, epochs = 1, images = 24 * world.size,
        loss = function(logits, labels)
          calls = calls + 1
          local loss = atomo.F.cross_entropy(logits, labels)
          return calls == 2 and world.rank == world.size - 1 and loss * (0 / 0) or loss
        end})
    end
    local ok, _, info, flat = poisoned "skip"
    assert.is_true(ok, tostring(info))
    assert.equal(1, info.skipped)
    assert.equal(0, (flat:count_nonfinite()))
    assert_equal_on_all_ranks(flat)
    if world.size > 1 then return end -- a rank that raises leaves the others waiting
    local fine, text = poisoned "abort"
    assert.is_false(fine)
    assert.matches("step 2: NaN or Inf .* of a local step", text)
  end)

  it("drop a round if a rank's parameters are not finite", function()
    local before
    local ok, _, info, flat = pcall(run, {local_steps = 2, nonfinite = "skip", epochs = 1, images = 16 * world.size,
      optimizer = function(params)
        local optimizer = atomo.optim.sgd {params = params, lr = 0.02}
        local step, taken = optimizer.step, 0
        optimizer.step = function(self)
          before = before or joined(self)
          step(self)
          taken = taken + 1
          if taken >= 3 and world.rank == 0 then self.params[1]:detach():fill_(1 / 0) end -- the second round breaks
        end
        return optimizer
      end})
    assert.is_true(ok, tostring(info))
    assert.equal(2, info.skipped) -- rank 0's fourth step, and the round
    assert.equal(0, (flat:count_nonfinite()))
    assert.is_true(largest_difference(flat, before) > 0) -- the first round was kept
    assert_equal_on_all_ranks(flat)
  end)

  it("refuse invalid options", function()
    local function message(o)
      local ok, text = pcall(run, o)
      assert.is_false(ok)
      return text
    end
    assert.matches("local_steps is %-1, expected a whole number of at least 0", message {local_steps = -1})
    assert.matches("accumulate is 0, expected a whole number of at least 1", message {accumulate = 0})
    assert.matches("accumulate is 1.5", message {accumulate = 1.5})
    assert.matches("outer wants local_steps > 0", message {outer = {lr = 1}})
    assert.matches("outer momentum is %-1", message {local_steps = 2, outer = {momentum = -1}})
    assert.matches("outer: unknown option 'rate'", message {local_steps = 2, outer = {rate = 1}})
  end)
end)
