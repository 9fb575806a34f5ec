--- A small training run without end that saves once an hour, or, with rounds, in a step that never comes: a timed save
-- may come within a round. For save_signals_spec.lua.
--   atomo-lua tests/support/endless_job.lua UP DIR [WHAT]
-- After step 3 the last rank makes the file UP, with its process number. DIR "none": nothing is saved. WHAT: "slow",
-- what comes after step 3 does not end; "local", rounds of 2 local steps.
local up, dir, what = arg[1], arg[2], arg[3]
local ffi = require "ffi"
local atomo = require "atomo"
local world, nn = atomo.mpi.world, atomo.nn
ffi.cdef "int getpid(void); int usleep(unsigned);"

local function at_step(info)
  if info.step == 3 and world.rank == world.size - 1 then
    local file = assert(io.open(up .. ".part", "w"))
    file:write(tostring(ffi.C.getpid()))
    file:close()
    os.rename(up .. ".part", up)
  end
  while what == "slow" and info.step == 3 do ffi.C.usleep(10000) end
  ffi.C.usleep(10000)
end

atomo.manual_seed(1)
local data = atomo.data.synthetic {train = 4000, test = 8}
local model = nn.Sequential {nn.Flatten(), nn.Linear(3072, 10)}
local save = dir ~= "none" and dir or nil
atomo.train {model = model, epochs = 1e6, eval_every = 0, save = save,
  save_every = save and (what == "local" and 1e9 or "1h"),
  local_steps = what == "local" and 2 or nil,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01, momentum = 0.9},
  exchange = atomo.exchange {compress = "none", stall_warn = 0, stall_abort = 0},
  on_step = at_step,
  data = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, seed = 1}}
