-- Fingerprints: if ranks are in different operations, every rank raises an error that names both.
local atomo = require "atomo"
local world = atomo.mpi.world
local n, me = world.size, world.rank

--- Asserts that fn raises on this rank, with an error that contains all given texts.
local function disagree(fn, ...)
  local ok, message = pcall(fn)
  assert(not ok, "no error")
  for i = 1, select("#", ...) do
    assert(tostring(message):find(select(i, ...), 1, true), tostring(message))
  end
end

local function spec(name, fn)
  it(name, function()
    if n == 1 then pending "one rank always agrees with itself" else fn() end
  end)
end

describe("check", function()
  it("passes equal numbers and texts", function()
    world:check("learning rate", 0.1)
    world:check("model", "resnet20")
    world:check("nothing", "")
    assert.equal(n, #world:allgatherv "and all ranks are where they were")
  end)

  spec("names both sides of a difference", function()
    local last = n - 1
    disagree(function() world:check("learning rate", me == last and 0.2 or 0.1) end,
      "check: learning rate differs: rank 0 has '0.10000000000000001'", ("rank %d has '0.2"):format(last))
    disagree(function() world:check("model", me == 1 and "vgg11" or "resnet20") end,
      "rank 0 has 'resnet20', rank 1 has 'vgg11'")
    world:check("still", "usable")
  end)

  spec("names another question", function()
    disagree(function() world:check(me == 0 and "model" or "seed", 1) end, "'model'", "'seed'")
  end)
end)

describe("fingerprints", function()
  spec("name another element type", function()
    disagree(function() world:allgatherv(atomo.zeros({3}, me == 1 and "i32" or "f32")) end,
      "allgatherv: the ranks disagree", "rank 0 is in allgatherv", "f32", "rank 1", "i32")
  end)

  spec("name another operation", function()
    disagree(function()
      if me == 0 then return world:allgatherv("abc") end
      local list = {}
      for r = 1, n do list[r] = atomo.zeros(1) end
      world:alltoallv(list)
    end, "rank 0 is in allgatherv", "rank 1 is in alltoallv")
  end)

  spec("name other parts of an all-gather in place", function()
    local f = require "atomo.ffi"
    local function gather(sizes, owner)
      local parts, handles, owners = {}, f.ffi.new("atomo_tensor *[2]"), f.ffi.new("int[2]", 0, owner or 1)
      for k, size in ipairs(sizes) do
        parts[k] = atomo.ones(size)
        handles[k - 1] = parts[k].h
      end
      f.check(f.C.atomo_comm_allgather_parts(world.h, handles, owners, 2))
    end
    local text = "allgather_parts: the ranks disagree: rank 0 is in allgather_parts"
    disagree(function() gather(me == 0 and {3, 4} or {4, 3}) end, text) -- as many bytes
    disagree(function() gather({3, 4}, me == 0 and 0 or 1) end, text)
    disagree(function() gather(me == n - 1 and {3, 4} or {3, 5}) end, text, "32 bytes", "28 bytes")
    gather {3, 4}
  end)

  --- Each case uses a communicator for which checks were not requested.
  for _, case in ipairs {
    {"another count", function(c, odd) c:allreduce(atomo.ones(odd and 3 or 4)) end, "allreduce", "4 elements",
      "3 elements"},
    {"another element type", function(c, odd) c:allreduce(atomo.zeros({4}, odd and "i32" or "f32")) end,
      "(f32, 4 elements", "(i32, 4 elements"},
    {"another reduction", function(c, odd) c:allreduce(atomo.ones(4), odd and "max" or "sum") end, "sum)", "max)"},
    {"another root", function(c, odd) c:bcast(atomo.ones(4), odd and 1 or 0) end, "root 0", "root 1"},
    {"another count of a broadcast", function(c, odd) c:bcast(atomo.ones(odd and 3 or 4), 0) end, "bcast"},
    {"another reduction to a root", function(c, odd) c:reduce(atomo.ones(4), odd and "min" or "sum", 0) end, "min"},
    {"another count of a gather", function(c, odd) c:gather(atomo.ones(odd and 3 or 4), 0) end, "gather"},
    {"another count of an all-gather", function(c, odd) c:allgather(atomo.ones(odd and 3 or 4)) end, "3 elements"},
    {"another type in all-to-all", function(c, odd)
      local list = {}
      for r = 1, n do list[r] = atomo.zeros({2}, odd and "u8" or "f32") end
      c:alltoallv(list)
    end, "f32", "u8"},
    {"a barrier in place of a sum", function(c, odd)
      if odd then c:barrier() else c:allreduce(atomo.ones(4)) end
    end, "rank 0 is in allreduce", "rank 1 is in barrier"},
    {"a broadcast in place of an all-gather", function(c, odd)
      if odd then c:bcast(atomo.ones(4), 0) else c:allgather(atomo.ones(4)) end
    end, "rank 0 is in allgather", "rank 1 is in bcast"},
    {"a split in place of a sum", function(c, odd)
      if odd then c:split(0) else c:allreduce(atomo.ones(4)) end
    end, "rank 0 is in allreduce", "rank 1 is in split"},
  } do
    spec("name " .. case[1] .. ", and the communicator stays usable", function()
      local c = world:split(0)
      disagree(function() case[2](c, me == 1) end, "the ranks disagree: rank 0 is in", "rank 1 is in",
        unpack(case, 3))
      assert.equal(n, c:allreduce(atomo.ones(1)):item())
      c:close()
    end)
  end

  spec("of a non-blocking collective do not wait for other ranks", function()
    local c = world:split(0)
    if me == 0 then
      local sum = c:iallreduce(atomo.ones(2))
      for r = 1, n - 1 do c:send(atomo.ones(1), r) end
      assert.equal(n, sum:wait():get(1))
    else
      c:recv(atomo.zeros(1), 0)
      assert.equal(n, c:iallreduce(atomo.ones(2)):wait():get(1))
    end
    c:close()
  end)

  -- Each case begins on a communicator of its own, because it cannot be used afterwards; its errors say so.
  for _, case in ipairs {
    {"another count", function(c, odd) return c:iallreduce(atomo.ones(odd and 3 or 4)) end, "iallreduce", "4 elements",
      "3 elements"},
    {"another element type", function(c, odd) return c:iallreduce(atomo.zeros({4}, odd and "i32" or "f32")) end,
      "(f32, 4 elements", "(i32, 4 elements"},
    {"another reduction", function(c, odd) return c:iallreduce(atomo.ones(4), odd and "max" or "sum") end, "sum)",
      "max)"},
    {"another root", function(c, odd) return c:ibcast(atomo.ones(4), odd and 1 or 0) end, "root 0", "root 1"},
    {"another count of a broadcast", function(c, odd) return c:ibcast(atomo.ones(odd and 3 or 4), 0) end, "ibcast"},
    {"a barrier instead of a sum", function(c, odd)
      return odd and c:ibarrier() or c:iallreduce(atomo.ones(4))
    end, "rank 0 is in iallreduce", "rank 1 is in ibarrier"},
    {"a blocking one instead of a non-blocking one", function(c, odd)
      if odd then c:allreduce(atomo.ones(4)) else return c:iallreduce(atomo.ones(4)) end
    end, "rank 0 is in iallreduce", "rank 1 is in allreduce"},
    {"the second of three", function(c, odd)
      local first, second = c:iallreduce(atomo.ones(5)), c:iallreduce(atomo.ones(odd and 3 or 4))
      local third = c:ibarrier()
      assert.equal(n, first:wait():get(5))
      pcall(third.wait, third)
      return second
    end, "4 elements", "3 elements"},
  } do
    spec("of a non-blocking collective name " .. case[1], function()
      local c = world:split(0)
      local request
      disagree(function()
        request = case[2](c, me == 1)
        request:wait()
      end, "the ranks disagree: rank 0 is in", "rank 1 is in", unpack(case, 3))
      if request then disagree(function() request:wait() end) end
      disagree(function() c:barrier() end, "barrier: the communicator's ranks are out of step since", "disagree")
      disagree(function() c:isend(atomo.ones(1), me) end, "isend: the communicator's ranks are out of step since")
      assert.equal(n, world:allreduce(atomo.ones(1)):item())
      c:close()
    end)
  end

  it("of a non-blocking collective are compared by test(), too", function()
    local c = world:split(0)
    local request = c:iallreduce(atomo.ones(me == 1 and 3 or 4))
    local over, why
    repeat
      local ok, result = pcall(request.test, request)
      over, why = not ok or result, not ok and result
    until over
    assert.equal(n > 1, why and why:find("the ranks disagree", 1, true) ~= nil)
    c:close()
  end)

  spec("name another purpose", function()
    disagree(function()
      world:tag(me == 0 and "step 3, conv1" or "step 4, conv1")
      world:allgatherv "x"
    end, "'step 3, conv1'", "'step 4, conv1'")
    world:tag ""
    assert.equal(n, #world:allgatherv "fine again")
  end)
end)
