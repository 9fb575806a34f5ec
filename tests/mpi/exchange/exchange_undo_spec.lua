-- A step that is given up has no effect: later steps and the compressors' memories are bit-identical to those of a run
-- without it, for every compressor, topology and way of giving up. The run with the step has overlap, the other has
-- not. Also, a failure in a step is raised on all ranks. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world
local matrix = require "support.exchange_matrix"

local shapes = {{24, 30}, {7}, {5, 3, 3, 4}, {40, 8}, {2, 2}}
local last = world.rank == world.size - 1

atomo.basis("undo-reversed", {
  analyze = function(g) return g:view(-1) * -1 end,
  synthesize = function(c, shape) return (c * -1):view(shape) end,
})

local more = {"powersgd:ef=true", "topk:ratio=4,ef=true", "signsgd:ef=true", "randk:ratio=4,ef=true", "fp16:ef=true",
  "bf16:round=stochastic", "qsgd:bits=4,ef=true", "entry:ratio=8,ef=true", "svd:ratio=4,every=3",
  "auto:ratio=8,keep=3,every=2", "undo-reversed:ratio=4", "undo-reversed:ratio=4,ef=true"}

local function gradients(step, size)
  local list = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(1000 * step + 100 * i + world.rank)
    list[i] = atomo.randn(shape):mul_(size or 1)
  end
  return list
end

local function push_all(ex, grads)
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
end

local function can_encode_nan(ex) return ex.compressor.name == "none" end

--- Ways in which a step is given up.
local ways = {
  {"in whole", function(ex) push_all(ex, gradients(50, 100)) end},
  {"in part, on each rank another", function(ex)
    local grads = gradients(51, 1e-3)
    for i = #grads, 2 + world.rank % 4, -1 do ex:push(i, grads[i]) end
  end},
  {"averaged", function(ex)
    push_all(ex, gradients(52, 1e4))
    ex:average()
  end},
  {"failed on one rank", function(ex)
    local grads = gradients(53)
    if last then grads[1]:set(2, 3, 0 / 0) end
    push_all(ex, grads)
    local ok, why = pcall(ex.finish, ex)
    if can_encode_nan(ex) then return end
    assert.is_false(ok)
    assert.matches(("exchange: step %d: rank"):format(ex.step), why)
    -- with hierarchical, the sum is encoded by the leader of the last rank's node
    local rank = ex.topology == "hierarchical" and "%d" or tostring(world.size - 1)
    assert.matches(("rank %s: .*NaN or Inf"):format(rank), why)
  end},
}

local function same(a, b, what)
  assert.equal(a:numel(), b:numel(), what)
  assert.equal(a:bytes(), b:bytes(), what)
end

local function same_state(a, b, what)
  local x, y = a:state_dict(), b:state_dict()
  for key in pairs(y) do assert.truthy(x[key], what .. ": " .. key) end
  for key, t in pairs(x) do same(t, y[key], what .. ": state of " .. key) end
end

describe("a step given up", function()
  for _, compress in ipairs(matrix.compressors(more)) do
    it("leaves no trace, by " .. compress, function()
      for k, o in ipairs(matrix.topologies) do
        if matrix.possible(o, compress) then
          local options = {compress = compress, min_size = 30, seed = 5}
          local _, ex = matrix.exchange(o, options)
          options.overlap = false
          local _, plain = matrix.exchange(o, options)
          for step = 1, 6 do
            local way = ways[(step + k) % #ways + 1]
            local what = ("%s, %s"):format(matrix.name(o, compress), way[1])
            if step > 1 and not (way[1] == "failed on one rank" and can_encode_nan(ex)) then
              way[2](ex)
              ex:drop()
              same_state(ex, plain, what)
            end
            local a, b = gradients(step), gradients(step)
            push_all(ex, a)
            ex:finish()
            push_all(plain, b)
            plain:finish()
            for i in ipairs(a) do same(a[i], b[i], what) end
            assert.equal(plain.step, ex.step)
          end
          same_state(ex, plain, matrix.name(o, compress))
        end
      end
    end)
  end

  it("in the first step, too", function()
    local ex = atomo.exchange {compress = "entry:ratio=8,ef=true", min_size = 30}
    local plain = atomo.exchange {compress = "entry:ratio=8,ef=true", min_size = 30}
    ex:push(5, gradients(7)[5])
    ex:drop()
    local a, b = gradients(1), gradients(1)
    push_all(ex, a)
    push_all(plain, b)
    ex:finish()
    plain:finish()
    for i in ipairs(a) do same(a[i], b[i]) end
  end)

  it("whose plan the hosts' first ranks refuse is refused on all ranks", function()
    local ok, ex = matrix.exchange({topology = "hierarchical", comm = matrix.hosts}, {compress = "svd:bytes=20",
      min_size = 30})
    assert.is_true(ok, tostring(ex))
    for step = 1, 2 do
      push_all(ex, gradients(step))
      local fine, why = pcall(ex.finish, ex)
      assert.is_false(fine)
      assert.matches("svd: bytes=20: %d empty messages", why)
      ex:drop()
    end
  end)

  it("by one rank is an error on the ranks that finish it", function()
    if world.size == 1 then return pending "one rank has nobody to tell" end
    for _, o in ipairs {{topology = "allgather"}, {topology = "sharded"}, {topology = "ps", downlink = "compress"}} do
      local _, ex = matrix.exchange(o, {compress = "entry:ratio=8", min_size = 30})
      push_all(ex, gradients(1))
      ex:finish()
      if last then
        ex:push(5, gradients(2)[5])
      else
        push_all(ex, gradients(2))
        local ok, why = pcall(ex.finish, ex)
        assert.is_false(ok)
        assert.matches(("exchange: step 1: rank %d: it was given up"):format(world.size - 1), why)
      end
      ex:drop()
      local grads = gradients(3)
      push_all(ex, grads)
      ex:finish()
      for _, g in ipairs(grads) do ex:check_replicas(g, "the average") end
    end
  end)

  it("is required after a failed step; a step cannot be committed before it is averaged", function()
    local ex = atomo.exchange {compress = "entry:ratio=8", min_size = 0, topology = "allgather"}
    local function step(v)
      ex:push(1, atomo.full({40, 10}, v))
      ex:finish()
    end
    step(1)
    local ok, why = pcall(ex.commit, ex)
    assert.is_false(ok)
    assert.matches("commit: step 1 has not been averaged", why)
    assert.is_false(pcall(step, last and 0 / 0 or 1))
    for _, again in ipairs {function() step(1) end, function() ex:finish() end} do
      ok, why = pcall(again)
      assert.is_false(ok)
      assert.matches("exchange: step 1 has failed, and must be given up by drop%(%): rank %d: .*NaN or Inf", why)
    end
    ex:drop()
    step(2)
    assert.equal(2, ex.step)
  end)
end)
