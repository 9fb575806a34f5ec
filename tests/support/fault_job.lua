--- A job for fault injection: trains a small net over all ranks, with a checkpoint after every (short) epoch.
--   mpirun -n 4 atomo-lua tests/support/fault_job.lua CHECKPOINT [EPOCHS]
-- Without EPOCHS it does not end. With EPOCHS it resumes what it finds, saves every 3 steps, and at its end prints a
-- digest of the parameters.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
local epochs = tonumber(arg[2])

local exchange = atomo.exchange {compress = epochs and "svd:ratio=4,bits=8,every=4,ef=true" or "entry:ratio=4",
  min_size = 50, stall_warn = 1, stall_abort = 3}
if world.rank == 0 then assert(io.open(arg[1] .. ".up", "w")):close() end -- MPI has started on all ranks

atomo.manual_seed(1)
local data = atomo.data.synthetic {train = 64, test = 8}
local model = nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2, bias = false}), nn.BatchNorm2d(8, {relu = true}),
  nn.GlobalAvgPool(), nn.Linear(8, 10)}
atomo.train {
  model = model, epochs = epochs or 1e6, eval_every = 0, quiet = not epochs, save = arg[1], check_replicas = 1,
  save_every = epochs and 3, resume = epochs and "auto",
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01, momentum = 0.9},
  exchange = exchange,
  data = {train = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, seed = 1}},
}
local parts = {}
for _, entry in ipairs(model:named_parameters()) do parts[#parts + 1] = entry[2]:bytes() end
local text = table.concat(parts)
print(("END rank %d %08x"):format(world.rank, require("atomo.ffi").C.atomo_crc32(text, #text)))
