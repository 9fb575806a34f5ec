-- Out of memory in an operation on a communicator: its 1st, 2nd, 3rd ... allocation fails, on every rank. Each failure
-- raises an error that says so, no memory is lost, and the communicator keeps working. (If only one rank fails, its
-- error ends the job: tests/spec/host/host_faults_spec.lua.)
local atomo = require "atomo"
local memory = require "support.out_of_memory"
local world = atomo.mpi.world
local n, me = world.size, world.rank

local t = atomo.full({5}, me)
local large = atomo.full({64 * 1024 * n}, 1) -- an all-reduce of this size takes the ring
local parts = {}
for r = 1, n do parts[r] = atomo.full({r}, me) end

-- name, least number of failures, operation
local operations = {
  {"allreduce by the ring", n > 1 and 1 or 0, function() world:allreduce(large) end},
  {"allgather", 0, function() world:allgather(t) end},
  {"allgatherv of tensors", 1, function() world:allgatherv(t) end},
  {"allgatherv of bytes", 1, function() world:allgatherv(("x"):rep(me + 1)) end},
  {"alltoallv", 1, function() world:alltoallv(parts) end},
  {"iallreduce", 1, function() world:iallreduce(t):wait() end},
  {"ibcast", 1, function() world:ibcast(t, 0):wait() end},
  {"ibarrier", 1, function() world:ibarrier():wait() end},
  {"isend and irecv", 2, function()
    local got, to = atomo.empty(5), (me + 1) % n
    local r = world:irecv(got, (me + n - 1) % n, 3)
    local ok, s = pcall(world.isend, world, t, to, 3)
    if not ok then world:isend(t, to, 3):wait() end -- the receive above waits for it
    r:wait()
    if not ok then error(s, 0) end
    s:wait()
  end},
  {"split", 1, function() world:split(me % 2):close() end},
  {"split_shared", 1, function() world:split_shared():close() end},
}

describe("out of memory in", function()
  for _, case in ipairs(operations) do
    local name, least, fn = unpack(case)
    it(name, function()
      fn()
      -- barriers, so that a late message is not received in the next round; they also free unfinished requests
      local function barrier() world:barrier() end
      local function over_ranks(left)
        return world:allreduce(atomo.tensor {left}, "min"):item(), world:allreduce(atomo.tensor {left}, "max"):item()
      end
      local failures = memory.clean_sweep(fn, barrier, over_ranks)
      assert.is_true(failures >= least, ("%d failures"):format(failures))
      assert.equal(n, world:allreduce(atomo.ones(1)):item())
    end)
  end
end)
