-- The checkpoint of a run with a sharded optimizer is resumed on other numbers of ranks, sharded or not, with the same
-- state.
-- test: slow
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"

if not spawn.possible() then
  return pending "sharded_ranks_spec: starts jobs of its own, not under mpirun"
end

local job = [[
local atomo = require "atomo"
local world, from, to, sharded = atomo.mpi.world, arg[1], arg[2], arg[3] == "sharded"
atomo.manual_seed(3)
local data = atomo.data.synthetic {train = 48, test = 8}
local model = atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
local loader = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, mean = data.mean,
  std = data.std}
local optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01}
local info = atomo.train {model = model, data = loader, eval_every = 0, epochs = 1, optimizer = optimizer, quiet = true,
  exchange = atomo.exchange {}, save = to, resume = from ~= "new" and from or nil, sharded_optimizer = sharded}
local n = 0
for _, block in pairs(optimizer.groups[1].state) do n = n + block:numel() end
for rank = 0, world.size - 1 do
  world:barrier()
  if rank == world.rank then print(("RANK %d has %d elements, %d steps"):format(rank, n, optimizer.steps)) end
end
]]

describe("a checkpoint of a sharded optimizer", function()
  teardown(checkpoints.remove_all)

  it("moves between numbers of ranks, sharded or not, and its file stays the same", function()
    local path, remove = spawn.file(job)
    local from, file, steps, all = "new", nil, nil, 2 * (3072 * 10 + 16) -- the bias's 10 elements take 16
    for _, case in ipairs {{3, "sharded"}, {2, "sharded"}, {1, "whole"}, {4, "sharded"}, {2, "whole"}} do
      local ranks, way = unpack(case)
      local to = checkpoints.path()
      local out, code = spawn.ranks(ranks, ("%s %s %s %s"):format(path, from, to, way))
      assert.equal(0, code, out)
      local found = 0
      for n, taken in out:gmatch "RANK %d has (%d+) elements, (%d+) steps" do
        found, steps = found + 1, steps or tonumber(taken)
        local expected = way == "whole" and all or all / ranks
        assert.is_true(math.abs(tonumber(n) - expected) <= 2 * 16, out)
        assert.equal(steps, tonumber(taken))
      end
      assert.equal(ranks, found)
      local bytes = checkpoints.bytes(checkpoints.named(to) .. "/optimizer.safetensors")
      assert.is_true(bytes == (file or bytes), ("optimizer.safetensors differs on %d ranks, %s"):format(ranks, way))
      from, file = to, bytes
    end
    remove()
  end)
end)
