--- Child processes of a driver script: started by a shell, output into a file, ended with the driver. The driver must
-- not run under mpirun (no process may be started from a rank); it starts mpirun itself. Beside the path.
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

ffi.cdef [[
int atomo_process_usleep(unsigned int microseconds) __asm__("usleep");
]]

local M = {}

local SIGTERM, SIGKILL, GRACE = 15, 9, 15 -- seconds of grace between the two signals

function M.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- A word of a command line as one would type it.
function M.word(text)
  text = tostring(text)
  return text:find "^[%w%._/:=,%%%+@%-]+$" and text or M.quote(text)
end

--- The exit code once the process is over (128 + signal where one ended it), nil after `seconds`. Interpreted, so that
--- a signal to the driver is heard here: its handler's hook does not reach compiled code.
local function wait(seconds)
  local from, nap, code = C.atomo_time(), 2000, ffi.new "int[1]"
  while true do
    if f.check(C.atomo_child_poll(code)) == 1 then return code[0] end
    if C.atomo_time() - from >= seconds then return nil end
    ffi.C.atomo_process_usleep(nap)
    nap = math.min(nap * 1.2, 200000)
  end
end
jit.off(wait)

local function stop()
  C.atomo_child_kill(SIGTERM)
  if wait(GRACE) then return end
  C.atomo_child_kill(SIGKILL)
  wait(GRACE)
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
  f.check(C.atomo_child_start(line))
  local code = wait(seconds or math.huge)
  if code == nil then stop() end
  return code
end

return M
