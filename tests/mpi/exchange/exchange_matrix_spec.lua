-- Every topology with every compressor: replicas are bit-identical, with overlap and without; unbiased compressors give
-- unbiased averages; combinations that cannot work are refused on every rank, with those that can. Runs on 1 to 4
-- ranks, and on 7, more than there are tensors, so that parts are empty.
local atomo = require "atomo"
local f = require "atomo.ffi"
local world = atomo.mpi.world
local matrix = require "support.exchange_matrix"
local topologies, possible = matrix.topologies, matrix.possible

local more = {"fp16:round=stochastic", "bf16:round=stochastic", "randk:ratio=4,ef=true", "powersgd:ef=true",
  "fp16:ef=true", "topk:ratio=4,ef=true", "signsgd:ef=true", "signsgd:vote=true", "svd:atoms=2,bits=32",
  "entry:bytes=700,sampling=systematic"}

local function every_compressor() return matrix.compressors(more) end

local name = matrix.name

local function exchange(o, compress, extra)
  local options = {compress = compress, min_size = 30, seed = 5}
  for key, value in pairs(extra or {}) do options[key] = value end
  return matrix.exchange(o, options)
end

local shapes = {{24, 30}, {7}, {5, 3, 3, 4}, {2, 2}}

local function gradients(step)
  local list = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(1000 * step + 100 * i + world.rank)
    list[i] = atomo.randn(shape)
  end
  return list
end

local function run(ex, grads)
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
  ex:finish()
  return grads
end

describe("every topology with every compressor", function()
  it("is bit-identical on all ranks with and without overlap, or refused with valid topologies", function()
    local refused = 0
    for _, compress in ipairs(every_compressor()) do
      for _, o in ipairs(topologies) do
        local can, why = possible(o, compress)
        local ok, ex = exchange(o, compress)
        assert.equal(can, ok, name(o, compress) .. ": " .. tostring(ex))
        if ok then
          local _, plain = exchange(o, compress, {overlap = false})
          for step = 1, 3 do
            local mine, other = run(ex, gradients(step)), run(plain, gradients(step))
            for i, g in ipairs(mine) do
              assert.equal(0, (g - other[i]):norm_value(math.huge), name(o, compress))
              ex:check_replicas(g, name(o, compress))
            end
          end
        else
          refused = refused + 1
          assert.matches(why, ex)
          assert.truthy(ex:find "can go by topology .*allgather" or ex:find "inter_node can be .*allgather", ex)
        end
      end
    end
    assert.is_true(refused > 20)
  end)
end)

