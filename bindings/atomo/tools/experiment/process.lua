--- Child processes of a driver script: started by a shell, with output to a file, and ended with the driver. The driver
-- must not run under mpirun (a rank must not start processes); it starts mpirun itself.
local f = require "atomo.ffi"
local words = require "atomo.core.shell_words"
local ffi, C = f.ffi, f.C

ffi.cdef [[
int atomo_process_usleep(unsigned int microseconds) __asm__("usleep");
]]

local M = {}

local SIGTERM, SIGKILL, GRACE = 15, 9, 15 -- seconds of grace between the two signals

M.quote, M.word = words.quote, words.word

--- Waits for the process; returns its exit code (128 + signal if a signal ended it), nil after `seconds`. It is not
--- compiled by the JIT, because the hook that handles a signal to the driver does not run in compiled code.
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

--- Runs a shell command, appends its output and errors to the file `out`, and waits. Returns the exit code, nil if it
--- was ended after `seconds`. A signal to the driver first ends the command by SIGTERM (runtime/core/child.c), so that
--- mpirun and netlab.sh end their ranks and networks.
---@param command string   one command, not a list: it replaces the shell
---@param out string
---@param seconds number?  default: no limit
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
