--- Runs the program under test, and mpirun, as processes of their own with a clean environment and a time limit.
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

--- Path of the running executable, or nil where that is not atomo-lua (a stock luajit).
spawn.exe = exe:match("atomo%-lua$") and exe

--- Built with AddressSanitizer: no other program can load the library.
spawn.sanitized = pcall(function()
  ffi.cdef "void __asan_init(void);"
  return ffi.C.__asan_init
end)

--- Number of this process: for names that other runs of the tests must not share.
function spawn.pid() return ffi.C.atomo_test_getpid() end

function spawn.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local PATIENCE = 6 -- limits are for what hangs: on a busy machine a job takes several times as long

--- How many times as long as on an idle machine things take now, 1 or more: a piece of work by the clock on the wall,
--- in units of its own CPU time. For limits that a test waits for.
function spawn.slowdown()
  local from, cpu = now(), os.clock()
  repeat until os.clock() - cpu > 0.1
  return math.max(1, (now() - from) / 0.1)
end

--- The same times 4, since it changes: for assertions about time.
function spawn.patience() return 4 * spawn.slowdown() end

--- Whether what took so many seconds would have taken no more than `limit` on an idle machine.
function spawn.in_time(seconds, limit) return seconds <= limit or seconds <= limit * spawn.patience() end

--- Runs a shell command: its output (stdout and stderr), exit code and seconds. 124 or 137: it did not end, in several
--- times opts.timeout (20 seconds).
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
  -- What a process that outlives the command still writes comes behind the code.
  local out, code, late = text:match("^(.*)<(%d+)>\n(.*)$")
  return (out or text) .. (late or ""), tonumber(code), now() - from
end

--- atomo-lua with arguments (quoted here when given as a list).
function spawn.host(args, opts)
  if type(args) == "table" then
    local quoted = {}
    for i, a in ipairs(args) do quoted[i] = spawn.quote(a) end
    args = table.concat(quoted, " ")
  end
  return spawn.run(spawn.quote(spawn.exe) .. " " .. args, opts)
end

--- atomo-lua with arguments on `ranks` ranks.
function spawn.ranks(ranks, args, opts)
  opts = opts or {}
  opts.timeout = opts.timeout or 40 -- seconds on an idle machine, as everywhere
  return spawn.run(("mpirun --oversubscribe -n %d %s %s"):format(ranks, spawn.quote(spawn.exe), args), opts)
end

--- Waits for an event: until done() says so, which must be soon; whether it did.
function spawn.await(done)
  local from = now()
  while not done() do
    if now() - from > 60 then return false end
    os.execute "sleep 0.05"
  end
  return true
end

--- Starts a command, waits until the file `up` is there and sends these signals (to the process whose number the file
-- holds, else to the command), `apart` seconds between two; output, exit code, and the seconds that the end took.
function spawn.signalled(command, up, signals, apart)
  local kills = {}
  for _, name in ipairs(signals) do kills[#kills + 1] = ("kill -%s ${at:-$pid} 2>&1"):format(name) end
  local script = ([[%s & pid=$!
    until [ -e %s ] || ! kill -0 $pid; do sleep 0.05; done
    sleep 0.05; at=$(cat %s); from=$(date +%%s%%N)
    %s
    wait $pid; code=$?
    echo "took $((($(date +%%s%%N) - from) / 1000000)) ms"; exit $code]]):format(command, up, up,
    table.concat(kills, ("; sleep %g; "):format(apart or 0)))
  local out, code = spawn.run("sh -c " .. spawn.quote(script), {timeout = 60})
  os.remove(up)
  local text, took = out:match "^(.*)took (%d+) ms\n(.*)$"
  return text or out, code, took and tonumber(took) / 1000 or math.huge
end

--- A temporary Lua file with that text; removed by the function that comes back second.
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

--- False and a reason where processes cannot be started from here.
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
