-- scripts/netlab.sh: hosts, names and link rates are what was asked for, exit codes come through, everything is gone
-- afterwards. Skipped where the machine does not allow networks (exit code 77).
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local name = "s" .. spawn.pid() % 100000 -- unique to this process: tests may run side by side
local netlab = "sh " .. spawn.quote(root .. "scripts/netlab.sh") .. " "

local function lab(args, opts) return spawn.run(netlab .. args, opts or {timeout = 60}) end

describe("netlab.sh", function()
  if spawn.sanitized then return pending "a shell script: tested in the release build" end
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("refuses misuse with exit code 2, naming it", function()
    for args, text in pairs {["run 1 1gbit -- true"] = "N is '1'", ["run 4 fast -- true"] = "RATE is 'fast'",
      ["run 2 1gbit"] = "wants a command", ["up 2"] = "wants N and RATE", ["fly"] = "unknown command 'fly'",
      ["run 2 1gbit --delay 5 -- true"] = "--delay is '5'", ["run 2 1gbit --delay 11s -- true"] = "--delay is '11s'",
      ["exec --delay 5ms -- true"] = "--delay is for run and up", ["run 2 1gbit true"] = "unexpected 'true'",
      ["run 2 1gbit --name a/b -- true"] = "name 'a/b'"} do
      local out, code = lab(args)
      assert.equal(2, code, args)
      assert.matches(text, out, 1, true)
    end
  end)

  local _, allowed = lab "run 2 none -- true"
  if allowed == 77 then return pending "this machine does not allow networks" end

  local function no_network(which)
    local out = spawn.run "ip netns list"
    assert.is_nil(out:find("atomo%-" .. which))
  end

  it("runs one rank a host, and hands on the exit code", function()
    local out, code = lab "run 3 100mbit -- hostname"
    assert.equal(0, code, out)
    for k = 1, 3 do assert.matches("h" .. k, out) end
    local _, failed = lab "run 2 none -- sh -c 'exit 3'"
    assert.equal(3, failed)
  end)

  it("has ranks of one host share memory, and no others", function()
    local ask = "print('local', require('atomo').mpi.world.local_size)"
    local out, code = lab(("run 2 none --per-host 2 -- %s -e %s"):format(spawn.quote(spawn.exe), spawn.quote(ask)))
    assert.equal(0, code, out)
    assert.equal(4, select(2, out:gsub("local\t2", "")))
  end)

  it("shapes its links", function()
    local script, remove = spawn.file [[
      local atomo = require "atomo"
      local world, clock = atomo.mpi.world, require("atomo.ffi").C.atomo_time
      local t = atomo.zeros(500000)
      world:barrier()
      local from = clock()
      if world.rank == 0 then world:send(t, 1) world:recv(t, 1) else world:recv(t, 0) world:send(t, 0) end
      if world.rank == 0 then print(("took %.3f s"):format(clock() - from)) end]]
    local out, code = lab(("run 2 40mbit -- %s %s"):format(spawn.quote(spawn.exe), script))
    remove()
    assert.equal(0, code, out)
    local seconds = tonumber(out:match "took ([%d.]+) s")
    -- 2 MB each way at 5 MB/s: 0.8 s, less two buckets of 128 kB; protocol and a loaded machine only add to it.
    assert.is_true(seconds > 0.7, out)
  end)

  it("delays messages between hosts, and what auto measures of that is the time of one way", function()
    local script, remove = spawn.file [[
      local atomo = require "atomo"
      local world, clock = atomo.mpi.world, require("atomo.ffi").C.atomo_time
      local t, least, sent = atomo.arange(100000), math.huge, atomo.arange(100000)
      for _ = 1, 6 do
        local from = clock()
        if world.rank == 0 then
          world:send(sent, 1) world:recv(t, 1)
        else
          world:recv(t, 0) world:send(t, 0)
        end
        least = math.min(least, clock() - from)
        assert((t - sent):norm_value() == 0)
      end
      local latency = require("atomo.exchange.auto.probe").network(world).latency
      if world.rank == 0 then print(("round trip %.1f ms, latency %.1f ms"):format(1e3 * least, 1e3 * latency)) end]]
    local out, code = lab(("run 2 none --delay 60ms -- %s %s"):format(spawn.quote(spawn.exe), script))
    remove()
    assert.equal(0, code, out)
    local round, latency = out:match "round trip ([%d.]+) ms, latency ([%d.]+) ms"
    assert.is_true(tonumber(round) >= 60, out) -- a loaded machine only adds to it
    assert.is_true(tonumber(latency) >= 29.9 and tonumber(latency) < tonumber(round), out)
  end)

  it("stays up between up and down", function()
    local _, code = lab("up 2 100mbit --name " .. name)
    assert.equal(0, code)
    local second, taken = lab("up 2 100mbit --name " .. name)
    assert.equal(2, taken)
    assert.matches("is up already", second)
    local out = lab("on 2 --name " .. name .. " -- hostname")
    assert.equal("h2\n", out)
    assert.matches("h1", (lab("exec --name " .. name .. " -- hostname")))
    assert.equal(2, (select(2, lab("on 3 --name " .. name .. " -- true"))))
    assert.equal(0, (select(2, lab("down --name " .. name))))
    no_network(name)
  end)

  it("cleans up after a signal, and after a run that was killed", function()
    local function interrupted(signal)
      local up = os.tmpname()
      os.remove(up)
      local text = (netlab .. "run 2 none -- sh -c 'touch %s; exec sleep 60' & p=$!; " ..
        "until [ -e %s ]; do sleep 0.05; done; kill -%s $p; wait $p; echo code $? run$p"):format(up, up, signal)
      local out = spawn.run("sh -c " .. spawn.quote(text), {timeout = 30})
      os.remove(up)
      return out
    end
    local out = interrupted "TERM"
    assert.matches("code 143", out)
    no_network(out:match "run%d+")
    out = interrupted "KILL"
    assert.equal(0, (select(2, lab "run 2 none -- true")))
    no_network(out:match "run%d+")
  end)
end)
