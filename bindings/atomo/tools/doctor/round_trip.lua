--- Runs on each rank of the job that `atomo-lua doctor` starts: times small all-reduces. Rank 0 prints one line.
local clock = require("atomo.ffi").C.atomo_time
local T = require "atomo.tensor"
local median = require "atomo.core.median"
local world = require("atomo.comm.mpi").world

local ROUNDS = 200

local times = {}
for i = 1, ROUNDS do
  local from = clock()
  local sum = world:allreduce(T.tensor {1}, "sum"):item()
  times[i] = clock() - from
  if sum ~= world.size then error(("an all-reduce of %d ones gave %g"):format(world.size, sum), 0) end
end
if world.rank == 0 then
  print(("round trip of %d ranks: %.1f us"):format(world.size, median(times) * 1e6))
end