describe("the all-reduce of", function()
  --- Returns the averages of the ranks' gradients, and the exchange's results, in `steps` steps of one gradient each.
  local function both(compress, steps)
    local _, ex = exchange({topology = "allreduce"}, compress, {min_size = 0})
    local average, got = {}, {}
    for step = 1, steps do
      atomo.manual_seed(60 * step + world.rank)
      local g = atomo.randn(40, 30)
      average[step], got[step] = g:clone(), g
      world:allreduce(average[step], "sum")
      average[step]:mul_(1 / world.size)
      ex:push(1, g)
      ex:finish()
    end
    return average, got, ex
  end

  -- The all-reduce of all ranks gives what one rank gives that compresses the average with the same seed.
  for _, compress in ipairs {"powersgd:rank=3", "powersgd:rank=2,warm=false", "randk:ratio=5"} do
    it(compress .. " is what decoding the compressed average gives", function()
      local average, got = both(compress, 3)
      local alone = atomo.compressor(compress, {seed = 5})
      for step, g in ipairs(got) do
        local want = alone:decode(alone:encode(average[step], {step = step - 1}))
        assert.is_true((g - want):norm_value(math.huge) < 1e-4, step)
      end
    end)
  end

  it("fp16 and bf16 is the average to P roundings", function()
    for _, case in ipairs {{"fp16", 2 ^ -11}, {"bf16", 2 ^ -8}} do -- the same order on all ranks
      local compress, unit = unpack(case)
      local average, got = both(compress, 2)
      for step, g in ipairs(got) do
        local worst, bound = (g - average[step]):norm_value(math.huge), unit * 5 * world.size -- entries below 5
        assert.is_true(worst < bound and worst > 0, ("%s: %g of %g"):format(compress, worst, bound))
      end
    end
  end)

  it("gradients of any size keeps fp16 in its range", function()
    for _, size in ipairs {1e-30, 1, 1e30} do
      local _, ex = exchange({topology = "allreduce"}, "fp16", {min_size = 0})
      local g = atomo.full({8, 8}, size * (1 + world.rank))
      ex:push(1, g)
      ex:finish()
      local want = size * (1 + world.size) / 2
      assert.is_true(math.abs(g:get(3, 3) / want - 1) < world.size * 2 ^ -10, size)
      want = size * 1.9999 -- just below a power of two on every rank: only the sum does not fit
      ex:push(1, g:fill_(want))
      ex:finish()
      assert.is_true(math.abs(g:get(3, 3) / want - 1) < world.size * 2 ^ -10, size)
    end
  end)

  -- Over all steps, P times the results plus the residuals of all ranks equal the sum of the gradients.
  for _, compress in ipairs {"powersgd:ef=true", "randk:ratio=8,ef=true", "fp16:ef=true", "bf16:ef=true"} do
    it(compress .. " loses nothing over the steps", function()
      local average, got, ex = both(compress, 4)
      local held = ex.compressor:residual(1)
      world:allreduce(held, "sum")
      for step, g in ipairs(got) do held:add_((g - average[step]):mul_(world.size)) end
      assert.is_true(held:norm_value(math.huge) < 2e-4 * world.size, held:norm_value(math.huge))
      assert.is_true(ex.compressor:residual(1):norm_value(2) > 0)
    end)
  end

  it("a gradient with NaN leaves no rank waiting, and the step can be given up", function()
    for _, compress in ipairs {"powersgd", "randk", "fp16"} do
      local _, ex = exchange({topology = "allreduce"}, compress, {min_size = 0})
      local g = atomo.ones(20, 20)
      ex:push(1, g)
      ex:finish()
      ex:push(1, atomo.full({20, 20}, world.rank == world.size - 1 and 0 / 0 or 1))
      ex:drop()
      g:fill_(3)
      ex:push(1, g)
      ex:finish()
      ex:check_replicas(g, "after a dropped step")
      if compress == "fp16" then assert.is_true(math.abs(g:get(1, 1) - 3) < 0.01) end
    end
  end)
end)

describe("an exchange refuses", function()
  local function refusal(options)
    local ok, text = pcall(atomo.exchange, options)
    assert.is_false(ok)
    return text
  end

  it("options that mean nothing to its topology", function()
    assert.matches("downlink = compress is only for topology ps, or hierarchical.*the topology is allgather",
      refusal {topology = "allgather", compress = "entry", downlink = "compress"})
    assert.matches("inter_node = ps is only for topology hierarchical; the topology is sharded",
      refusal {topology = "sharded", compress = "entry", inter_node = "ps"})
  end)

  it("settings that differ between the ranks, when it is made", function()
    if world.size == 1 then return pending "one rank cannot differ" end
    local last = world.rank == world.size - 1
    for _, case in ipairs {
      {"compressor", {topology = "allgather", compress = last and "entry:ratio=8" or "entry:ratio=9"}},
      {"seed", {topology = "allgather", compress = "entry", seed = last and 1 or 2}},
      {"topology", {compress = "entry", topology = last and "sharded" or "allgather"}},
      {"overlap", {compress = "none", overlap = last}},
    } do
      assert.matches("check: exchange: a setting differs: rank 0 has '" .. case[1], refusal(case[2]))
    end
  end)

  it("messages of another rank, step or tensor", function()
    local c, g = atomo.compressor "entry:ratio=2", atomo.ones(10, 12)
    local out = atomo.full({4000}, 0, "u8")
    c:prepare({{10, 12}, {10, 12}})
    c:begin_step(7, 3)
    local n = c:push(1, g, out, 0)
    c:end_step()
    local function take(tensor, step, rank)
      local source = {data = f.ffi.cast("const uint8_t *", out.h.data), left = n, rank = rank}
      c:decode_tensor(tensor, step, {source}, 1, atomo.zeros(10, 12))
      return source.left
    end
    assert.equal(0, take(1, 7, 3))
    for what, wrong in pairs {rank = {1, 7, 2}, step = {1, 8, 3}, tensor = {2, 7, 3}} do
      local ok, text = pcall(take, unpack(wrong))
      assert.is_false(ok)
      assert.matches(what .. " at byte %d+ is %d, expected %d", text)
    end
  end)
end)
