-- Tensors beyond the largest single message (256 MiB; ATOMO_MPI_CHUNK) travel in pieces: the specs of collectives,
-- messages and sharded optimizers also hold with pieces of 8 bytes.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending, true)

describe("in pieces of 8 bytes", function()
  for _, name in ipairs {"comm/collective", "comm/message", "optim/sharded"} do
    spec(("the spec %s holds on 3 ranks"):format(name), function()
      local path = ("%stests/mpi/%s_spec.lua"):format(root, name)
      local out, code = spawn.ranks(3, "test " .. spawn.quote(path), {env = "ATOMO_MPI_CHUNK=8"})
      assert.equal(0, code, out)
      assert.matches("%d+ passed, 0 failed", out)
    end)
  end
end)
