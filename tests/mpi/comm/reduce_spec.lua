-- Reductions of large tensors to one rank, which go through a tree of ranks in segments of 256 KiB
-- (runtime/comm/tree_reduce.c): the sizes around its limits, every operation and root.
local atomo = require "atomo"
local world = atomo.mpi.world
local me, n = world.rank, world.size

describe("reduce of large tensors", function()
  it("is exact, and leaves the other ranks' tensors alone", function()
    local base = atomo.arange(0, 1100003)
    for _, size in ipairs {8191, 8192, 65536, 65537, 8 * 65536 + 3, 1100003} do
      for _, op in ipairs {"sum", "max", "min"} do
        for root = 0, n - 1 do
          local t = base:narrow(1, 1, size):clone():add_(me)
          local own = t:clone()
          world:reduce(t, op, root)
          local want = own
          if me == root then
            want = base:narrow(1, 1, size):clone()
            if op == "sum" then want:mul_(n):add_(n * (n - 1) / 2) elseif op == "max" then want:add_(n - 1) end
          end
          assert.is_true(t:equal(want), ("%s of %d elements to %d"):format(op, size, root))
        end
      end
    end
    for _, dtype in ipairs {"i32", "u8"} do
      local t = atomo.full({300001}, me + 1, dtype)
      world:reduce(t, "sum", n - 1)
      local want = me == n - 1 and n * (n + 1) / 2 or me + 1
      assert.is_true(t:equal(atomo.full({300001}, want, dtype)), dtype)
    end
    local nan = atomo.full({100003}, me == 0 and 0 / 0 or 1)
    world:reduce(nan, "max", n - 1)
    assert.equal((me == 0 or me == n - 1) and 100003 or 0, nan:count_nonfinite())
  end)
end)
