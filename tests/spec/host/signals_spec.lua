-- A signal always ends a program, with code 143 for SIGTERM and 130 for SIGINT, within two seconds, whatever it is
-- doing and even if errors are caught. (Messages, and Ctrl-C at the prompt, are in host_faults_spec.lua.)
-- test: slow
require "atomo"
local root = require "support.root"
local spawn = require "support.spawn"
local job = root .. "tests/support/signal_job.lua"
local SECONDS = 2 -- at most, on an idle machine
local CODES = {TERM = 143, INT = 130}

local spec = spawn.specs(it, pending)

--- Sends the signals to the job when it has begun; asserts that it ends with this code in time; returns its output.
local function ends(command, up, signals, code, apart)
  local out, got, seconds = spawn.signalled(command, up, signals, {apart = apart})
  assert(got == code, ("%s, %s: exit code %s, expected %d:\n%s"):format(command, table.concat(signals, " "), got, code,
    out))
  assert(spawn.in_time(seconds, SECONDS), command .. ": " .. seconds .. " s")
  return out
end

local function host(options, what, up) return ("%s %s %s %s %s"):format(spawn.exe, options, job, what, up) end

describe("a signal", function()
  for _, what in ipairs {"compiled", "kernel", "pcall", "nested", "coroutine", "train", "gc"} do
    for _, options in ipairs {"", "-joff"} do
      spec(("ends an endless loop: %s %s"):format(what, options), function()
        local up = os.tmpname()
        for signal, code in pairs(CODES) do
          os.remove(up)
          local out = ends(host(options, what, up), up, {signal}, code)
          assert.matches(signal == "TERM" and "terminated %(SIGTERM" or "interrupted", out)
        end
      end)
    end
  end

  spec("may come twice, and with another", function()
    local up = os.tmpname()
    for _, o in ipairs {{{"TERM", "TERM"}, 143}, {{"INT", "INT"}, 130}, {{"TERM", "INT"}, 143}} do
      for _, apart in ipairs {0, 0.2} do
        os.remove(up)
        ends(host("", "compiled", up), up, o[1], o[2], apart)
      end
    end
  end)

  spec("leaves a saved file whole", function()
    local up = os.tmpname()
    for round = 1, 4 do
      os.remove(up)
      ends(host("", "save", up), up, {"TERM"}, 143)
      local t = require "atomo.tensor.safetensors".load(up .. ".saved").t
      assert.equal(300000, t:sum():item(), round)
    end
    os.remove(up .. ".saved")
  end)

  spec("ends tests", function()
    local up = os.tmpname()
    local path, remove = spawn.file(([[describe("d", function()
      it("is endless", function() _G.arg = {"pcall", %q} dofile %q end)
      it("another", function() end)
    end)]]):format(up, job))
    for signal, code in pairs(CODES) do
      os.remove(up)
      local out = ends(("%s test %s"):format(spawn.exe, path), up, {signal}, code)
      assert.is_nil(out:find("passed, 0 failed", 1, true))
    end
    remove()
  end)

  spec("ends the prompt, in a line and between lines", function()
    local up, lines = os.tmpname(), os.tmpname()
    for _, what in ipairs {"pcall", "prompt"} do
      local file = assert(io.open(lines, "w"))
      file:write(("arg = {%q, %q} dofile %q\n"):format(what, up, job))
      file:close()
      os.remove(up)
      local command = ("sh -c 'exec %s -i < %s'"):format(spawn.exe, lines)
      if what == "prompt" then
        command = ("sh -c 'mkfifo %s.pipe; (cat %s; sleep 20) > %s.pipe & exec %s -i < %s.pipe'"):format(lines, lines,
          lines, spawn.exe, lines)
      end
      ends(command, up, {"TERM"}, 143)
    end
    os.remove(lines)
    os.remove(lines .. ".pipe")
  end)
end)

describe("a signal to one of two ranks", function()
  for _, what in ipairs {"finalize", "wait"} do
    spec(what == "wait" and "that waits in a collective ends the job" or
      "that is through and waits for the others ends the job", function()
      local up = os.tmpname()
      for signal, code in pairs(CODES) do
        os.remove(up)
        local out = ends(("mpirun --oversubscribe -n 2 %s %s %s %s"):format(spawn.exe, job, what, up), up, {signal},
          code)
        assert.is_nil(out:find("Segmentation fault", 1, true))
      end
    end, true)
  end

  spec("ends it while MPI starts, too", function()
    local up = os.tmpname()
    for delay = 0, 4 do
      os.remove(up)
      local start = ("sleep 0.%d; echo $$ > %s.part; mv %s.part %s; exec %s -e %s"):format(delay, up, up, up, spawn.exe,
        spawn.quote "while true do end")
      local one = ("mpirun --oversubscribe -n 1 sh -c %s : -n 1 %s -e %s"):format(spawn.quote(start), spawn.exe,
        spawn.quote "while true do end")
      ends(one, up, {"TERM"}, 143)
    end
  end, true)
end)
