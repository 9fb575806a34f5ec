-- A rank that waits for others leaves its core to them: processor time is counted, which does not depend on how busy
-- the machine is.
local atomo = require "atomo"
local ffi = require "ffi"
local world = atomo.mpi.world

ffi.cdef "int usleep(unsigned int);"

--- What the ranks other than 0 wait in; rank 0 comes a second later.
local waits = {
  {"barrier", function() world:barrier() end},
  {"bcast", function() world:bcast(atomo.zeros(10), 0) end},
  {"allreduce", function() world:allreduce(atomo.zeros(10)) end},
  {"reduce", function() world:reduce(atomo.zeros(10), "sum", 1) end},
  {"gather", function() world:gather(atomo.zeros(10), 1) end},
  {"allgather", function() world:allgather(atomo.zeros(10)) end},
  {"recv", function()
    local t = atomo.zeros(10)
    if world.rank > 0 then return world:recv(t, 0, 3) end
    for r = 1, world.size - 1 do world:send(t, r, 3) end
  end},
  {"wait of a request", function()
    local t = atomo.zeros(10)
    if world.rank > 0 then return world:irecv(t, 0, 3):wait() end
    for r = 1, world.size - 1 do world:isend(t, r, 3):wait() end
  end},
}

describe("a wait for a rank that is late", function()
  if world.size == 1 then return pending "needs two ranks" end
  for _, wait in ipairs(waits) do
    it("takes little processor time: " .. wait[1], function()
      world:barrier()
      local from = os.clock()
      if world.rank == 0 then ffi.C.usleep(999999) end
      wait[2]()
      assert.is_true(os.clock() - from < 0.4, "processor time " .. os.clock() - from)
    end)
  end
end)
