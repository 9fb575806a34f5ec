-- Ranks that freeze different parameters while the exchange overlaps with backward: every rank's error names the
-- parameter and the operation of the other ranks. It is a separate job, because its ranks cannot continue together.
-- test: slow
local spawn = require "support.spawn"

if not spawn.possible() then
  return pending "freeze_ranks_spec: runs in the host program, not under mpirun"
end

describe("a parameter that one rank freezes, with overlap,", function()
  it("is named on every rank", function()
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      local nn, world = atomo.nn, atomo.mpi.world
      atomo.manual_seed(4)
      local data = atomo.data.synthetic {train = 96, test = 4}
      local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, 40), nn.Linear(40, 10)}
      local ok, text = pcall(atomo.train, {model = model, quiet = true, eval_every = 0,
        optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01},
        exchange = atomo.exchange {overlap = true},
        data = {train = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size}},
        on_step = function(info) if info.step == 2 and world.rank == 1 then model[2]:freeze() end end})
      if world.rank == 1 then pcall(world.barrier, world) end -- this operation tells the other ranks
      io.write(("[%d %s %s]\n"):format(world.rank, tostring(ok), tostring(text)))
      io.flush()]]
    local out = spawn.ranks(2, path)
    remove()
    for rank = 0, 1 do
      assert.matches(("%%[%d false [^\n]*rank 0 is in allreduce #%%d+ [^\n]*for 'bucket 1 of 1', "):format(rank) ..
        "rank 1 is in check #%d+ for 'freezes 1.weight", out)
    end
  end)
end)
