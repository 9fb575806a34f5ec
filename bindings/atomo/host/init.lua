--- The Lua part of the program atomo-lua, loaded before anything else: math.random from the runtime's generator, a
-- print that reports failed writes, a guard against fork under MPI, options -j, -O and --completion, and the commands
-- `atomo-lua test`, `atomo-lua doctor` and `atomo-lua new`.
local ffi = require "ffi"

-- The functions have other names here, so that the bindings' cdef can declare them under their own.
ffi.cdef [[
double atomo_host_random(void) __asm__("atomo_random_double");
void atomo_host_seed(double seed) __asm__("atomo_manual_seed");
int atomo_host_mpi_started(void) __asm__("atomo_mpi_started");
int atomo_host_mpi_finalize(void) __asm__("atomo_mpi_finalize");
int atomo_host_mpi_launched(void) __asm__("atomo_mpi_launched");
int atomo_host_print(const void *data, double n, int flush) __asm__("atomo_output_print");
const char *atomo_host_last_error(void) __asm__("atomo_last_error");
]]
local C = ffi.C
local host = {prompt = require "atomo.host.prompt"}
require "atomo.core.names"

-- ---- math.random: reproducible, the same on every machine ---------------------------------------------------------

local floor = math.floor
-- luacheck: push ignore 122

--- As Lua's math.random: () in [0, 1), (m) in 1..m, (m, n) in m..n. atomo.manual_seed seeds its stream.
function math.random(m, n)
  local r = C.atomo_host_random()
  if m == nil then return r end
  if n == nil then m, n = 1, m end
  if type(m) ~= "number" or type(n) ~= "number" then
    m, n = tonumber(m), tonumber(n)
    if not m or not n then error("math.random: limits must be numbers", 2) end
  end
  if m > n or m ~= m or n ~= n then error(("math.random: the interval %g..%g is empty"):format(m, n), 2) end
  return floor(m) + floor(r * (floor(n) - floor(m) + 1))
end

--- Accepts any number. A whole number from 0 to 2^53 gives the same stream as atomo.manual_seed.
function math.randomseed(seed)
  seed = tonumber(seed)
  if not seed or seed ~= seed then error("math.randomseed: the seed must be a number", 2) end
  if seed < 0 or seed > 2 ^ 53 or seed % 1 ~= 0 then
    local bits = ffi.new("union { double d; uint32_t u[2]; }", {d = seed})
    seed = bits.u[1] % 2 ^ 21 * 2 ^ 32 + bits.u[0]
  end
  C.atomo_host_seed(seed)
end
-- luacheck: pop

-- ---- print that reports failed writes ----------------------------------------------------------------------------

