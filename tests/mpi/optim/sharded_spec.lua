-- A sharded optimizer (ZeRO-1): bit-identical to one that is not sharded, 1/P of its state on each rank, state that
-- moves between both, and errors that reach every rank.
local atomo = require "atomo"
local fails = require "support.fails"
local replicas = require "atomo.comm.replicas"
local world = atomo.mpi.world

local shapes = {{1}, {15}, {16}, {17}, {1003}, {}, {3, 5, 7}, {64}, {2, 8}}

--- Returns parameters of these shapes with the same values on every rank.
local function parameters()
  atomo.manual_seed(3)
  local list = {}
  for i, shape in ipairs(shapes) do list[i] = atomo.param(atomo.randn(shape)) end
  return list
end

--- Sets the gradients of step `step`; the tensors are made anew in odd steps.
local function set_gradients(params, step)
  atomo.manual_seed(100 + step)
  for i, p in ipairs(params) do
    local g = atomo.randn(shapes[i])
    if step % 2 == 1 then p.grad = g elseif p.grad then p.grad:copy_(g) end
  end
end

local function take(optimizer, from, to, at)
  for step = from, to do
    if at then at(step, optimizer) end
    set_gradients(optimizer.params, step)
    optimizer:step()
  end
  return optimizer
end

local function values(optimizer)
  local list = {}
  for i, p in ipairs(optimizer.params) do list[i] = p:detach():contiguous():view(p:numel()):totable() end
  return list
end

--- Returns a state_dict with its tensors as tables.
local function plain(state)
  local s = {}
  for key, v in pairs(state) do s[key] = atomo.is_tensor(v) and v:totable() or v end
  return s
end

local function elements(optimizer)
  local n, whole = 0, 0
  for _, group in ipairs(optimizer.groups) do
    for _, block in pairs(group.state) do n, whole = n + block:numel(), whole + group.n end
  end
  return n, whole
end

local function one_group(params) return params end
local function groups(params)
  return {{params = {unpack(params, 1, 1)}}, {params = {unpack(params, 2, 5)}, lr = 0.003},
    {params = {unpack(params, 6)}, weight_decay = 0.2}}
end

local kinds = {
  {"sgd", {lr = 0.1}}, {"sgd", {lr = 0.1, momentum = 0.9, weight_decay = 0.01}},
  {"sgd", {lr = 0.1, momentum = 0.9, dampening = 0.3}}, {"sgd", {lr = 0.1, momentum = 0.9, nesterov = true}},
  {"adam", {lr = 0.01, weight_decay = 0.1}}, {"adam", {lr = 0.01, amsgrad = true}}, {"adamw", {lr = 0.01}},
  {"adamw", {lr = 0.01, amsgrad = true}},
}

local function make(kind, options, cut)
  local o = {params = (cut or one_group)(parameters())}
  for name, v in pairs(options) do o[name] = v end
  return atomo.optim[kind](o)
end

--- Checks that both have taken the same way, and that ranks have the same weights.
local function equal(a, b)
  assert.same(values(a), values(b))
  assert.same(plain(a:state_dict()), plain(b:state_dict()))
  for _, p in ipairs(b.params) do replicas.check(world, "weights", p:detach():contiguous()) end
end

