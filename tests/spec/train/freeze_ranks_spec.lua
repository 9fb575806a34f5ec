-- Ranks that freeze different parameters while the exchange runs behind backward: every rank's error names the
-- parameter and the operation of the other ranks, which call no further operation. It is a separate job, because its
-- ranks cannot continue together.
-- test: slow
local spawn = require "support.spawn"

if not spawn.possible() then
  return pending "freeze_ranks_spec: runs in the host program, not under mpirun"
end

-- Rank 1 calls nothing more until rank 0 has its error.
local script = [[
  local atomo = require "atomo"
  local nn, world = atomo.nn, atomo.mpi.world
  local width, compress, topology, told = tonumber(arg[1]), arg[2], arg[3], arg[4]
  atomo.manual_seed(4)
  local data = atomo.data.synthetic {train = 96, test = 4}
  local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, width), nn.Linear(width, width),
    nn.Linear(width, width), nn.Linear(width, 10)}
  local ex = atomo.exchange {overlap = true, compress = compress, topology = topology}
  local ok, text = pcall(atomo.train, {model = model, quiet = true, eval_every = 0,
    optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01}, exchange = ex,
    data = {train = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size}},
    on_step = function(info) if info.step == 2 and world.rank == 1 then model[2]:freeze() end end})
  io.write(("[%d %s %s; %d buckets]\n"):format(world.rank, tostring(ok), tostring(text), #ex.plan.buckets))
  io.flush()
  if world.rank == 0 then io.open(told, "w"):close() end
  local from = os.time()
  while not io.open(told) and os.time() < from + 20 do end]]

describe("a parameter that one rank freezes, with overlap,", function()
  for _, case in ipairs {{40, "none", "allreduce", "allreduce"}, {1200, "none", "allreduce", "allreduce"},
      {1200, "powersgd", "allreduce", "allreduce"}, {1200, "qsgd:bits=4", "allgather", "allgatherv"},
      {1200, "svd:ratio=8", "ps", "alltoallv"}, {1200, "svd:ratio=8", "sharded", "alltoallv"},
      {1200, "none", "hierarchical", "reduce"}, {1200, "svd:ratio=8", "hierarchical", "reduce"}} do
    local width, compress, topology, operation = unpack(case)
    it(("is named on every rank: %s, %s, width %d"):format(compress, topology, width), function()
      local path, remove = spawn.file(script)
      local told = os.tmpname()
      os.remove(told)
      local out = spawn.ranks(2, ("%s %d %s %s %s"):format(path, width, compress, topology, told))
      remove()
      os.remove(told)
      for rank = 0, 1 do
        assert.matches(("%%[%d false [^\n]*rank 0 is in %s #%%d+ [^\n]*for '[^\n]* 1 of %%d+', "):format(rank,
          operation) .. "rank 1 is in check #%d+ for 'freezes 1.weight", out)
      end
      local buckets = tonumber(out:match "; (%d+) buckets")
      assert.is_true(width == 40 and buckets == 1 or width > 40 and buckets > 1, tostring(buckets))
    end)
  end
end)
