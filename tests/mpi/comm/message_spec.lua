-- Messages between ranks, requests, and misuse of both and of the collectives.
local atomo = require "atomo"
local world = atomo.mpi.world
local n, me = world.size, world.rank
local right, left = (me + 1) % n, (me + n - 1) % n

describe("messages", function()
  it("go round a ring, with blocking sends", function()
    local out, inn = atomo.full({3, 5}, me), atomo.full({3, 5}, -1)
    if n == 1 then
      local r = world:irecv(inn, 0, 4)
      world:send(out, 0, 4)
      r:wait()
    elseif me % 2 == 0 then
      world:send(out, right, 4)
      assert.equal(inn, world:recv(inn, left, 4))
    else
      world:recv(inn, left, 4)
      world:send(out, right, 4)
    end
    assert.equal(15 * left, inn:sum():item())
  end)

  it("do not block as requests, whatever the order and type", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      local a, b = atomo.full({1000}, me, dtype), atomo.full({10}, me + 100, dtype)
      local c, d = atomo.zeros({1000}, dtype), atomo.zeros({10}, dtype)
      local r2, r1 = world:irecv(d, left, 2), world:irecv(c, left, 1)
      local s1, s2 = world:isend(a, right, 1), world:isend(b, right, 2)
      assert.equal(c, r1:wait())
      r2:wait()
      s1:wait()
      s2:wait()
      r1:wait() -- again: no effect
      assert.equal(left, c:get(1000))
      assert.equal(left + 100, d:get(10))
    end
  end)

  it("test() turns true, and stays", function()
    local t = atomo.full({4}, -1)
    local r, s = world:irecv(t, left), world:isend(atomo.full({4}, me), right)
    while not r:test() do end
    assert(r:test())
    while not s:test() do end
    assert.equal(left, t:get(4))
  end)

  it("of no elements arrive", function()
    local r, next_one = world:irecv(atomo.zeros(0), left), atomo.zeros(1)
    world:send(atomo.zeros(0), right)
    assert.equal(0, r:wait():numel())
    -- empty messages are messages: the next one is not received in their place
    r = world:irecv(next_one, left)
    world:send(atomo.full({1}, me), right)
    r:wait()
    assert.equal(left, next_one:item())
  end)

  it("of another size are an error that names both", function()
    local r = world:irecv(atomo.zeros(8), left, 9)
    world:isend(atomo.zeros(5), right, 9):wait()
    local ok, message = pcall(r.wait, r)
    assert(not ok)
    assert(message:find(("rank %d sent 20 bytes with tag 9"):format(left), 1, true), message)
    assert(message:find("[8]", 1, true), message)
    local r2 = world:irecv(atomo.zeros(2), left, 10)
    world:isend(atomo.zeros(5), right, 10):wait()
    ok, message = pcall(r2.wait, r2)
    assert(not ok and message:find "truncated", message)
  end)
end)

describe("a message", function()
  it("of another type, or longer, is an error that names both, and is taken off", function()
    for i, case in ipairs {{{4, "i32"}, {4, "f32"}, "sent 16 bytes with tag 11 (i32), f32 [4] here takes 16"},
        {{8, "u8"}, {2, "f32"}, "sent 8 bytes with tag 12 (u8), f32 [2] here takes 8"},
        {{5, "f32"}, {2, "f32"}, "sent 20 bytes with tag 13 (f32), f32 [2] here takes 8"},
        {{0, "f32"}, {0, "i32"}, "sent 0 bytes with tag 14 (f32), i32 [0] here takes 0"},
        {{3, "f32"}, {0, "f32"}, "sent 12 bytes with tag 15 (f32), f32 [0] here takes 0"}} do
      local sent, taken, text = unpack(case)
      local tag = 10 + i
      local wrong, right_one = atomo.zeros({taken[1]}, taken[2]), atomo.zeros({3}, "f32")
      local r, r2 = world:irecv(wrong, left, tag), world:irecv(right_one, left, tag)
      local s = world:isend(atomo.ones({sent[1]}, sent[2]), right, tag)
      local s2 = world:isend(atomo.full({3}, me), right, tag)
      local ok, message = pcall(r.wait, r)
      assert(not ok)
      assert(message:find(("rank %d %s"):format(left, text), 1, true), message)
      assert.equal(left, r2:wait():get(3)) -- the one behind it
      s:wait()
      s2:wait()
    end
  end)

  it("blocking, too", function()
    if n == 1 then return end
    local ok, message
    if me == 0 then
      world:send(atomo.ones({4}, "i32"), 1, 20)
    elseif me == 1 then
      ok, message = pcall(world.recv, world, atomo.zeros(4), 0, 20)
      assert(not ok and message:find("recv: rank 0 sent 16 bytes with tag 20 (i32), f32 [4] here", 1, true), message)
    end
  end)
end)