describe("a sharded optimizer", function()
  for _, entry in ipairs(kinds) do
    local kind, options = entry[1], entry[2]
    for _, cut in ipairs {one_group, groups} do
      local name = {}
      for key, v in pairs(options) do name[#name + 1] = key .. "=" .. tostring(v) end
      table.sort(name)
      it(("has the bits of one that is not: %s %s, %s"):format(kind, table.concat(name, " "),
        cut == groups and "groups" or "one group"), function()
        local a, b = make(kind, options, cut), make(kind, options, cut):shard(world)
        take(a, 1, 5)
        take(b, 1, 5)
        equal(a, b)
        local n, whole = elements(b)
        local most = whole / world.size + 16 * 3 * #b.groups
        assert.is_true(n <= most, ("%d elements of state, expected at most %g of %d"):format(n, most, whole))
        local sum = atomo.tensor {n}
        assert.equal(whole, world:allreduce(sum):item())
      end)
    end
  end

  it("cuts blocks evenly, also of many small groups", function()
    local params, list = {}, {}
    for i = 1, 24 do
      params[i] = atomo.param(atomo.ones(i % 3 == 0 and 40 or 16))
      list[i] = {params = {params[i]}}
    end
    local o = atomo.optim.adam({params = list}):shard(world)
    for _, p in ipairs(params) do p.grad = atomo.ones(p:shape()) end
    o:step()
    local n, whole = elements(o)
    assert.is_true(math.abs(n - whole / world.size) <= 2 * 16, ("%d of %d"):format(n, whole))
  end)

  it("skips frozen parameters, and those without a gradient, as the other does", function()
    local function run(o)
      for step = 1, 6 do
        for _, p in ipairs(o.params) do p.grad = nil end
        set_gradients(o.params, 2 * step + 1)
        o.params[5]:requires_grad_(step < 2 or step > 3)
        o.params[4]:requires_grad_(step > 2)
        if step == 3 or step == 5 then o.params[7].grad = nil end
        o:step()
      end
      return o
    end
    local a = run(make("adamw", {lr = 0.01}, groups))
    equal(a, run(make("adamw", {lr = 0.01}, groups):shard(world)))
    assert.same({6, 4, 4, 4}, {a.groups[1].taken[1], a.groups[2].taken[3], a.groups[2].taken[4],
      a.groups[3].taken[2]})
  end)

  it("does not send frozen parameters", function()
    local o = make("sgd", {lr = 0.1}):shard(world)
    local function sent()
      set_gradients(o.params, 1)
      o:step()
      return world:allreduce(atomo.tensor {o.shards and o.shards.bytes_out or 0}):item()
    end
    local all = sent()
    o.params[5]:requires_grad_(false)
    assert.equal(all - 4 * 1003 * (world.size - 1), sent())
    o.params[5]:requires_grad_(true)
    assert.equal(all, sent())
  end)

  it("updates a parameter that took another one's place in a group", function()
    local function run(o)
      take(o, 1, 2)
      local p = atomo.param(atomo.ones(1003))
      o.groups[1].params[5], o.params[5] = p, p
      return take(o, 3, 4)
    end
    equal(run(make("adam", {lr = 0.1})), run(make("adam", {lr = 0.1}):shard(world)))
  end)

  it("follows options and rates that are set between steps", function()
    local function at(step, o)
      o.lr = 0.01 / step
      if step == 3 then o.groups[2].lr, o.groups[3].weight_decay = 0.5, 0 end
      if step == 4 then o.groups[1].amsgrad = true end
    end
    local a, b = make("adamw", {lr = 0.01}, groups), make("adamw", {lr = 0.01}, groups):shard(world)
    equal(take(a, 1, 6, at), take(b, 1, 6, at))
  end)

  it("updates parameters that are not contiguous, and gradients that are not", function()
    local function run(sharded)
      atomo.manual_seed(4)
      local storage = atomo.randn(40, 30)
      local params = {atomo.param(atomo.randn(30, 40)), storage:t():detach()}
      params[2].requires_grad = true
      local o = atomo.optim.adam {params = params, lr = 0.1}
      if sharded then o:shard(world) end
      for step = 1, 3 do
        params[1].grad, params[2].grad = atomo.randn(40, 30):t(), atomo.randn(30, 40)
        o:step()
        if step == 2 then atomo.no_grad(function() params[2]:mul_(0.5) end) end
      end
      assert.is_false(params[2]:is_contiguous())
      return o
    end
    equal(run(false), run(true))
  end)

  it("works beside a second one", function()
    local function run(sharded)
      local a, b = make("adam", {lr = 0.01}), make("sgd", {lr = 0.1, momentum = 0.9})
      if sharded then a:shard(world); b:shard(world) end
      for step = 1, 3 do
        take(a, step, step)
        take(b, step, step)
      end
      return a, b
    end
    local a, b = run(false)
    local c, d = run(true)
    equal(a, c)
    equal(b, d)
  end)

  it("allocates nothing in its steps, once the state is there", function()
    local ffi, C = require("atomo.ffi").ffi, require("atomo.ffi").C
    local o, mem = make("adam", {lr = 0.01}):shard(world), ffi.new "atomo_mem"
    set_gradients(o.params, 1)
    for _ = 1, 3 do o:step() end
    for _ = 1, 2 do collectgarbage() end -- frees now what earlier specs left, not between the counts
    C.atomo_mem_stats(mem)
    local before, blocks = mem.system_allocs, mem.live_blocks
    for _ = 1, 20 do o:step() end
    C.atomo_mem_stats(mem)
    assert.equal(before, mem.system_allocs)
    assert.equal(blocks, mem.live_blocks)
  end)

  it("counts the bytes of the weights that it sends", function()
    local o = make("sgd", {lr = 0.1}):shard(world)
    set_gradients(o.params, 1)
    local out, input = world:bytes()
    o:step()
    local out2, input2 = world:bytes()
    if world.size == 1 then
      assert.is_false(o.shards)
      return
    end
    local compared = 2 * 48 * (world.size - 1) -- two comparisons: before the update, and before weights are sent
    assert.equal(o.shards.bytes_out + compared, out2 - out)
    assert.equal(o.shards.bytes_in + compared, input2 - input)
    local all = 0
    for _, p in ipairs(o.params) do all = all + 4 * p:numel() end
    local sum = atomo.tensor {o.shards.bytes_out}
    assert.equal(all * (world.size - 1), world:allreduce(sum):item())
  end)
end)

describe("a sharded optimizer that sends changes of weights in bf16", function()
  --- Returns t rounded to bf16.
  local function rounded(t)
    return t:to "bf16":to "f32"
  end

  for _, kind in ipairs {"sgd", "adam"} do
    local options = kind == "sgd" and {lr = 0.1, momentum = 0.9} or {lr = 0.01, amsgrad = true}
    it(kind .. ": all ranks add the rounded change to the weights before", function()
      local a, b = make(kind, options, groups), make(kind, options, groups):shard(world, {weights = "bf16"})
      for step = 1, 5 do
        local old = {}
        for i, p in ipairs(a.params) do old[i] = p:detach():clone() end
        take(a, step, step)
        if world.size > 1 then
          atomo.no_grad(function()
            for i, p in ipairs(a.params) do p:copy_(old[i] + rounded((p - old[i]):detach())) end
          end)
        end
        take(b, step, step)
        equal(a, b)
      end
    end)
  end

  it("sends half the bytes, also of strided parameters, and can go back to exact weights", function()
    local function run(weights)
      atomo.manual_seed(4)
      local p = atomo.randn(40, 30):t():detach()
      p.requires_grad = true
      local o = atomo.optim.adam({params = {p}, lr = 0.1}):shard(world, {weights = weights})
      p.grad = atomo.ones(30, 40)
      o:step()
      return o
    end
    local a, b = run "fp32", run "bf16"
    replicas.check(world, "weights", b.params[1]:detach():contiguous())
    local apart = (a.params[1] - b.params[1]):detach():abs():max():item()
    assert.is_true(apart <= 0.1 / 512 * 1.01, ("%g apart"):format(apart))
    if world.size == 1 then return end
    assert.is_true(apart > 0)
    assert.equal(a.shards.bytes_out, 2 * b.shards.bytes_out)
    assert.equal(a.shards.bytes_in, 2 * b.shards.bytes_in)
    b:shard(world)
    assert.equal("fp32", b.shards.weights)
  end)

  it("leaves no tensor behind", function()
    local ffi, C = require("atomo.ffi").ffi, require("atomo.ffi").C
    local o, mem = make("adam", {lr = 0.01}):shard(world, {weights = "bf16"}), ffi.new "atomo_mem"
    set_gradients(o.params, 1)
    for _ = 1, 3 do o:step() end
    for _ = 1, 2 do collectgarbage() end
    C.atomo_mem_stats(mem)
    local before, blocks = mem.system_allocs, mem.live_blocks
    for _ = 1, 20 do o:step() end
    C.atomo_mem_stats(mem)
    assert.equal(before, mem.system_allocs)
    assert.equal(blocks, mem.live_blocks)
  end)
end)

describe("the state of a sharded optimizer", function()
  local function new() return make("adam", {lr = 0.01, amsgrad = true}, groups) end

  it("moves to one that is not, and back", function()
    local a = take(new(), 1, 6)
    local b = take(new():shard(world), 1, 3)
    local c = take(make("adam", {lr = 0.01, amsgrad = true}, groups), 1, 3)
    c:load_state_dict(b:state_dict())
    take(c, 4, 6)
    equal(a, c)
    local d = take(new():shard(world), 1, 3)
    local plain_one = take(new(), 1, 3)
    for _, group in ipairs(d.groups) do
      for _, block in pairs(group.state) do block:fill_(7) end
    end
    d:load_state_dict(plain_one:state_dict())
    equal(a, take(d, 4, 6))
  end)

  it("is kept when an optimizer is sharded, or no longer, between steps", function()
    local a, b = take(new(), 1, 6), take(new(), 1, 2)
    b:shard(world)
    take(b, 3, 4)
    assert.equal(b, b:unshard())
    local n, whole = elements(b)
    assert.equal(whole, n)
    equal(a, take(b, 5, 6))
    assert.equal(b, b:unshard())
  end)

  it("changes nothing when it does not fit", function()
    local o = take(new():shard(world), 1, 2)
    local before, s = plain(o:state_dict()), o:state_dict()
    s["2.first"] = atomo.zeros(3)
    fails("'2.first' has 3 elements", o.load_state_dict, o, s)
    assert.same(before, plain(o:state_dict()))
  end)

  it("is zero after a load that lacks it", function()
    local o = take(new():shard(world), 1, 2)
    o:load_state_dict(new():state_dict())
    local fresh = take(new(), 1, 2)
    for i, p in ipairs(o.params) do atomo.no_grad(function() p:copy_(fresh.params[i]) end) end
    fresh:load_state_dict(new():state_dict())
    equal(take(fresh, 3, 4), take(o, 3, 4))
  end)
end)

describe("a sharded optimizer refuses", function()
  local function small(kind, options)
    local o = {params = {atomo.param(atomo.ones(40))}, lr = 0.1}
    for name, v in pairs(options or {}) do o[name] = v end
    return atomo.optim[kind](o)
  end

  it("lars and lamb, by name", function()
    for _, kind in ipairs {"lars", "lamb"} do
      fails({kind .. ": it cannot be sharded", "norms of whole tensors"}, function() small(kind):shard(world) end)
    end
  end)

  it("what is no communicator, and another one", function()
    fails("sgd: shard: expected a communicator", function() small("sgd"):shard(4) end)
    fails("sgd: shard: expected a communicator", function() small("sgd"):shard() end)
    local other, o = world:split(0), small("sgd"):shard(world)
    assert.equal(o, o:shard(world))
    fails("sgd: shard: weights is fp16, expected 'fp32' or 'bf16'", o.shard, o, world, {weights = "fp16"})
    fails("sgd: shard: unknown option 'weight'", o.shard, o, world, {weight = "bf16"})
    fails("sgd: shard: options are a string", o.shard, o, world, "bf16")
    if world.size > 1 then fails("sharded over another communicator", o.shard, o, other) end
    other:close()
  end)

  if world.size == 1 then return end
  local last = world.rank == world.size - 1

  --- Runs a step that fails; checks the error on every rank, and that nothing has changed.
  local function refused(texts, o, change)
    o:shard(world)
    o.params[1].grad = atomo.ones(o.params[1]:shape())
    o:step()
    local before, steps = o.params[1]:totable(), o.steps
    if last then change(o) end
    fails(texts, o.step, o)
    assert.same(before, o.params[1]:totable())
    assert.equal(steps, o.steps)
  end

  it("a step that one rank cannot take, on every rank", function()
    refused({"sgd: step: a setting differs", "momentum is -1, expected a number >= 0"},
      small("sgd", {momentum = 0.5}), function(o) o.groups[1].momentum = -1 end)
    refused({"sgd: step: a setting differs", ".grad of parameter 1", "is f32 [3]"}, small("sgd"), function(o)
      o.params[1].grad = atomo.ones(3)
    end)
  end)

  it("steps that differ between ranks", function()
    refused({"group 1: lr = 0.1", "group 1: lr = 0.2"}, small("sgd"), function(o) o.lr = 0.2 end)
    refused({"group 1: momentum = 0.5", "group 1: momentum = 0.25"}, small("sgd", {momentum = 0.5}), function(o)
      o.groups[1].momentum = 0.25
    end)
    refused({"weights = fp32", "weights = bf16"}, small("sgd"), function(o) o:shard(world, {weights = "bf16"}) end)
    refused({"parameters that take part = all", "parameters that take part = "}, small("sgd"), function(o)
      o.params[1].grad = nil
    end)
  end)

  it("a step for whose state a rank has no memory, on every rank", function()
    local o = small("adam"):shard(world)
    o.params[1].grad = atomo.ones(40)
    if last then rawset(o.groups[1], "state_of", function() error("no memory is left", 0) end) end
    fails({"adam: step: a setting differs", "no memory is left"}, o.step, o)
    rawset(o.groups[1], "state_of", nil)
    o:step()
    assert.equal(1, o.steps)
  end)

  it("an update that fails on one rank, on every rank", function()
    local o = small("sgd"):shard(world)
    o.params[1].grad = atomo.ones(40)
    o:step()
    local update = require("atomo.optim.update").update
    local real = update.sgd
    if world.rank == 0 then update.sgd = function() error("the update's error", 0) end end
    local ok, why = pcall(o.step, o)
    update.sgd = real
    assert.is_false(ok)
    assert.matches(world.rank == 0 and "the update's error" or "rank 0 is in check #%d+ for 'sgd: update failed'", why)
  end)
end)
