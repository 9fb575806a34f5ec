--- A run of 3 epochs over all ranks that is hurt once: in step 7 of the first start, the last rank does FAULT: "kill"
-- (by SIGKILL), "raise" (an error), "wait" (makes the file DIR.up and waits without end), "none". Prints a digest of
-- the parameters at the end. For restarts_spec.lua.
--   atomo-lua tests/support/restart_job.lua DIR FAULT
local dir, fault = arg[1], arg[2]
local ffi = require "ffi"
local atomo = require "atomo"
local world, nn = atomo.mpi.world, atomo.nn
local first = not os.getenv "ATOMO_RESTART"
ffi.cdef "int getpid(void); int kill(int, int); int usleep(unsigned);"

local function on_step(info)
  if not first or info.step ~= 7 or world.rank < world.size - 1 then return end
  if fault == "wait" then
    assert(io.open(dir .. ".up", "w")):close()
    while true do ffi.C.usleep(100000) end
  end
  if fault == "kill" then ffi.C.kill(ffi.C.getpid(), 9) end
  if fault == "raise" then error "a mistake in the script" end
end

atomo.manual_seed(3)
local data = atomo.data.synthetic {train = 96, test = 8}
local model = nn.Sequential {nn.Flatten(), nn.Linear(3072, 10)}
atomo.train {model = model, epochs = 3, eval_every = 0, save = dir, save_every = 3,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01, momentum = 0.9}, on_step = on_step,
  exchange = atomo.exchange {compress = "topk:ratio=8,ef=true", stall_warn = 0, stall_abort = 0},
  data = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, seed = 1}}
local parts = {}
for _, entry in ipairs(model:named_parameters()) do parts[#parts + 1] = entry[2]:bytes() end
local text = table.concat(parts)
if world.rank == 0 then
  print(("END on %d ranks %08x"):format(world.size, require("atomo.ffi").C.atomo_crc32(text, #text)))
end
