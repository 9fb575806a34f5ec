-- A compressor refuses a budget during a run: every rank raises, whichever rank's budget it is; the step is given up
-- without effect; later steps and training runs work. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local matrix = require "support.exchange_matrix"
local nn, world = atomo.nn, atomo.mpi.world

local ways = {{topology = "allgather"}, {topology = "sharded"}, {topology = "hierarchical", comm = matrix.hosts},
  {topology = "hierarchical", comm = matrix.hosts, inner = "sharded"}}
if world.size > 1 then ways[#ways + 1] = {topology = "ps", down = "compress"} end

--- Returns an exchange whose budget is refused while refused.now is true.
local function exchange(way, refused, overlap)
  local ok, ex = matrix.exchange(way, {min_size = 30, overlap = overlap, compress = {name = "svd",
    budget = function() return refused.now and 0 or 4 end}})
  assert.is_true(ok, tostring(ex))
  return ex
end

local function gradients(step)
  atomo.manual_seed(100 * step + world.rank)
  return {atomo.randn(20, 30), atomo.randn(5), atomo.randn(16, 16)}
end

local function finish(ex, step)
  local grads = gradients(step)
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
  local ok, why = pcall(ex.finish, ex)
  return ok, tostring(why), grads
end

local function same_results(ex, plain, step)
  local ok, why, a = finish(ex, step)
  assert.is_true(ok, why)
  local _, _, b = finish(plain, step)
  for i in ipairs(a) do
    assert.same(b[i]:totable(), a[i]:totable())
    ex:check_replicas(a[i], "the average")
  end
end

describe("a budget that is refused", function()
  for _, way in ipairs(ways) do
    for _, overlap in ipairs {true, false} do
      local name = ("%s, overlap %s"):format(matrix.name(way, "svd"), tostring(overlap))
      it("is told to every rank, and later steps are as without it: " .. name, function()
        local refused = {}
        local ex, plain = exchange(way, refused, overlap), exchange(way, {}, overlap)
        same_results(ex, plain, 0)
        for _ = 1, 2 do
          refused.now = true
          local ok, why = finish(ex, 1)
          assert.is_false(ok)
          assert.matches("exchange: step 1: ranks? [%d, ]+: .*svd: budget%(step = 1, epoch = 1%) returned ratio = 0",
            why)
          ex:drop()
          refused.now = false
        end
        same_results(ex, plain, 1)
        same_results(ex, plain, 2)
      end)
    end
  end

  it("by one rank alone is an error on all ranks", function()
    local last = world.size - 1
    for _, way in ipairs {{topology = "allgather"}, {topology = "sharded"}} do
      local refused = {}
      local ex = exchange(way, refused, true)
      assert.is_true((finish(ex, 0)))
      refused.now = world.rank == last
      local ok, why = finish(ex, 1)
      assert.is_false(ok)
      assert.matches(("exchange: step 1: rank %d: .*svd: budget"):format(last), why)
      ex:drop()
      refused.now = false
      assert.is_true((finish(ex, 1)))
    end
  end)

  for _, way in ipairs(ways) do
    it("ends atomo.train on every rank, and the exchange trains on: " .. matrix.name(way, "svd"), function()
      local refused = {}
      local ex = exchange(way, refused, true)
      atomo.manual_seed(4)
      local data = atomo.data.synthetic {train = 32 * world.size, test = 4}
      local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, 40), nn.ReLU(), nn.Linear(40, 10)}
      local function train(steps)
        return pcall(atomo.train, {model = model, quiet = true, eval_every = 0, max_steps = steps, exchange = ex,
          optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01}, check_replicas = 1,
          data = {train = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size,
            seed = 1}}, on_step = function(info) refused.now = info.step == 2 end})
      end
      local ok, why = train(4)
      assert.is_false(ok)
      assert.matches("step 3: ranks? [%d, ]+: .*svd: budget", tostring(why))
      refused.now = false
      ok, why = train(1)
      assert.is_true(ok, tostring(why))
    end)
  end
end)
