-- Tensors beyond the largest single message (256 MiB; ATOMO_MPI_CHUNK) travel in pieces: the specs of collectives and
-- messages also hold with pieces of 8 bytes.
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending, true)

describe("in pieces of 8 bytes", function()
  for _, name in ipairs {"collective", "message"} do
    spec(("the spec of %ss holds on 3 ranks"):format(name), function()
      local path = ("%stests/mpi/comm/%s_spec.lua"):format(root, name)
      local out, code = spawn.ranks(3, "test " .. spawn.quote(path), {env = "ATOMO_MPI_CHUNK=8"})
      assert.equal(0, code, out)
      assert.matches("%d+ passed, 0 failed", out)
    end)
  end
end)
