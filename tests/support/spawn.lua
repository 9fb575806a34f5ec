--- Runs the program under test, and mpirun, as separate processes with a clean environment and a time limit.
local ffi = require "ffi"
ffi.cdef [[
long atomo_test_readlink(const char *path, char *buf, size_t n) __asm__("readlink");
int atomo_test_getpid(void) __asm__("getpid");
]]

local now = require "atomo.ffi".C.atomo_time

local spawn = {}

local buf = ffi.new("char[4096]")
local n = ffi.C.atomo_test_readlink("/proc/self/exe", buf, 4095)
local exe = n > 0 and ffi.string(buf, n) or "atomo-lua"

--- Path of the running executable; false if it is not atomo-lua (a stock luajit).
spawn.exe = exe:match("atomo%-lua$") and exe

--- Is the program built with AddressSanitizer? Then no other program can load the library.
spawn.sanitized = pcall(function()
  ffi.cdef "void __asan_init(void);"
  return ffi.C.__asan_init
end)

--- Returns the number of this process, for names that are unique to this run of the tests.
function spawn.pid() return ffi.C.atomo_test_getpid() end

spawn.quote = require("atomo.core.shell_words").quote

local PATIENCE = 6 -- factor for time limits: on a busy machine a job takes several times as long

--- Returns how many times slower than an idle machine this one is now, at least 1: wall-clock time of some work divided
--- by its CPU time. For time limits of a test.
function spawn.slowdown()
  local from, cpu = now(), os.clock()
  repeat until os.clock() - cpu > 0.1
  return math.max(1, (now() - from) / 0.1)
end

--- Returns 4 times spawn.slowdown(), since the load changes; for assertions about time.
function spawn.patience() return 4 * spawn.slowdown() end

--- Would something that took `seconds` have taken at most `limit` seconds on an idle machine?
function spawn.in_time(seconds, limit) return seconds <= limit or seconds <= limit * spawn.patience() end

--- Runs a shell command; returns its output (stdout and stderr), exit code and seconds. Code 124 or 137: it was ended
--- after PATIENCE times opts.timeout (default 20 seconds).
---@param command string
---@param opts {timeout: number?, stdin: string?, env: string?}?
function spawn.run(command, opts)
  opts = opts or {}
  local env = "env -i LANG=C OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " ..
    "OMPI_MCA_hwloc_base_binding_policy=none RES_OPTIONS='timeout:1 attempts:1' " .. (opts.env or "")
  for _, name in ipairs {"PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS",
    "TSAN_OPTIONS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"} do
    local value = os.getenv(name)
    if value then env = ("%s %s=%s"):format(env, name, spawn.quote(value)) end
  end
  local input = opts.stdin and "printf %s " .. spawn.quote(opts.stdin) .. " | " or ""
  local line = ("%s%s timeout -k 2 %g %s%s 2>&1; echo \"<$?>\""):format(input, env, PATIENCE * (opts.timeout or 20),
    command, opts.stdin and "" or " < /dev/null")
  local from = now()
  local p = assert(io.popen(line))
  local text = p:read "*a"
  p:close()
  -- Output of a process that outlives the command follows the exit code.
  local out, code, late = text:match("^(.*)<(%d+)>\n(.*)$")
  return (out or text) .. (late or ""), tonumber(code), now() - from
end

--- Runs atomo-lua with arguments: a text, or a list that is quoted here. Results as of spawn.run.
function spawn.host(args, opts)
  if type(args) == "table" then
    local quoted = {}
    for i, a in ipairs(args) do quoted[i] = spawn.quote(a) end
    args = table.concat(quoted, " ")
  end
  return spawn.run(spawn.quote(spawn.exe) .. " " .. args, opts)
end

--- Runs atomo-lua with arguments on `ranks` ranks.
function spawn.ranks(ranks, args, opts)
  opts = opts or {}
  opts.timeout = opts.timeout or 40 -- seconds on an idle machine, as everywhere
  return spawn.run(("mpirun --oversubscribe -n %d %s %s"):format(ranks, spawn.quote(spawn.exe), args), opts)
end

--- Waits until done() is true, for a limited time; returns whether it became true.
function spawn.await(done)
  local from = now()
  while not done() do
    if now() - from > 60 then return false end
    os.execute "sleep 0.05"
  end
  return true
end

--- Starts a command, waits until the file `up` exists, and sends the signals to the process whose number is in the
-- file, else to the command. A signal may be {name, said = text}: the next one is sent when the command has printed the
-- text. Returns output, exit code, and the seconds from the first signal to the end.
---@param command string
---@param up string
---@param signals (string|{[1]: string, said: string})[]
---@param opts {apart: number?, to_command: boolean?}?  seconds between signals; the signals are for the command itself
function spawn.signalled(command, up, signals, opts)
  opts = opts or {}
  local log, to, kills = up .. ".out", opts.to_command and "$pid" or "${at:-$pid}", {}
  for i, signal in ipairs(signals) do
    local name, said = signal, nil
    if type(signal) == "table" then name, said = signal[1], signal.said end
    kills[i] = ("kill -%s %s 2>&1"):format(name, to)
    if said then
      kills[i] = kills[i] .. ("; until grep -qF %s %s || ! kill -0 $pid; do sleep 0.05; done"):format(
        spawn.quote(said), log)
    end
  end
  local script = ([[%s >%s 2>&1 & pid=$!
    until [ -e %s ] || ! kill -0 $pid; do sleep 0.05; done
    sleep 0.05; at=$(cat %s); from=$(date +%%s%%N)
    %s
    wait $pid; code=$?; cat %s; rm %s
    echo "took $((($(date +%%s%%N) - from) / 1000000)) ms"; exit $code]]):format(command, log, up, up,
    table.concat(kills, ("; sleep %g; "):format(opts.apart or 0)), log, log)
  local out, code = spawn.run("sh -c " .. spawn.quote(script), {timeout = 60})
  os.remove(up)
  local text, took = out:match "^(.*)took (%d+) ms\n(.*)$"
  return text or out, code, took and tonumber(took) / 1000 or math.huge
end

--- Makes a temporary Lua file with that text; returns its path and a function that removes it.
function spawn.file(text)
  local name = os.tmpname()
  local path = name .. "_spec.lua"
  local f = assert(io.open(path, "w"))
  f:write(text)
  f:close()
  return path, function()
    os.remove(path)
    os.remove(name)
  end
end

--- Can processes be started from here? If not, returns false and the reason.
function spawn.possible()
  if not spawn.exe then return false, "not run by atomo-lua" end
  if os.getenv "OMPI_COMM_WORLD_SIZE" then return false, "run under mpirun" end
  return true
end

function spawn.have(program)
  local p = io.popen("command -v " .. program)
  local found = p:read "*a"
  p:close()
  return found ~= ""
end

--- Returns spec(name, fn, needs_mpirun), which declares a spec that starts processes. It is pending if processes cannot
--- be started from here, or if it needs mpirun and there is none.
---@param it function       busted's it and pending, which only spec files see
---@param pending function
---@param all_need_mpirun boolean?
function spawn.specs(it, pending, all_need_mpirun)
  local possible, why = spawn.possible()
  local mpirun = possible and spawn.have "mpirun"
  return function(name, fn, needs_mpirun)
    it(name, function()
      if not possible then return pending(why) end
      if (all_need_mpirun or needs_mpirun) and not mpirun then return pending "mpirun is missing" end
      fn()
    end)
  end
end

return spawn