describe("non-blocking collectives", function()
  it("equal the blocking ones", function()
    local t = atomo.full({1001}, me + 1)
    local r, b = world:iallreduce(t, "sum"), world:ibarrier()
    assert.equal(t, r:wait())
    b:wait()
    assert.equal(n * (n + 1) / 2, t:get(1001))
    local u = atomo.full({7}, me)
    world:ibcast(u, n - 1):wait()
    assert.equal(n - 1, u:get(7))
  end)

  it("may be in flight together", function()
    local ts, rs = {}, {}
    for i = 1, 8 do
      ts[i] = atomo.full({i * 100}, i)
      rs[i] = world:iallreduce(ts[i])
    end
    for i = 8, 1, -1 do rs[i]:wait() end
    for i = 1, 8 do assert.equal(i * n, ts[i]:get(i * 100)) end
  end)
end)

describe("a request", function()
  it("keeps its tensor's bytes alive, even collected unfinished, until a later operation of any kind", function()
    local f = require "atomo.ffi"
    local mem = f.ffi.new "atomo_mem"
    local function live()
      collectgarbage()
      collectgarbage()
      f.C.atomo_mem_stats(mem)
      return mem.live_blocks
    end
    local flag, t = atomo.zeros(1), atomo.zeros(3)
    for _, each in ipairs {
      {"barrier", function() world:barrier() end},
      {"message", function()
        local sent = world:isend(t, right, 78)
        world:recv(t, left, 78)
        sent:wait()
      end},
      {"iallreduce", function() world:iallreduce(t):wait() end},
      {"ibcast", function() world:ibcast(t, n - 1):wait() end},
    } do
      local name, operation = unpack(each)
      local before = live()
      do
        local sent = world:isend(atomo.full({5000}, me), right, 77)
        world:irecv(atomo.zeros(5000), left, 77) -- dropped at once
        assert(live() > before)
        sent:wait()
      end
      for _ = 1, 200 do -- every rank's message arrives; the registry gives the memory back at a later call
        operation()
        flag:fill_(live() <= before and 1 or 0)
        if world:allreduce(flag, "min"):item() == 1 then break end
      end
      assert.equal(1, flag:item(), name)
    end
  end)
end)

describe("misuse", function()
  local t = atomo.zeros(4)
  local function fails(want, fn)
    local ok, message = pcall(fn)
    assert(not ok, "no error, expected " .. want)
    assert(tostring(message):find(want, 1, true), tostring(message))
    assert(tostring(message):find("message_spec.lua", 1, true), "at the caller's line: " .. tostring(message))
  end

  it("of ranks, roots and tags is named before MPI is called", function()
    fails(("bcast: root: rank %d, expected 0 to %d"):format(n, n - 1), function() world:bcast(t, n) end)
    fails("reduce: root: rank -1", function() world:reduce(t, "sum", -1) end)
    fails("gather: root", function() world:gather(t, 99) end)
    fails("send: destination: rank 99", function() world:send(t, 99) end)
    fails("recv: source: rank -2", function() world:recv(t, -2) end)
    fails("send: destination is missing", function() world:send(t) end)
    fails("tag -1", function() world:isend(t, 0, -1) end)
    fails("tag 32001, expected 0 to 32000", function() world:irecv(t, 0, 32001) end)
    fails("isend: tag is 1.5, expected a whole number", function() world:isend(t, 0, 1.5) end)
    fails("split: color -2", function() world:split(-2) end)
  end)

  it("of tensors and reductions too", function()
    fails("allreduce: tensor is missing", function() world:allreduce() end)
    fails("allgather: tensor is a table", function() world:allgather {1} end)
    fails("unknown reduction 'mean', expected sum, max, min or prod", function() world:allreduce(t, "mean") end)
    local view = atomo.zeros(3, 4):transpose(1, 2)
    for _, name in ipairs {"allreduce", "bcast", "reduce", "gather", "allgather"} do
      fails("[4,3] is not contiguous", function() world[name](world, view) end)
    end
    fails("not contiguous", function() world:isend(view, 0) end)
    fails("allgatherv: tensor has shape [3,4], expected 1 dimension",
      function() world:allgatherv(atomo.zeros(3, 4)) end)
    fails("9 dimensions", function() world:allgather(atomo.zeros(1, 1, 1, 1, 1, 1, 1, 1)) end)
    fails(("expected a list of %d tensors, one per rank, got 0"):format(n), function() world:alltoallv {} end)
    local list = {}
    for r = 1, n do list[r] = atomo.zeros(2, r == 1 and "f32" or "i32") end
    if n > 1 then
      fails("alltoallv: tensor 2 is i32, the first is f32", function() world:alltoallv(list) end)
    end
    fails("check: x is a table", function() world:check("x", {}) end)
  end)
end)
