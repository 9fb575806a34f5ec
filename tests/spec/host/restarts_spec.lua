-- scripts/mpirun.sh --restarts: a job that loses a rank is started again from its newest checkpoint; one with an error
-- or a signal is not. With an mpirun and a remote shell of the spec's own: on the hosts that answer, down to
-- --min-ranks. Between hosts: netlab_restarts_spec.lua.
-- test: slow
require "atomo"
local root = require "support.root"
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"
local script = "sh " .. spawn.quote(root .. "scripts/mpirun.sh") .. " "
local job = root .. "tests/support/restart_job.lua"

local spec = spawn.specs(it, pending)

describe("mpirun.sh --restarts with a training job", function()
  local dir
  before_each(function() dir = checkpoints.path() end)
  after_each(function() checkpoints.remove(dir) end)

  local function run(options, fault)
    return spawn.run(("%s%s -n 2 --oversubscribe %s %s %s %s"):format(script, options, spawn.exe, job, dir, fault),
      {timeout = 60})
  end

  spec("continues with the same bits when a rank is killed", function()
    local whole, code = run("", "none")
    assert.equal(0, code, whole)
    checkpoints.remove(dir)
    local out
    out, code = run("--restarts 2", "kill")
    assert.equal(0, code, out)
    assert.matches("the job ended with code 137: restart 1 of 2 with 2 ranks", out)
    assert.matches("resuming after epoch 0, step 6, from ", out)
    assert.equal(whole:match "END on 2 ranks %x+", (out:match "END on 2 ranks %x+"))
  end, true)

  spec("does not repeat an error of the script, and gives up after the last restart", function()
    local out, code = run("--restarts 2", "raise")
    assert.equal(1, code, out)
    assert.matches("a mistake in the script", out)
    assert.is_nil(out:find("mpirun.sh: the job ended", 1, true))
    checkpoints.remove(dir)
    out, code = run("--restarts 0", "kill")
    assert.equal(137, code, out)
    assert.matches("the job ended with code 137, after 0 restarts: given up", out)
  end, true)

  spec("saves and stops for SIGTERM, with 75 and without a restart", function()
    local up = os.tmpname()
    os.remove(up)
    for _, restarts in ipairs {2, 0} do
      local command = ("%s--restarts %d -n 2 --oversubscribe %s %s %s %s"):format(script, restarts, spawn.exe,
        root .. "tests/support/endless_job.lua", up, dir)
      local out, code = spawn.signalled(command, up, {{"USR1", said = "as SIGUSR1 asks"}, "TERM"},
        {to_command = true})
      assert.equal(75, code, out)
      assert.matches("step%-%d+ is saved, as SIGUSR1 asks", out)
      assert.matches("step%-%d+ is saved, and the run stops", out)
      assert.is_nil(out:find("mpirun.sh: the job ended", 1, true))
      checkpoints.remove(dir)
    end
  end, true)
end)

