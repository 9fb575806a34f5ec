-- Collectives over tensors for any number of ranks, compared with closed forms in the rank r and the size n.
local atomo = require "atomo"
local world = atomo.mpi.world
local n, me = world.size, world.rank

--- Makes a tensor of that dtype whose element i (from 0) is fn(i).
local function make(count, fn, dtype)
  local t = atomo.zeros({count}, dtype or "f32")
  local p = t:data()
  for i = 0, count - 1 do p[i] = fn(i) end
  return t
end

local function equal(t, want)
  local got = t:totable()
  assert.same(want, got)
end

describe("communicator", function()
  it("knows its place", function()
    assert(n >= 1 and me >= 0 and me < n)
    assert(world.local_rank >= 0 and world.local_rank < world.local_size and world.local_size <= n)
    assert(#world.hostname > 0)
    assert(tostring(world):find(("rank %d of %d"):format(me, n), 1, true))
    local ranks = world:allgather(atomo.tensor({me}, "i32")):totable()
    for r = 0, n - 1 do assert.equal(r, ranks[r + 1][1]) end
  end)

  it("splits by color, orders by key, closes", function()
    local half = world:split(me % 2, -me)
    local members = math.floor((n + 1 - me % 2) / 2)
    assert.equal(members, half.size)
    assert.equal(members - 1 - math.floor(me / 2), half.rank) -- the key -me reverses the order
    assert.equal(members, half:allreduce(atomo.ones(1)):item())
    half:close()
    assert.error_matches(function() half:barrier() end, "closed")
    local none = world:split(me == 0 and 0 or nil)
    assert.equal(me == 0, none ~= nil)
    if none then none:close() end
  end)

  it("refuses every operation once closed", function()
    local gone, t = world:split(0, me), atomo.ones(3)
    gone:close()
    for name, call in pairs {barrier = {}, bcast = {t, 0}, allreduce = {t}, reduce = {t, "sum", 0}, gather = {t, 0},
      allgather = {t}, allgatherv = {"x"}, isend = {t, 0}, irecv = {t, 0}, send = {t, 0}, recv = {t, 0}, ibarrier = {},
      iallreduce = {t}, ibcast = {t, 0}, split = {0, 0}, split_shared = {}, close = {}} do
      local ok, text = pcall(gone[name], gone, unpack(call))
      assert.is_false(ok, name)
      assert.matches("closed", text, name)
    end
    local f = require "atomo.ffi"
    local C, void = f.C, f.ffi.new "void *[1]" -- the C functions with NULL
    local out, request = f.ffi.cast("atomo_tensor **", void), f.ffi.cast("atomo_request **", void)
    for name, status in pairs {close = C.atomo_comm_close(nil), barrier = C.atomo_comm_barrier(nil),
      bcast = C.atomo_comm_bcast(nil, t.h, 0), allreduce = C.atomo_comm_allreduce(nil, t.h, 0),
      allreduce_plain = C.atomo_comm_allreduce_plain(nil, t.h),
      allreduce_grains = C.atomo_comm_allreduce_grains(nil, t.h, f.ffi.new("double[1]", 3), 1),
      reduce = C.atomo_comm_reduce(nil, t.h, 0, 0),
      gather = C.atomo_comm_gather(nil, t.h, 0, out), allgather = C.atomo_comm_allgather(nil, t.h, out),
      send = C.atomo_comm_send(nil, t.h, 0, 0), recv = C.atomo_comm_recv(nil, t.h, 0, 0),
      isend = C.atomo_comm_isend(nil, t.h, 0, 0, request), irecv = C.atomo_comm_irecv(nil, t.h, 0, 0, request),
      ibarrier = C.atomo_comm_ibarrier(nil, request), ibcast = C.atomo_comm_ibcast(nil, t.h, 0, request),
      iallreduce = C.atomo_comm_iallreduce(nil, t.h, 0, request)} do
      assert.is_true(status < 0, name)
    end
  end)

  it("splits by shared memory", function()
    local node = world:split_shared()
    assert.equal(world.local_size, node.size)
    assert.equal(world.local_rank, node.rank)
    node:close()
  end)

  it("of the world stays open", function()
    assert.error_matches(function() world:close() end, "stays open")
    world:barrier()
  end)
end)

describe("collective", function()
  it("refuses an operator's result, which would get a wrong gradient, and counts as a change in place", function()
    local w = atomo.param {1, 2}
    local y = w * 2
    for _, name in ipairs {"bcast", "allreduce", "reduce", "ibcast", "iallreduce", "recv", "irecv"} do
      local ok, text = pcall(world[name], world, y, name:match "recv" and 0 or nil)
      assert.is_false(ok)
      assert.matches(name .. ": tensor is the result of an operator", text)
    end
    local z = y * y
    assert.equal(2 * n, world:allreduce(y:detach()):get(1))
    local ok, text = pcall(function() z:sum():backward() end)
    assert.is_false(ok)
    assert.matches("changed in place since", text)
    assert.same({1, 2}, world:bcast(w):totable()) -- a parameter's values may be sent
  end)

  it("allreduce: sum, max, min, prod, in place, every type", function()
    local product = 1
    for i = 2, n do product = product * i end
    for _, dtype in ipairs(n < 6 and {"f32", "i32", "u8"} or {"f32", "i32"}) do -- 6! is above 255
      local t = make(5, function(i) return i + me end, dtype)
      assert.equal(t, world:allreduce(t, "sum"))
      local sum = n * (n - 1) / 2
      equal(t, {sum, n + sum, 2 * n + sum, 3 * n + sum, 4 * n + sum})
      equal(world:allreduce(make(2, function(i) return i + me end, dtype), "max"), {n - 1, n})
      equal(world:allreduce(make(2, function(i) return i + me + 1 end, dtype), "min"), {1, 2})
      equal(world:allreduce(make(2, function() return me + 1 end, dtype), "prod"),
        {product, product})
    end
  end)

  it("max and min of f32 are NaN where any rank has NaN, by every way", function()
    local nan = 0 / 0
    local function has_nan(t) -- every element but the last
      for i = 1, n do assert.is_true(t:get(i) ~= t:get(i), "element " .. i) end
      assert.equal(7, t:get(n + 1))
    end
    for _, op in ipairs {"max", "min"} do
      local function t() return make(n + 1, function(i) return i == me and nan or i == n and 7 or i + me end) end
      has_nan(world:allreduce(t(), op))
      local request = t()
      world:iallreduce(request, op):wait()
      has_nan(request)
      for root = 0, n - 1 do
        local r = t()
        world:reduce(r, op, root)
        if me == root then has_nan(r) end
      end
    end
    local large = atomo.full({100003}, me == 0 and nan or 1) -- in pieces, along the ring
    assert.equal(100003, world:allreduce(large, "max"):count_nonfinite())
  end)

  it("gives the same bits on all ranks", function()
    atomo.manual_seed(100 + me)
    local t = world:allreduce(atomo.randn(10007))
    local all = world:allgatherv(t)
    for r = 1, n do
      local a, b = all[r]:data(), t:data()
      for i = 0, 10006 do assert(a[i] == b[i]) end
    end
  end)

  it("bcast from every root, of any shape", function()
    for root = 0, n - 1 do
      local t = atomo.full({2, 3}, me == root and root + 0.5 or -1)
      assert.equal(t, world:bcast(t, root))
      assert.equal(6 * (root + 0.5), t:sum():item())
    end
  end)

  it("reduce to every root leaves the others alone", function()
    for root = 0, n - 1 do
      local t = world:reduce(atomo.full({3}, me + 1), "sum", root)
      local want = me == root and n * (n + 1) / 2 or me + 1
      equal(t, {want, want, want})
    end
  end)

  it("gather and allgather stack blocks by rank", function()
    local block = atomo.full({2, 2}, me)
    local all = world:allgather(block)
    assert.same({n, 2, 2}, all:shape())
    for r = 0, n - 1 do assert.equal(r, all:get(r + 1, 2, 1)) end
    for root = 0, n - 1 do
      local g = world:gather(block, root)
      assert.equal(me == root, g ~= nil)
      if g then
        assert.same({n, 2, 2}, g:shape())
        for r = 0, n - 1 do assert.equal(r, g:get(r + 1, 1, 2)) end
      end
    end
  end)

  it("takes tensors of no elements", function()
    local e = atomo.zeros(0)
    world:bcast(e, 0)
    world:allreduce(e)
    world:reduce(e)
    assert.same({n, 0}, world:allgather(e):shape())
    if me == 0 then assert.same({n, 0}, world:gather(e):shape()) else assert.is_nil(world:gather(e)) end
  end)

  it("marks its changes for autograd", function()
    local w = atomo.param(atomo.ones(3))
    local loss = (w * w):sum()
    world:allreduce(w)
    assert.error_matches(function() loss:backward() end, "in place")
  end)
end)

describe("collective of lengths that differ", function()
  it("allgatherv: r elements from rank r, so none from rank 0", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      local all = world:allgatherv(make(me, function(i) return 10 * me + i end, dtype))
      assert.equal(n, #all)
      for r = 0, n - 1 do
        assert.equal(r, all[r + 1]:numel())
        assert.equal(dtype, all[r + 1]:dtype())
        for i = 0, r - 1 do assert.equal(10 * r + i, all[r + 1]:get(i + 1)) end
      end
    end
  end)

  it("allgatherv where nobody, or only the last, has anything", function()
    for _, t in ipairs(world:allgatherv(atomo.zeros({0}, "u8"))) do assert.equal(0, t:numel()) end
    local all = world:allgatherv(atomo.zeros({me == n - 1 and 1000 or 0}, "u8"))
    for r = 1, n do assert.equal(r == n and 1000 or 0, all[r]:numel()) end
  end)

  it("allgatherv of strings gives strings", function()
    local all = world:allgatherv(("ab\0"):rep(me))
    for r = 1, n do assert.equal(("ab\0"):rep(r - 1), all[r]) end
  end)

  it("alltoallv: (r + s) elements from r to s", function()
    for _, dtype in ipairs {"f32", "u8"} do
      local list = {}
      for s = 0, n - 1 do list[s + 1] = make(me + s, function() return 10 * me + s end, dtype) end
      local got = world:alltoallv(list)
      for r = 0, n - 1 do
        assert.equal(r + me, got[r + 1]:numel())
        for i = 1, r + me do assert.equal(10 * r + me, got[r + 1]:get(i)) end
      end
    end
  end)

  it("allgather_parts: every rank's parts arrive in the others' tensors", function()
    local f = require "atomo.ffi"
    local ffi, C = f.ffi, f.C
    local parts, want, handles = {}, {}, ffi.new("atomo_tensor *[?]", 5 * n)
    local owners, versions = ffi.new("int[?]", 5 * n), {}
    for k = 1, 5 * n do -- rank r owns parts of k % 4 elements, of different types; some have none
      local owner, dtype = (k * 3) % n, k % 3 == 0 and "u8" or "f32"
      parts[k] = make(k % 4, function(i) return owner == me and (7 * k + i) % 250 or 1 end, dtype)
      want[k] = make(k % 4, function(i) return (7 * k + i) % 250 end, dtype):totable()
      handles[k - 1], owners[k - 1], versions[k] = parts[k].h, owner, C.atomo_tensor_version(parts[k].h)
    end
    f.check(C.atomo_comm_allgather_parts(world.h, handles, owners, 5 * n))
    for k = 1, 5 * n do
      equal(parts[k], want[k])
      assert.equal(versions[k] + (owners[k - 1] == me and 0 or 1), C.atomo_tensor_version(parts[k].h))
    end
    f.check(C.atomo_comm_allgather_parts(world.h, handles, owners, 0))
    owners[0] = n
    assert.error_matches(function() f.check(C.atomo_comm_allgather_parts(world.h, handles, owners, 1)) end,
      ("allgather_parts: owner: rank %d, expected 0 to %d"):format(n, n - 1))
    local strided = atomo.zeros(3, 2):t()
    owners[0], handles[0] = 0, strided.h
    assert.error_matches(function() f.check(C.atomo_comm_allgather_parts(world.h, handles, owners, 1)) end,
      "allgather_parts: a part %[2,3%] is not contiguous")
  end)

  it("allgatherv of bytes allocates nothing once warm, and grows", function()
    local f = require "atomo.ffi"
    local ffi, C = f.ffi, f.C
    local recv, counts = ffi.new "atomo_tensor *[1]", ffi.new("double[?]", n)
    local bytes = ffi.new("uint8_t[4096]", 7)
    local function turn(k)
      f.check(C.atomo_comm_allgatherv_bytes(world.h, bytes, k, recv, counts))
      for r = 0, n - 1 do assert.equal(k, counts[r]) end
      assert(recv[0].numel >= n * k)
      if k > 0 then assert.equal(7, ffi.cast("uint8_t *", recv[0].data)[n * k - 1]) end
    end
    turn(100)
    turn(4096)
    local mem = ffi.new "atomo_mem"
    for _ = 1, 2 do collectgarbage() end -- frees now what earlier specs left, not between the counts
    C.atomo_mem_stats(mem)
    local before, blocks = mem.system_allocs, mem.live_blocks
    for k = 0, 4096, 256 do turn(k) end
    C.atomo_mem_stats(mem)
    assert.equal(before, mem.system_allocs)
    assert.equal(blocks, mem.live_blocks)
    C.atomo_tensor_free(recv[0])
  end)
end)

describe("byte counts", function()
  local own = world:split(0, me)
  require("atomo.ffi").C.atomo_comm_set_checked(own.h, 0) -- checked collectives move more bytes
  local function moved(fn)
    local out, inn = own:bytes()
    fn()
    local out2, in2 = own:bytes()
    return out2 - out, in2 - inn
  end

  it("are the bytes that each operation must move", function()
    if os.getenv "ATOMO_MPI_CHECK" then return pending "every operation exchanges fingerprints besides" end
    local t = atomo.ones(100) -- 400 bytes
    local o, i = moved(function() own:allreduce(t) end)
    assert.near(2 * 400 * (n - 1) / n, o, 1)
    assert.near(o, i, 1)
    local f = require "atomo.ffi"
    for _, sum in ipairs {function() own:iallreduce(t):wait() end, function()
      f.check(f.C.atomo_comm_allreduce_grains(own.h, t.h, f.ffi.new("double[2]", 30, 70), 2))
    end} do
      o, i = moved(sum)
      assert.near(2 * 400 * (n - 1) / n, o, 1)
      assert.near(o, i, 1)
    end
    for _, collect in ipairs {function() own:reduce(t, "sum", 0) end, function() own:gather(t, 0) end} do
      o, i = moved(collect)
      assert.equal(me == 0 and 0 or 400, o)
      assert.equal(me == 0 and 400 * (n - 1) or 0, i)
    end
    o, i = moved(function() own:allgather(t) end)
    assert.equal(400 * (n - 1), o)
    assert.equal(400 * (n - 1), i)
    o, i = moved(function() own:bcast(t, 0) end)
    assert.equal(me == 0 and 400 * (n - 1) or 0, o)
    assert.equal(me == 0 and 0 or 400, i)
    o, i = moved(function() own:ibcast(t, 0):wait() end)
    assert.equal(me == 0 and 400 * (n - 1) or 0, o)
    assert.equal(me == 0 and 0 or 400, i)
    o, i = moved(function() own:allgatherv(("x"):rep(me * 10)) end)
    assert.equal((me * 10 + 48) * (n - 1), o)
    assert.equal(10 * n * (n - 1) / 2 - me * 10 + 48 * (n - 1), i)
    local recv, count = f.ffi.new "atomo_tensor *[1]", f.ffi.new "double[1]"
    o, i = moved(function() f.check(f.C.atomo_comm_bcast_bytes(own.h, t.h.data, 400, 0, recv, count)) end)
    assert.equal((me == 0 and 400 or 0) * (n - 1) + 48 * (n - 1), o)
    assert.equal((me == 0 and 0 or 400) + 48 * (n - 1), i)
    assert.equal(400, count[0])
    f.C.atomo_tensor_free(recv[0])
  end)
end)
