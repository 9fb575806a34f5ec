--- A world that looks like hosts of two ranks each (the last may have one), for specs of hierarchical exchanges.
local world = require("atomo").mpi.world

return setmetatable({split_shared = function()
  return world:split(math.floor(world.rank / 2))
end}, {__index = world})
