-- Signals to a run that saves: SIGUSR1 saves and the run continues; SIGTERM and SIGUSR2, also to one rank of several,
-- save, stop, and end with code 75 within the grace that there is, else with 143. Without --save it is 143 at once.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"
local disk = require "atomo.train.checkpoint.disk"
local job = root .. "tests/support/endless_job.lua"

local spec = spawn.specs(it, pending)

describe("a signal to a run that saves", function()
  local dir, up
  before_each(function()
    dir, up = checkpoints.path(), os.tmpname()
    os.remove(up)
  end)
  after_each(function() checkpoints.remove(dir) end)

  local function command(ranks, what)
    local launch = ranks > 1 and ("mpirun --oversubscribe -n %d "):format(ranks) or ""
    return ("%s%s %s %s %s"):format(launch, spawn.exe, job, up, what or dir)
  end

  --- Asserts that the run has left one complete checkpoint, and said so.
  local function check_saved(out, code)
    assert.equal(75, code, out)
    local name = assert(out:match("(step%-%d+) is saved, and the run stops"), out)
    assert.same({name}, checkpoints.names(dir))
    assert.equal(name, checkpoints.named(dir):match "[^/]+$")
    assert.is_nil((select(2, require("atomo.train.checkpoint.manifest").read(dir .. "/" .. name))))
  end

  for _, signal in ipairs {"TERM", "USR2"} do
    spec("saves and stops a program: " .. signal, function()
      check_saved(spawn.signalled(command(1), up, {signal}))
    end)
    spec("to one of two ranks saves and stops both: " .. signal, function()
      check_saved(spawn.signalled("ATOMO_GRACE=30 " .. command(2), up, {signal}))
    end, true)
  end

  spec("that comes twice stops once", function()
    check_saved(spawn.signalled(command(1), up, {"TERM", "TERM"}))
  end)

  spec("within rounds of local steps is heard between them", function()
    local out, code = spawn.signalled("ATOMO_GRACE=30 " .. command(2, dir .. " local"), up, {"TERM"})
    check_saved(out, code)
    assert.equal(0, tonumber(out:match "step%-(%d+) is saved") % 2)
  end, true)

  spec("that mpirun forwards, SIGUSR2, stops all ranks with 75", function()
    local script = ("%s & pid=$!; until [ -e %s ]; do sleep 0.05; done; kill -USR2 $pid; wait $pid"):format(command(2),
      up)
    check_saved(spawn.run("sh -c " .. spawn.quote(script)))
    os.remove(up)
  end, true)

  spec("saves, and the run continues: SIGUSR1", function()
    for ranks = 1, spawn.have "mpirun" and 2 or 1 do
      local out, code = spawn.signalled("ATOMO_GRACE=30 " .. command(ranks), up,
        {{"USR1", said = "as SIGUSR1 asks"}, "TERM"}, {apart = 0.2})
      assert.equal(75, code, out)
      local first, last = out:match "(step%-%d+) is saved, as SIGUSR1 asks", out:match "(step%-%d+) is saved, and"
      assert.truthy(first and last and first ~= last, out)
      for _, name in ipairs {first, last} do assert.equal("folder", disk.kind(dir .. "/" .. name)) end
      checkpoints.remove(dir)
    end
  end)

  spec("is given up when the step does not end within the grace: 143", function()
    local out, code, seconds = spawn.signalled("ATOMO_GRACE=1 " .. command(1, dir .. " slow"), up, {"TERM"})
    assert.equal(143, code, out)
    assert.matches("terminated %(SIGTERM", out)
    assert.is_true(seconds > 0.5 and spawn.in_time(seconds, 2), seconds)
    assert.same({}, checkpoints.names(dir))
  end)
end)

describe("a signal to a run that does not save", function()
  spec("ends it: SIGTERM and SIGUSR2 with 143, at once; SIGUSR1 does not", function()
    for _, signals in ipairs {{"TERM"}, {"USR2"}, {{"USR1", said = "SIGUSR1"}, "TERM"}} do
      local up = os.tmpname()
      os.remove(up)
      local out, code, seconds = spawn.signalled(("%s %s %s none"):format(spawn.exe, job, up), up, signals)
      assert.equal(143, code, out)
      assert.is_true(spawn.in_time(seconds, 2), seconds)
      assert.equal(#signals == 2, out:find("SIGUSR1: no training run that saves is under way", 1, true) ~= nil, out)
    end
  end)

  spec("of two ranks, when it comes to one: that rank aborts the job, which mpirun sees at once", function()
    for signal, code in pairs {TERM = 143, INT = 130} do
      local up = os.tmpname()
      os.remove(up)
      local out, got, seconds = spawn.signalled(("mpirun --oversubscribe -n 2 %s %s %s none"):format(spawn.exe, job,
        up), up, {signal})
      assert.equal(code, got, out)
      assert.truthy(out:find "rank [01] of 2", out) -- its own words: those of mpirun are lost at times
      assert.is_true(spawn.in_time(seconds, 2), seconds)
    end
  end, true)
end)