describe("mpirun.sh --restarts", function()
  --- Runs mpirun.sh with an mpirun that ends with the codes in turn, then with 0, and a remote shell that reaches the
  --- hosts in `up`. Returns output, exit code, and the arguments of each start.
  local function started(arguments, codes, up, hostfile)
    local tools = os.tmpname()
    os.remove(tools)
    local function put(name, text)
      local file = assert(io.open(tools .. "/" .. name, "w"))
      file:write(text)
      file:close()
    end
    assert(os.execute("mkdir " .. tools) == 0)
    put("mpirun", ([[#!/bin/sh
      d=%s
      for word in "$@"; do case $word in */hosts | */list) set -- "$@" "[$(tr '\n' ';' <$word)]" ;; esac; done
      echo "${ATOMO_RESTART:-0}: $*" >>$d/starts
      code=$(sed -n "$(wc -l <$d/starts)p" $d/codes)
      exit ${code:-0}]]):format(tools))
    put("agent", ('#!/bin/sh\necho "$1 $2" >>%s/asked\ncase " %s " in *" $1 "*) exit 0 ;; *) exit 255 ;; esac\n')
      :format(tools, up or ""))
    put("codes", table.concat(codes, "\n") .. "\n")
    if hostfile then put("list", hostfile) end
    os.execute(("chmod +x %s/mpirun %s/agent"):format(tools, tools))
    local command = ("PATH=%s:$PATH exec %s%s"):format(tools, script, arguments:gsub("TOOLS", tools))
    local out, code = spawn.run("sh -c " .. spawn.quote(command))
    local starts = {}
    for line in io.lines(tools .. "/starts") do starts[#starts + 1] = line end
    os.execute("rm -r " .. tools)
    return out, code, starts
  end

  local agent = "--mca plm_rsh_agent TOOLS/agent "

  spec("starts again after a lost rank, host or watchdog, not after other ends", function()
    for code, again in pairs {[137] = true, [139] = true, [205] = true, [75] = true, [143] = true, [0] = false,
      [1] = false, [2] = false, [130] = false} do
      local _, last, starts = started("--restarts 3 -n 2 true -n 7 --host x", {code, 0})
      assert.equal(again and 2 or 1, #starts, code)
      assert.equal(again and 0 or code, last)
      assert.equal("0: -n 2 true -n 7 --host x", starts[1])
      if again then assert.equal("1: -x ATOMO_RESTART -n 2 true -n 7 --host x", starts[2]) end
    end
  end)

  spec("leaves out hosts that do not answer, with the ranks that have room", function()
    local out, code, starts = started("--restarts 2 --min-ranks 3 --host a:2,b:2,c:2 -n 6 " .. agent .. "true",
      {205, 205}, "a c")
    assert.equal(0, code, out)
    assert.matches("no answer from b\n", out)
    assert.matches("restart 1 of 2 with 4 ranks on a:2,c:2\n", out)
    assert.matches("^0: %-%-host a:2,b:2,c:2 %-n 6 ", starts[1])
    assert.matches("^1: %-x ATOMO_RESTART %-%-host a:2,c:2 %-n 4 %-%-mca", starts[2])
    assert.matches("^2: %-x ATOMO_RESTART %-%-host a:2,c:2 %-n 4 %-%-mca", starts[3])
  end)

  spec("does the same with a hostfile, and without -n", function()
    local hostfile = "# mine\na slots=2 max_slots=4\nb slots=2\n\nc slots=4 # big\n"
    local out, code, starts = started("--restarts 1 --min-ranks 2 --hostfile TOOLS/list -n 4 " .. agent .. "true",
      {205}, "a c", hostfile)
    assert.equal(0, code, out)
    assert.matches("%-n 4 .*%[a slots=2 max_slots=4;b slots=2;c slots=4 # big;%]$", starts[1])
    assert.matches("%-n 3 .*%[a slots=2 max_slots=4;c slots=4 # big;%]$", starts[2])
    out, code, starts = started("--restarts 1 --min-ranks 2 --host a:2,b " .. agent .. "true", {137}, "a")
    assert.equal(0, code, out)
    assert.matches("^1: %-n 2 %-x ATOMO_RESTART %-%-host a:2 ", starts[2])
  end)

  spec("gives up below --min-ranks, by default the ranks of -n", function()
    local out, code, starts = started("--restarts 2 --host a,b -n 2 " .. agent .. "true", {205}, "a")
    assert.equal(205, code)
    assert.equal(1, #starts)
    assert.matches("there is room for 1 ranks, %-%-min%-ranks is 2: given up", out)
  end)

  spec("refuses wrong options, and explains itself", function()
    for arguments, text in pairs {["--restarts -n 2 true"] = "--restarts wants a number", ["--restarts 2"] =
      "there is no program", ["--min-ranks 2 -n 2 true"] = "--min-ranks wants --restarts",
      ["--restarts 1 --min-ranks 0 true"] = "--min-ranks wants a number of at least 1"} do
      local out, code = spawn.run(script .. arguments)
      assert.equal(2, code, arguments)
      assert.truthy(out:find(text, 1, true), out)
    end
    local out, code = spawn.run(script .. "--help")
    assert.equal(0, code)
    assert.truthy(out:find("--restarts N", 1, true) and out:find("examples:", 1, true))
  end)
end)
