--- Child processes of a driver script: started by a shell, output into a file, ended with the driver. The driver must
-- not run under mpirun (no process may be started from a rank); it starts mpirun itself. Beside the path.
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

ffi.cdef [[
int atomo_process_spawn(int *pid, const char *path, const void *actions, const void *attributes, const char **argv,
                        char **environment) __asm__("posix_spawn");
int atomo_process_wait(int pid, int *status, int options) __asm__("waitpid");
int atomo_process_kill(int pid, int signal) __asm__("kill");
int atomo_process_usleep(unsigned int microseconds) __asm__("usleep");
extern char **atomo_process_environment __asm__("environ");
]]
local P = ffi.C

local M = {}

local NO_HANG, SIGTERM, SIGKILL, GRACE = 1, 15, 9, 15 -- seconds of grace between the two signals

function M.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- A word of a command line as one would type it.
function M.word(text)
  text = tostring(text)
  return text:find "^[%w%._/:=,%%%+@%-]+$" and text or M.quote(text)
end

--- The exit code once the process is over (128 + signal where one ended it), else nil.
local function poll(pid, status)
  if P.atomo_process_wait(pid, status, NO_HANG) ~= pid then return nil end
  local signal = status[0] % 128
  return signal ~= 0 and 128 + signal or math.floor(status[0] / 256) % 256
end

--- Until the process is over, or `seconds` have passed. Interpreted, so that a signal to the driver is heard here: its
--- handler's hook does not reach compiled code.
local function wait(pid, status, seconds)
  local from, nap = C.atomo_time(), 2000
  while true do
    local code = poll(pid, status)
    if code then return code end
    if C.atomo_time() - from >= seconds then return nil end
    P.atomo_process_usleep(nap)
    nap = math.min(nap * 1.2, 200000)
  end
end
jit.off(wait)

local function stop(pid, status)
  P.atomo_process_kill(pid, SIGTERM)
  if wait(pid, status, GRACE) then return end
  P.atomo_process_kill(pid, SIGKILL)
  wait(pid, status, GRACE)
end

--- Runs a shell command with output and errors in the file `out` (appended), and waits for it. Returns its exit code,
--- or nil where it was ended after `seconds`. A signal to the driver ends the command first (by SIGTERM: mpirun and
--- netlab.sh take their ranks and networks along); runtime/core/child.c sees to it.
---@param command string   one command, not a list: it takes the shell's place
---@param out string
---@param seconds number?  no limit without
---@return integer?
function M.run(command, out, seconds)
  if C.atomo_mpi_started() == 1 then f.raise "process: cannot start one once MPI runs" end
  local line = ("exec %s >>%s 2>&1 </dev/null"):format(command, M.quote(out))
  local argv = ffi.new("const char *[4]", {"sh", "-c", line})
  local pid, status = ffi.new "int[1]", ffi.new "int[1]"
  local rc = P.atomo_process_spawn(pid, "/bin/sh", nil, nil, argv, P.atomo_process_environment)
  if rc ~= 0 then f.raise(("process: cannot start /bin/sh: error %d"):format(rc)) end
  C.atomo_child_note(pid[0])
  local code = wait(pid[0], status, seconds or math.huge)
  if code == nil then stop(pid[0], status) end
  C.atomo_child_note(0)
  return code
end

return M
