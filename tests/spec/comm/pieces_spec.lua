-- What is larger than MPI takes at once travels in pieces (of 256 MiB; ATOMO_MPI_CHUNK says otherwise): the specs of
-- collectives and messages hold where a piece has 8 bytes, too.
local root = require "support.root"
local spawn = require "support.spawn"
local possible, why = spawn.possible()

describe("in pieces of 8 bytes", function()
  for name, options in pairs {collective = "", message = "--filter-out 'of another size' "} do -- which names a piece's
    it(("the spec of %ss holds on 3 ranks"):format(name), function()
      if not possible then return pending(why) end
      if not spawn.have "mpirun" then return pending "mpirun is missing" end
      local path = ("%stests/mpi/comm/%s_spec.lua"):format(root, name)
      local out, code = spawn.ranks(3, "test " .. options .. spawn.quote(path), {env = "ATOMO_MPI_CHUNK=8"})
      assert.equal(0, code, out)
      assert.matches("%d+ passed, 0 failed", out)
    end)
  end
end)
