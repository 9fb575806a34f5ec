-- A host is cut off from a training job on three hosts (scripts/netlab.sh): mpirun.sh --restarts continues by itself on
-- the two that answer. Skipped where the machine does not allow networks (exit code 77).
-- test: slow
require "atomo"
local root = require "support.root"
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"
local netlab = "sh " .. spawn.quote(root .. "scripts/netlab.sh") .. " "

describe("a host that is cut off", function()
  if spawn.sanitized then return pending "needs netlab.sh: tested in the release build" end
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local said, allowed = spawn.run(netlab .. "run 2 none -- true", {timeout = 60})
  if allowed == 77 then return pending("this machine does not allow networks: " .. said) end

  it("is left out, and the training continues by itself", function()
    local dir, name = checkpoints.path(), ("restart%d"):format(spawn.pid())
    local mca = ("plm_rsh_agent '%sscripts/netlab.sh agent %s';plm_rsh_no_tree_spawn 1;btl tcp,self;" ..
      "btl_tcp_if_include 10.78.0.0/24;oob_tcp_if_include 10.78.0.0/24;oob_tcp_keepalive_time 1;" ..
      "oob_tcp_keepalive_intvl 1;oob_tcp_keepalive_probes 2;mpi_yield_when_idle 1"):format(root, name)
    local out, code = spawn.run("sh -c " .. spawn.quote(([[
      trap 'NETLAB down --name NAME' EXIT; trap 'exit 143' TERM
      NETLAB up 3 none --name NAME || exit
      (until [ -e DIR.up ] || ! kill -0 $$; do sleep 0.1; done; ip -n atomo-NAME-3 link set eth0 down) >/dev/null 2>&1 &
      export OMP_NUM_THREADS=1
      NETLAB on 1 --name NAME -- sh ROOTscripts/mpirun.sh --restarts 2 --min-ranks 2 --host h1:1,h2:1,h3:1 -n 3 \
        MCA --bind-to none EXE ROOTtests/support/restart_job.lua DIR wait]]):gsub("MCA",
      function() return "--mca " .. mca:gsub(";", " --mca ") end):gsub("NETLAB ", netlab):gsub("NAME", name)
      :gsub("DIR", dir):gsub("EXE", spawn.exe):gsub("ROOT", root)), {timeout = 60})
    checkpoints.remove(dir)
    assert.equal(0, code, out)
    assert.matches("no answer from h3\n", out)
    assert.matches("restart 1 of 2 with 2 ranks on h1:1,h2:1\n", out)
    assert.matches("saved by 3 ranks, resumed on 2: step 6 there is step 9 here", out)
    assert.matches("resuming after epoch 0, step 9, from ", out)
    assert.matches("END on 2 ranks %x+", out)
  end)
end)
