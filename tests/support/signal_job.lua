--- Repeats one operation without end, so that a signal interrupts it. For signals_spec.lua.
--   atomo-lua tests/support/signal_job.lua WHAT UP    (the file UP is made when it has begun)
local what, up = arg[1], arg[2]
local ffi = require "ffi"
local turns = 0

local function begun() -- makes UP after some turns, when LuaJIT has compiled the loop
  turns = turns + 1
  if turns == 300 then assert(io.open(up, "w")):close() end
end

local function work()
  begun()
  local sum = 0
  for i = 1, 2000 do sum = sum + math.sin(i) end
  return sum
end

ffi.cdef "int getpid(void); int usleep(unsigned int);"
local function say_pid()
  local file = assert(io.open(up .. ".part", "w"))
  file:write(tostring(ffi.C.getpid()))
  file:close()
  os.rename(up .. ".part", up)
end

local jobs = {}

function jobs.compiled()
  for _ = 1, 300 do begun() end
  local x = 1
  while true do x = x * 1.000001 + 1e-9 end
end

function jobs.kernel()
  local atomo = require "atomo"
  local x = atomo.randn(400, 400)
  for _ = 1, 300 do begun() end
  while true do atomo.svd(x) end
end

function jobs.pcall() while true do pcall(work) end end
function jobs.nested() while true do pcall(pcall, pcall, function() xpcall(work, debug.traceback) end) end end

function jobs.coroutine()
  while true do
    local co = coroutine.create(function() while true do pcall(work) coroutine.yield() end end)
    while coroutine.resume(co) do begun() end
  end
end

--- Trains: scopes, no_grad and backward call pcall.
function jobs.train()
  local atomo = require "atomo"
  local w = atomo.randn(20, 20)
  w.requires_grad = true
  while true do
    pcall(atomo.scope, function()
      pcall(atomo.no_grad, work)
      pcall(function() (w * w):sum():backward() end)
    end)
  end
end

function jobs.gc()
  setmetatable({}, {__gc = work})
  while true do
    pcall(work)
    local p = newproxy(true)
    getmetatable(p).__gc = function() pcall(work) end
  end
end

--- Saves tensors again and again.
function jobs.save()
  local atomo, safetensors = require "atomo", require "atomo.tensor.safetensors"
  local t = atomo.ones(300, 1000)
  while true do
    pcall(safetensors.save, up .. ".saved", {t = t})
    begun()
  end
end

--- Makes UP; then the prompt waits for a line.
function jobs.prompt() for _ = 1, 300 do begun() end end

--- Ends the script, so that this rank waits in MPI's finalization for rank 0, which does not get there.
function jobs.finalize()
  local world = require "atomo".mpi.world
  if world.rank > 0 then
    say_pid()
    return
  end
  while true do ffi.C.usleep(100000) end
end

--- Waits in an MPI operation that does not end.
function jobs.wait()
  local atomo = require "atomo"
  local world = atomo.mpi.world
  if world.rank > 0 then
    say_pid()
    world:barrier()
  end
  while true do ffi.C.usleep(100000) end
end

jobs[what]()
