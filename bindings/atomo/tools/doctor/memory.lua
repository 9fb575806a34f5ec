--- `atomo-lua doctor`: memory, shared memory, and the folder of temporary files.
local f = require "atomo.ffi"
local system = require "atomo.tools.system"
local ffi = f.ffi
ffi.cdef [[int atomo_doctor_getpid(void) __asm__("getpid");]]

local LITTLE_MEMORY = 256e6 -- bytes; the program with its libraries and one small network needs about half of it
local MPI_SPACE = 64e6      -- bytes that Open MPI 4.1 needs in /dev/shm and TMPDIR (docs/cluster.md)
local LONG_PATH = 64        -- bytes; a Unix socket's path has at most 107 (Linux) or 103, and session folders need 40

local function check_memory(findings)
  local text = system.read "/proc/meminfo" or ""
  local total, free = text:match "MemTotal:%s*(%d+)", text:match "MemAvailable:%s*(%d+)"
  if not (total and free) then return findings:skip("memory", "no /proc/meminfo here") end
  total, free = tonumber(total) * 1024, tonumber(free) * 1024
  local limit = system.number "/sys/fs/cgroup/memory.max"
  local shown = ("%s of %s available"):format(system.size(free), system.size(total))
  if limit and limit < total then
    shown = ("%s, a control group allows %s"):format(shown, system.size(limit))
    free = math.min(free, limit)
  end
  if free < LITTLE_MEMORY then
    findings:fix("memory", shown, "end other programs, raise the limit, or use another host")
  else
    findings:ok("memory", shown)
  end
end

local function check_shared_memory(findings)
  local free = jit.os == "Linux" and system.free_bytes "/dev/shm"
  if free and free < MPI_SPACE then
    findings:fix("shared memory", ("/dev/shm has %s free, Open MPI needs %s"):format(system.size(free),
      system.size(MPI_SPACE)), "docker run --shm-size=1g, or export OMPI_MCA_btl_vader_backing_directory=/tmp")
  elseif free then
    findings:ok("shared memory", ("/dev/shm has %s free"):format(system.size(free)))
  elseif jit.os == "Linux" then
    findings:fix("shared memory", "/dev/shm cannot be read", "mount -t tmpfs -o size=1g tmpfs /dev/shm")
  else
    findings:skip("shared memory", "no /dev/shm on " .. jit.os)
  end
end

--- Writes and removes a file in a folder; returns nil or the reason why that fails.
local function write_problem(folder)
  local path = ("%s/atomo-doctor-%d"):format(folder, ffi.C.atomo_doctor_getpid())
  local file, why = io.open(path, "w")
  if not file then return (why:gsub("^.*: ", "")) end
  file:close()
  os.remove(path)
end

--- Checks TMPDIR. Returns whether files can be written there.
local function check_temporary(findings)
  local value = os.getenv "TMPDIR"
  local folder = value and value ~= "" and value or "/tmp"
  local name = value and "TMPDIR" or "temporary files"
  local elsewhere = folder == "/tmp" and "export TMPDIR=FOLDER, another folder" or
    "unset TMPDIR (then /tmp is used), or export TMPDIR=FOLDER, another folder"
  local why = write_problem(folder)
  if why then
    findings:fix(name, ("no file can be written in %s: %s"):format(folder, why), elsewhere)
    return false
  end
  local free = system.free_bytes(folder)
  if free and free < MPI_SPACE then
    findings:fix(name, ("%s has %s free, Open MPI needs %s"):format(folder, system.size(free), system.size(MPI_SPACE)),
      "remove files there; or " .. elsewhere)
  elseif #folder > LONG_PATH then
    findings:note(name, ("a path of %d bytes: names of sockets in it may be too long"):format(#folder), elsewhere)
  else
    findings:ok(name, ("%s, writable%s"):format(folder, free and ", " .. system.size(free) .. " free" or ""))
  end
  return true
end

return {
  check = function(findings, state)
    check_memory(findings)
    check_shared_memory(findings)
    state.temporary_files = check_temporary(findings)
  end,
}
