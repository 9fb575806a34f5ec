-- The watchdog between hosts (scripts/netlab.sh): a stopped rank is named with its host, and a cut cable ends the job.
-- Skipped where the machine does not allow networks (exit code 77).
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local netlab = "sh " .. spawn.quote(root .. "scripts/netlab.sh") .. " "

--- Runs steps of an exchange without end. In step 5 rank 0 makes the file "up", and the last rank runs `fault`.
local job = [[
  local atomo = require "atomo"
  local ffi, C, world = require "ffi", require("atomo.ffi").C, atomo.mpi.world
  ffi.cdef "int getpid(void); int kill(int, int); int usleep(unsigned);"
  local folder = ...
  local ex = atomo.exchange {compress = "entry:ratio=4", min_size = 50, stall_warn = 0.5, stall_abort = 1.5,
    flight_prefix = folder .. "/flight"}
  local g = atomo.ones(40, 40)
  for step = 1, 1e7 do
    C.atomo_note_step(step)
    if step == 5 and world.rank == 0 then io.open(folder .. "/up", "w"):close() end
    if step == 5 and world.rank == world.size - 1 then %s end
    ex:push(1, g:fill_(1))
    ex:finish()
    ffi.C.usleep(1000)
  end]]

describe("between hosts", function()
  if spawn.sanitized then return pending "needs netlab.sh: tested in the release build" end
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local said, allowed = spawn.run(netlab .. "run 2 none -- true", {timeout = 60})
  if allowed == 77 then return pending("this machine does not allow networks: " .. said) end

  --- Runs the job by a shell command made of (netlab, program, script, folder); its output and exit code, and the
  --- ranks that have left a flight recorder.
  local function run(command, fault)
    local script, remove = spawn.file(job:format(fault))
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    local text = command:gsub("NETLAB ", netlab):gsub("JOB", spawn.quote(spawn.exe) .. " " .. script .. " " .. folder)
      :gsub("FOLDER", folder)
    local out, code = spawn.run("sh -c " .. spawn.quote(text), {timeout = 60})
    local recorded = {}
    for rank = 0, 1 do
      local file = io.open(("%s/flight-rank%d.jsonl"):format(folder, rank))
      recorded[rank] = file ~= nil
      if file then file:close() end
    end
    os.execute("rm -r " .. folder)
    remove()
    return out, code, recorded
  end

  it("a stopped rank is named, and the job ends", function()
    local out, code, recorded = run("NETLAB run 2 none -- JOB", "ffi.C.kill(ffi.C.getpid(), 19)") -- SIGSTOP
    assert.equal(75, code, out)
    assert.matches("rank 1 %(pid %d+ on h2%) gives no sign of life: stopped", out)
    assert.matches("rank 0 of 2 on h1, step 5: stopped by the watchdog", out)
    assert.is_true(recorded[0])
  end)

  it("a cut cable ends the job; both sides name the operation they wait for", function()
    -- mpirun, disconnected from its daemon, may crash while it aborts and then hang: it is ended after 20 s
    local out, code, recorded = run("N=cut$$; trap 'NETLAB down --name $N' EXIT; trap 'exit 143' TERM; " ..
      "NETLAB up 2 none --name $N && " ..
      "{ timeout -k 2 20 NETLAB exec --name $N -- JOB & p=$!; until [ -e FOLDER/up ]; do sleep 0.1; done; " ..
      "ip -n atomo-$N-2 link set eth0 down; wait $p; echo code $?; }", "")
    assert.equal(0, code, out)
    assert.is_not_equal("0", out:match "code (%d+)")
    assert.matches("rank 1 %(pid %d+ on h2%) gives no sign of life: stopped, or its host is down", out)
    assert.is_true(recorded[0] and recorded[1])
  end)
end)