--- As Lua's print, but raises if standard output cannot be written (disk full).
function print(...) -- luacheck: ignore 121
  local parts = {...}
  for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
  local text = table.concat(parts, "\t") .. "\n"
  if C.atomo_host_print(text, #text, 0) < 0 then error("print: " .. ffi.string(C.atomo_host_last_error()), 2) end
end

-- ---- no fork under MPI --------------------------------------------------------------------------------------------

--- Replaces a function that forks by one that raises while several ranks run: a forked child may hang, or corrupt
--- memory that the network card uses.
local function guard(module, name)
  local original = module[name]
  module[name] = function(...)
    if C.atomo_host_mpi_launched() == 1 and C.atomo_host_mpi_started() == 1 then
      error(("%s cannot be used under mpirun: starting a process from a rank is not safe once MPI runs; "
        .. "run it before mpirun and pass what it printed"):format(name == "popen" and "io.popen" or "os.execute"), 2)
    end
    return original(...)
  end
end
guard(io, "popen")
guard(os, "execute")

-- ---- finalizers ---------------------------------------------------------------------------------------------------

local printing = debug.getregistry()["atomo.guard_finalizer"] -- finalizer -> one that prints its error

local function guarded(finalizer) return type(finalizer) == "function" and printing(finalizer) or finalizer end

local watched = {}
function watched.__newindex(meta, name, value) rawset(meta, name, name == "__gc" and guarded(value) or value) end
local plain_newproxy, plain_gc, plain_metatype = newproxy, ffi.gc, ffi.metatype

--- As Lua's newproxy; an error in the __gc that its metatable gets is printed.
function newproxy(with) -- luacheck: ignore 121
  local proxy = plain_newproxy(with)
  if with == true then setmetatable(getmetatable(proxy), watched) end
  return proxy
end

-- LuaJIT's ffi.gc and ffi.metatype, with errors of finalizers in Lua printed.
function ffi.gc(object, finalizer) return plain_gc(object, guarded(finalizer)) end

function ffi.metatype(ctype, meta)
  if type(meta) == "table" and rawget(meta, "__gc") then rawset(meta, "__gc", guarded(meta.__gc)) end
  return plain_metatype(ctype, meta)
end

-- ---- -j and -O, as in luajit --------------------------------------------------------------------------------------

-- A training script needs more than LuaJIT's default of 512 KB of machine code. When that is full, LuaJIT discards all
-- compiled code and starts again (three times in 100 steps of bench_step's resnet20). -O overrides these limits.
require("jit.opt").start("maxmcode=8192", "maxtrace=8000")

--- Runs option -j: -joff, -jon, -jflush, or -jNAME[=a,b], which starts the module jit.NAME with arguments a, b.
function host.jit_command(text)
  local name, options = text:match("^([^=]+)=?(.*)$")
  if not name then error("-j: a name must follow: -joff, -jv, -jdump", 0) end
  local args = {}
  for a in options:gmatch("[^,]+") do args[#args + 1] = a end
  if name == "on" or name == "off" or name == "flush" then return jit[name]() end
  local ok, module = pcall(require, "jit." .. name)
  if not ok then error(("-j: no module jit.%s (%s)"):format(name, module:match("[^\n]*")), 0) end
  module.start(unpack(args))
end

--- Runs option -O: -O, -O2, -O-fold,+cse, -Ohotloop=10.
function host.jit_options(text)
  local args = {}
  for a in text:gmatch("[^,]+") do args[#args + 1] = a end
  require("jit.opt").start(unpack(args))
end

-- ---- atomo-lua test -----------------------------------------------------------------------------------------------

--- Returns on every rank whether any rank failed. [collective]
local function any_rank(failed)
  if C.atomo_host_mpi_launched() == 0 then return failed end
  local world, T = require("atomo.comm.mpi").world, require "atomo.tensor"
  return world:allreduce(T.tensor({failed and 1 or 0}), "max"):item() > 0
end

--- Replaces `--slowest N` in arg by busted's option for the output handler.
local function slowest_option()
  for i = 1, #arg do
    if arg[i] == "--slowest" then
      local n = tonumber(arg[i + 1])
      if not n or n < 1 or n % 1 ~= 0 then
        error(("atomo-lua test: --slowest is '%s', expected a whole number above 0"):format(arg[i + 1] or ""), 0)
      end
      arg[i], arg[i + 1] = "-Xoutput", tostring(n)
      return
    end
  end
end

local TEST_USAGE = [[
usage: atomo-lua test [options] [FILE or FOLDER]...
Runs busted's specs in this program: the files *_spec.lua that the arguments name or contain. A spec may be named
without its folder. Exit code 1 if one fails.
  --slowest N        list the N slowest specs and files, too
  --filter PATTERN   only specs whose names match the Lua pattern; --filter-out PATTERN: only the others
  --tags TAGS        only specs with one of these #tags
  --list             print the names of the specs, and run none
  --help             print this text
All other options of busted can be used, too. examples:
  atomo-lua test tests/spec/tensor
  atomo-lua test --slowest 10 tests/spec/docs/docs_spec.lua
  mpirun -n 2 atomo-lua test tests/mpi
]]

--- Runs busted in this process on the specs that the arguments name. If a spec fails on any rank, all exit with code 1.
function host.test()
  for i = 1, #arg do
    if arg[i] == "--help" or arg[i] == "-h" then return print((TEST_USAGE:gsub("\n$", ""))) end
  end
  local ok, runner = pcall(require, "busted.runner")
  if not ok then
    error("atomo-lua test needs busted: apt install lua-busted\n(" .. runner:match("[^\n]*") .. ")", 0)
  end
  slowest_option()
  require "atomo.host.test_paths"(arg)
  -- All spec files share one copy of each module. Otherwise busted would load them again for each file, and a tensor of
  -- one copy is none for the other.
  table.insert(arg, 1, "--no-auto-insulate")
  local function run() -- called from a file, busted raises nil on failure instead of ending the process
    runner {standalone = false, output = "atomo.host.test_handler"}
    return true
  end
  local passed, message = pcall(run)
  if not passed and message ~= nil then io.stderr:write(tostring(message), "\n") end
  if any_rank(not passed) then
    C.atomo_host_mpi_finalize() -- all ranks get here, so MPI can end without aborting the job
    os.exit(1)
  end
end

-- ---- atomo-lua doctor ---------------------------------------------------------------------------------------------

--- Checks this machine and build. Ends the process: with code 1 if something needs fixing.
function host.doctor()
  if os.getenv "OMPI_COMM_WORLD_SIZE" or C.atomo_host_mpi_launched() == 1 then
    error("atomo-lua doctor: start it without mpirun, on each host; it starts mpirun by itself", 0)
  end
  os.exit(require "atomo.tools.doctor"(arg))
end

-- ---- atomo-lua new ------------------------------------------------------------------------------------------------

--- Writes a starter file. Ends the process with its exit code.
function host.new() os.exit(require "atomo.tools.starter"(arg)) end

-- ---- atomo-lua --completion ---------------------------------------------------------------------------------------

--- Prints a completion script for this shell.
function host.completion(shell) io.write(require("atomo.tools.completion")[shell]()) end

return host
