-- A rank that has ended while another one waits for it is named within seconds, in every operation, also without an
-- exchange; and similar cases that are no error. All ranks run a script given on standard input.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending, true)

local function has(text, want) assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text)) end

--- Runs the script on `ranks` ranks; returns output and exit code.
local function run(ranks, script)
  local path, remove = spawn.file("local atomo = require 'atomo' local world = atomo.mpi.world\n" .. script)
  local out, code = spawn.ranks(ranks, path, {timeout = 120})
  remove()
  return out, code
end

describe("a rank that has left", function()
  -- #1 was at MPI's start. Collectives compare what the ranks do; messages wait.
  for name, wait in pairs {
    barrier = "world:barrier()", allreduce = "world:allreduce(atomo.ones(3))", bcast = "world:bcast(atomo.ones(3), 1)",
    allgather = "world:allgather(atomo.ones(3))", split = "world:split(0)",
    ibarrier = "world:ibarrier():wait()", iallreduce = "world:iallreduce(atomo.ones(9)):wait()",
  } do
    spec("is named: " .. name, function()
      local out, code = run(2, "if world.rank == 0 then " .. wait .. " end")
      assert.equal(1, code)
      has(out, "the ranks disagree: rank 0 is in " .. name .. " #1")
      has(out, "rank 1 is in the end of the program")
    end)
  end

  spec("messages may be received in another order than they were sent in", function()
    local out, code = run(2, [[local ffi = require "ffi"
      ffi.cdef "int usleep(unsigned int);"
      if world.rank == 0 then
        world:send(atomo.full({1}, 7), 1, 1)
        for _ = 1, 15 do ffi.C.usleep(100000) end -- longer than the receiver's first look for other tags
        world:send(atomo.full({1}, 8), 1, 2)
      else
        local second = world:recv(atomo.zeros(1), 0, 2):item()
        print(second, world:recv(atomo.zeros(1), 0, 1):item())
      end]])
    assert.equal("8\t7\n", out)
    assert.equal(0, code)
  end)

  spec("is named in a part's operations, to the part's ranks", function()
    local out, code = run(3, [[local part = world:split(world.rank == 1 and 1 or 0)
      if world.rank == 2 then part:barrier() end]])
    assert.equal(1, code)
    has(out, "rank 2 of 3")
    has(out, "barrier: waits for rank 0, which has ended its script")
    assert.is_nil(out:find("rank 1", 1, true))
  end)

  spec("is named in a part of many ranks, of which each asks only a few", function()
    local out, code = run(20, [[local part = world:split(world.rank == 3 and 1 or 0)
      if world.rank ~= 12 then part:barrier() end]])
    assert.equal(1, code)
    has(out, "barrier: waits for rank 12 (11 of this communicator), which has ended its script")
  end)

  spec("is named by the watchdog where the call waits inside MPI", function()
    local out, code = run(20, [[local part = world:split(world.rank == 3 and 1 or 0)
      require("atomo.ffi").C.atomo_comm_set_checked(part and part.h, 0)
      if world.rank ~= 12 then part:split(0) end]])
    assert.equal(1, code)
    has(out, "rank 12 (pid ")
    has(out, "in it and waiting: ranks 0, 1, 2, 4, 5, 6, 7, 8 and 10 more")
    assert.is_nil(out:find("no sign of life", 1, true))
  end)

  spec("by os.exit too, and if the others compare their operations", function()
    local out, code = run(3, "if world.rank == 1 then os.exit(0) end world:check('a value', 7)")
    assert.equal(1, code)
    has(out, "rank 1 is in the end of the program")
  end)

  spec("does not affect ranks that need nothing from it", function()
    local out, code = run(3, [[local ffi = require "ffi"
      ffi.cdef "int usleep(unsigned int);"
      local part = world:split(world.rank > 0 and 0 or nil)
      if world.rank == 0 then
        world:isend(atomo.ones(300000), 2, 1) -- received late
        return
      end
      for _ = 1, 70 do if world.rank == 1 then ffi.C.usleep(100000) end end
      part:barrier()
      if world.rank == 2 then print(world:recv(atomo.zeros(300000), 0, 1):sum():item()) end]])
    assert.equal("300000\n", out)
    assert.equal(0, code)
  end)
end)

describe("a script on standard input", function()
  for _, how in ipairs {"-", ""} do
    spec("is every rank's: " .. how, function()
      local script = [[#!/usr/bin/env atomo-lua
        local atomo = require "atomo"
        local t = atomo.mpi.world:allreduce(atomo.full({1}, atomo.mpi.world.rank + 1))
        if atomo.mpi.world.rank == 1 then print(t:item(), select("#", ...)) end]]
      local out, code = spawn.ranks(3, how, {stdin = script})
      assert.equal("6\t0\n", out)
      assert.equal(0, code)
    end)
  end

  spec("may be wrong, or empty", function()
    local out, code = spawn.ranks(2, "-", {stdin = "x = = 1"})
    assert.equal(1, code)
    has(out, "stdin:1: unexpected symbol")
    out, code = spawn.ranks(2, "-")
    assert.equal("", out)
    assert.equal(0, code)
  end)
end)
