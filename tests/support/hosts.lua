--- A communicator of all ranks that appears to consist of hosts with two ranks each (the last may have one), for specs
--- of topology hierarchical.
local world = require("atomo").mpi.world

return setmetatable({split_shared = function()
  return world:split(math.floor(world.rank / 2))
end}, {__index = world})
