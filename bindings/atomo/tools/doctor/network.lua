--- `atomo-lua doctor`: network interfaces, the host's name, TCP keepalive.
local clock = require("atomo.ffi").C.atomo_time
local interfaces = require "atomo.tools.doctor.interfaces"
local scripts_folder = require "atomo.tools.scripts_folder"
local system = require "atomo.tools.system"

-- First letters of the names of bridges and tunnels, through which other hosts cannot be reached.
local LOCAL_NAMES = {"docker", "virbr", "br%-", "veth", "lxc", "lxdbr", "cni", "podman", "vmnet", "vboxnet"}

--- Is this the name of a bridge of containers or virtual machines?
local function is_bridge(name)
  for _, beginning in ipairs(LOCAL_NAMES) do
    if name:find("^" .. beginning) then return true end
  end
  return false
end

local function check_interfaces(findings)
  local list = interfaces()
  if not list then return findings:skip("interfaces", "the system does not list them") end
  local chosen = os.getenv "OMPI_MCA_btl_tcp_if_include" or os.getenv "OMPI_MCA_btl_tcp_if_exclude"
  local outside
  for _, item in ipairs(list) do
    local text = table.concat(item.addresses, ", ")
    if is_bridge(item.name) and not chosen then
      findings:note("interface " .. item.name, text .. ": Open MPI tries it, too, and then hangs between hosts",
        "with several hosts: mpirun --mca btl_tcp_if_include NETWORK --mca oob_tcp_if_include NETWORK")
    else
      findings:ok("interface " .. item.name, text)
      outside = outside or not item.loopback
    end
  end
  if not outside then findings:note("interfaces", "only the loopback interface is up: ranks run on this host only") end
end

local SLOW_LOOKUP, LOOKUP_LIMIT = 1, 10 -- seconds

local function check_host_name(findings)
  local host = system.run("uname -n"):match "%S+"
  if not host or not system.find "getent" then
    return findings:skip("host name", host and host .. "; getent is missing" or "uname is missing")
  end
  local from = clock()
  local _, code = system.run_limited("getent hosts " .. system.quote(host), LOOKUP_LIMIT)
  local seconds = clock() - from
  local remedy = ("add it to /etc/hosts (127.0.1.1 %s), or export RES_OPTIONS='timeout:1 attempts:1'"):format(host)
  if seconds > SLOW_LOOKUP then
    findings:fix("host name", ("%s: looking it up took %.1f s, mpirun starts slowly"):format(host, seconds), remedy)
  elseif code ~= 0 then
    findings:note("host name", host .. " has no address: mpirun may start slowly", remedy)
  else
    findings:ok("host name", ("%s, looked up in %.0f ms"):format(host, seconds * 1e3))
  end
end

--- Returns a setting of Open MPI: the value from the environment, or the default of Open MPI 4.1.
local function setting(name, default) return tonumber(os.getenv("OMPI_MCA_oob_tcp_keepalive_" .. name)) or default end

local LATE = 60 -- seconds

local function check_keepalive(findings)
  local folder = "/proc/sys/net/ipv4/tcp_keepalive_"
  local time, every, probes = system.number(folder .. "time"), system.number(folder .. "intvl"),
    system.number(folder .. "probes")
  if time and every and probes then
    findings:ok("TCP keepalive", ("kernel: %d s, then %d probes %d s apart"):format(time, probes, every))
  else
    findings:skip("TCP keepalive", "the kernel's settings cannot be read")
  end
  time, every, probes = setting("time", 300), setting("intvl", 20), setting("probes", 9)
  local seconds = time + every * probes
  local text = ("mpirun notices a lost host after %d s"):format(seconds)
  if seconds > LATE then
    findings:note("mpirun keepalive", text, ("with several hosts: sh %s/mpirun.sh --restarts N, or export "
      .. "OMPI_MCA_oob_tcp_keepalive_time=5, _intvl=2 and _probes=3"):format(scripts_folder.shown()))
  else
    findings:ok("mpirun keepalive", text)
  end
end

return {
  is_bridge = is_bridge,
  check = function(findings)
    check_interfaces(findings)
    check_host_name(findings)
    check_keepalive(findings)
  end,
}
