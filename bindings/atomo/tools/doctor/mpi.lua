--- `atomo-lua doctor`: mpirun, and a job of two ranks that it starts.
local f = require "atomo.ffi"
local scripts_folder = require "atomo.tools.scripts_folder"
local system = require "atomo.tools.system"
local C, ffi = f.C, f.ffi
ffi.cdef [[
unsigned atomo_doctor_geteuid(void) __asm__("geteuid");
long atomo_doctor_readlink(const char *path, char *buffer, size_t size) __asm__("readlink");
]]

--- Returns the path of this program.
local function program()
  local buffer = ffi.new "char[4096]"
  local n = ffi.C.atomo_doctor_readlink("/proc/self/exe", buffer, 4096)
  if n > 0 and n < 4096 then return ffi.string(buffer, n) end
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return arg[first]
end

--- Returns the settings that mpirun needs here for two ranks, as scripts/mpirun.sh makes them.
local function settings()
  local list = {}
  if ffi.C.atomo_doctor_geteuid() == 0 and not os.getenv "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" then
    list[#list + 1] = "OMPI_ALLOW_RUN_AS_ROOT=1"
    list[#list + 1] = "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
  end
  if C.atomo_num_cores() < 4 then -- Open MPI counts cores, not hardware threads
    list[#list + 1] = "OMPI_MCA_rmaps_base_oversubscribe=1"
    list[#list + 1] = "OMPI_MCA_mpi_yield_when_idle=1"
  end
  return list
end

--- Returns the version in a text: "4.1" of "mpirun (Open MPI) 4.1.4".
local function version(text) return text:match "Open MPI%)?%D*(%d+%.%d+)" end

--- Returns the path of mpirun, or nil after a finding.
local function check_mpirun(findings)
  local path = system.find "mpirun"
  if not path then
    findings:fix("mpirun", "not in PATH", "apt install openmpi-bin (Fedora: module load mpi/openmpi-x86_64)")
    return nil
  end
  local out = system.run_limited("mpirun --version", 20)
  local library = ffi.string(C.atomo_build_info "mpi")
  local text = ("%s, %s"):format(path, out:match "[^\n]*")
  if version(library) and version(out) ~= version(library) then
    findings:fix("mpirun", ("%s; the library is %s"):format(text, library),
      "put the mpirun of the library first in PATH, or build again with the other MPI")
    return nil
  end
  findings:ok("mpirun", text)
  return path
end

--- Returns the first line of a job's output that says something.
local function first_words(out)
  for line in out:gmatch "[^\n]+" do
    if line:find "%a" and not line:find "^[%s*=%-]*$" then return line end
  end
  return "no output"
end

local function check_job(findings, seconds)
  local needed = settings()
  local command = ("env %s mpirun -n 2 %s -E -l atomo.tools.doctor.round_trip"):format(table.concat(needed, " "),
    system.quote(program()))
  local out, code = system.run_limited(command, seconds)
  local ranks, us = out:match "round trip of (%d+) ranks: ([%d.]+) us"
  if code == 0 and ranks then
    findings:ok("MPI round trip", ("all-reduce of %s ranks on this host in %s us"):format(ranks, us))
    if needed[1] then
      findings:ok("mpirun needs here", table.concat(needed, " "))
      findings.say(("      (sh %s/mpirun.sh makes these settings)"):format(scripts_folder.shown()))
    end
  elseif code == 124 or code == 137 then
    findings:fix("MPI round trip", ("no result after %g s"):format(seconds),
      "export OMPI_MCA_btl_tcp_if_include=lo and try again; docs/cluster.md, \"Which network\"")
  else
    findings:fix("MPI round trip", ("the job ended with code %d: %s"):format(code, first_words(out)),
      "docs/install.md, \"MPI on one machine\"; to see all that mpirun prints: mpirun -n 2 atomo-lua -l atomo")
  end
end

return {
  version = version,
  check = function(findings, state)
    local mpirun = check_mpirun(findings)
    local why = not state.mpi and "--no-mpi" or not mpirun and "see mpirun above" or
      not state.temporary_files and "no temporary files can be written, see above"
    if why then return findings:skip("MPI round trip", why) end
    check_job(findings, state.time_limit)
  end,
}
