-- The dense path: the ring all-reduce at the boundaries of its chunks and segments, and the communication thread, which
-- runs it while the main thread continues.
local atomo = require "atomo"
local f = require "atomo.ffi"
local messages = require "atomo.exchange.messages"
local program = require "atomo.exchange.program"
local ffi, C = f.ffi, f.C
local world = atomo.mpi.world
local root = require "support.root"

--- Returns a tensor of small whole numbers that depend on rank and index, whose sum is exact in any order.
local function filled(n, rank)
  local t = atomo.zeros(n)
  local p = t:data()
  for i = 0, n - 1 do p[i] = (i * 7 + rank * 13) % 101 - 50 end
  return t
end

local function expected(n)
  local sum = filled(n, 0)
  for r = 1, world.size - 1 do sum:add_(filled(n, r)) end
  return sum
end

-- The ring is used for more than 32 KiB per rank, in segments of 65536 floats.
local sizes = {1, 5, 8192 * world.size - 1, 8192 * world.size, 65536 * world.size - 1, 65536 * world.size,
  65536 * world.size + 1, 65536 * world.size * 5 + 77}

describe("the all-reduce", function()
  it("sums exactly at every size", function()
    for _, n in ipairs(sizes) do
      local t = filled(n, world.rank)
      world:allreduce(t, "sum")
      assert.equal(0, (t - expected(n)):norm_value(math.huge), n)
    end
  end)

  it("knows other reductions and types", function()
    local n = 100000 * world.size
    local t = atomo.full({n}, world.rank)
    world:allreduce(t, "max")
    assert.equal(world.size - 1, t:min():item())
    local labels = atomo.full({n}, 3, "i32")
    world:allreduce(labels, "sum")
    assert.equal(3 * world.size, labels:get(1))
    assert.equal(3 * world.size, labels:get(n))
  end)

  it("gives the same bits on all ranks and in every run", function()
    atomo.manual_seed(50 + world.rank)
    local mine = atomo.randn(300000)
    local first, second = mine:clone(), mine:clone()
    world:allreduce(first, "sum")
    world:allreduce(second, "sum")
    assert.equal(0, (first - second):norm_value(math.huge))
    atomo.exchange {}:check_replicas(first, "the sum")
  end)

  it("allocates nothing after the first steps", function()
    local t = filled(400000, world.rank)
    world:allreduce(t, "sum")
    local before = atomo.mem().system_allocs
    for _ = 1, 3 do world:allreduce(t, "max") end
    assert.equal(before, atomo.mem().system_allocs)
  end)
end)

describe("the communication thread", function()
  local figures = ffi.new "double[4]"

  local function wait(bucket) f.check(C.atomo_bucket_wait(bucket, figures)) end

  it("carries out many buckets in order, also while the main thread uses MPI", function()
    local buckets = {}
    for k = 1, 40 do
      local n = sizes[k % 5 + 1]
      local t = filled(n, world.rank)
      local bucket = program.bucket("bucket " .. k, {{"allreduce", world}}, {tensor = t.h})
      f.check(C.atomo_bucket_start(bucket, nil, 0))
      buckets[k] = {t = t, n = n, bucket = bucket}
      if k % 13 == 0 then
        local small = atomo.full({3}, 1)
        world:allreduce(small, "sum")
        assert.equal(world.size, small:get(2))
      end
    end
    for _, each in ipairs(buckets) do
      wait(each.bucket)
      assert.equal(0, (each.t - expected(each.n)):norm_value(math.huge))
    end
  end)

  it("carries out whole programs, step after step, one way back behind the next one's way out", function()
    local list, tensors = {}, {}
    for k = 1, 5 do
      tensors[k] = filled(100 * k, world.rank)
      list[k] = {h = program.bucket("bucket " .. k, {{"reduce", world}, {"broadcast_tensor", world}},
        {tensor = tensors[k].h}, 2)}
    end
    program.order(list)
    for step = 1, 3 do
      for k, t in ipairs(tensors) do t:copy_(filled(100 * k, world.rank)):mul_(step) end
      for _, each in ipairs(list) do f.check(C.atomo_bucket_start(each.h, nil, step)) end
      for k, each in ipairs(list) do
        wait(each.h)
        assert.equal(0, (tensors[k] - expected(100 * k):mul_(step)):norm_value(math.huge))
      end
    end
    assert.is_true(C.atomo_bucket_start(list[3].h, nil, 4) < 0)
    assert.matches("bucket 3 is started before bucket 2", ffi.string(C.atomo_last_error()))
  end)

  it("gathers bytes", function()
    local inbox, out = messages.inbox(world), atomo.full({world.rank * 1000 + 7}, world.rank, "u8")
    local bucket, n = program.bucket("bytes", {{"allgather", world}}, {inbox = inbox.h}), ffi.new "double[1]"
    n[0] = world.rank * 1000
    f.check(C.atomo_bucket_send(bucket, out.h, 7, n))
    wait(bucket)
    local at = ffi.cast("uint8_t *", inbox.slot[0].data)
    for r = 0, world.size - 1 do
      assert.equal(1000 * r, inbox.counts[r])
      if r > 0 then assert.equal(r, at[1000 * r * (r - 1) / 2]) end
    end
    n[0] = n[0] + 1
    assert.is_true(C.atomo_bucket_send(bucket, out.h, 7, n) < 0)
    assert.matches("are not in the tensor that holds them", ffi.string(C.atomo_last_error()))
  end)

  it("refuses a program without its operands, and a buffer without grains", function()
    for words, operations in pairs {["operation 1 of its program needs a field"] = {{"encode"}},
      ["operation 1 of its program is 0, with a communicator"] = {{"encode", world}},
      ["operation 2 of its program is 4, without a communicator"] = {{"reduce", world}, {"allgather"}}} do
      local ok, why = pcall(program.bucket, "a", operations, {tensor = filled(3, 0).h})
      assert.is_false(ok)
      assert.matches(words, why, 1, true)
    end
    local ok, why = pcall(program.bucket, "a", {{"allreduce", world}}, {tensor = filled(3, 0).h,
      grains = ffi.new("double[1]", 3), grain_count = 0})
    assert.is_false(ok)
    assert.matches("bucket a: 0 grains", why, 1, true)
  end)

  it("meets the other ranks whatever order gradients become ready in, with the same bits without overlap", function()
    for _, o in ipairs {{compress = "none"}, {compress = "entry:ratio=20"}, {compress = "svd:ratio=20,bits=8"}} do
      local results = {}
      for run, overlap in ipairs {true, false} do
        local ex = atomo.exchange {compress = o.compress, overlap = overlap, seed = 3}
        local grads = {}
        for step = 1, 3 do
          for i = 1, 5 do
            atomo.manual_seed(100 * step + 10 * i + world.rank)
            grads[i] = atomo.randn(i == 3 and 5 or 600, 900)
          end
          for k = 1, 5 do
            local i = world.rank % 2 == 0 and k or 6 - k
            ex:push(i, grads[i])
          end
          ex:finish()
        end
        for _, g in ipairs(grads) do ex:check_replicas(g, "the average") end
        results[run] = grads
      end
      for i = 1, 5 do assert.equal(0, (results[1][i] - results[2][i]):norm_value(math.huge)) end
    end
  end)

  -- Five buckets per step (three with sharded), so that several are encoded, sent and answered at the same time.
  it("codes, sends and answers in the background with the same bits as one after the other", function()
    dofile(root .. "scripts/atoms/haar.lua") -- a compressor in Lua
    for _, o in ipairs {{compress = "entry:ratio=20"}, {compress = "auto:ratio=20"},
      {compress = "topk:ratio=20,ef=true", topology = "sharded"},
      {compress = "svd:ratio=20,bits=8", topology = "sharded"},
      {compress = "qsgd", topology = "ps"}, {compress = "auto:ratio=20", topology = "ps", downlink = "compress"},
      {compress = "entry:ratio=20,ef=true", topology = "ps", downlink = "compress"},
      {compress = "haar_lua:ratio=20", topology = "ps", downlink = "compress"},
      {compress = "haar_lua:ratio=20", topology = "sharded"}} do
      local possible = o.topology ~= "ps" or world.size > 1
      local results = {}
      for run, overlap in ipairs(possible and {true, false} or {}) do
        local ex = atomo.exchange {compress = o.compress, topology = o.topology, downlink = o.downlink,
          overlap = overlap, seed = 3}
        local grads = {}
        for step = 1, 3 do
          for i = 1, 6 do
            atomo.manual_seed(100 * step + 10 * i + world.rank)
            grads[i] = atomo.randn(i == 3 and 5 or 100, 700)
          end
          for i = 6, 1, -1 do ex:push(i, grads[i]) end
          ex:finish()
          local ms = ex:stats().ms
          assert.is_true(ms.encode > 0 and ms.decode > 0 and ms.exchange > 0)
        end
        for _, g in ipairs(grads) do ex:check_replicas(g, "the average") end
        results[run] = grads
      end
      for i, g in ipairs(results[1] or {}) do
        assert.equal(0, (g - results[2][i]):norm_value(math.huge), o.compress .. " by " .. tostring(o.topology))
      end
    end
  end)

  it("drops a step while averages are on their way, and continues with the next one", function()
    for _, o in ipairs {{topology = "sharded"}, {topology = "ps", downlink = "compress"}, {topology = "ps"}} do
      if o.topology ~= "ps" or world.size > 1 then
        local ex = atomo.exchange {compress = "entry:ratio=20,ef=true", topology = o.topology, downlink = o.downlink,
          seed = 3}
        local grads = {}
        for step = 1, 4 do
          for i = 1, 5 do
            atomo.manual_seed(100 * step + 10 * i + world.rank)
            grads[i] = atomo.randn(100, 700)
          end
          local bad = step == 2 and world.rank == world.size - 1
          if bad then grads[3]:set(1, 1, 0 / 0) end
          for i = 5, 1, -1 do ex:push(i, grads[i]) end
          if step == 2 then
            assert.equal(bad, grads[3]:count_nonfinite() > 0) -- pushed gradients are left alone until finish
            ex:drop()
          else
            ex:finish()
          end
        end
        for _, g in ipairs(grads) do
          assert.equal(0, (g:count_nonfinite()))
          ex:check_replicas(g, "the average")
        end
      end
    end
  end)

  it("raises on every rank if a gradient cannot be encoded, and leaves no rank waiting", function()
    if world.size == 1 then return pending "one rank has nobody to tell" end
    for _, o in ipairs {{topology = "allgather"}, {topology = "sharded"}, {topology = "ps", downlink = "compress"}} do
      for _, overlap in ipairs {true, false} do
        local ex = atomo.exchange {compress = "entry:ratio=20", topology = o.topology, downlink = o.downlink,
          overlap = overlap}
        local ok, text, grads
        for step = 1, 2 do
          grads = {}
          for i = 1, 5 do grads[i] = atomo.full({100, 700}, i) end
          if step == 2 and world.rank == world.size - 1 then grads[3]:set(1, 2, 0 / 0) end
          for i = 5, 1, -1 do ex:push(i, grads[i]) end
          ok, text = pcall(ex.finish, ex)
          assert.equal(step == 1, ok)
        end
        assert.matches(("exchange: step 1: rank %d: .*gradient 3 .*1 entries are NaN or Inf, the first is number 2, " ..
          "expected none %%(ENONFINITE%%)"):format(world.size - 1), text)
        local again, words = pcall(ex.push, ex, 1, grads[1])
        assert.is_false(again)
        assert.matches("exchange: step 1 has failed, and must be given up by drop%(%): rank %d: .*gradient 3", words)
        ex:drop()
        for i = 5, 1, -1 do ex:push(i, grads[i]:fill_(1)) end
        ex:finish()
      end
    end
  end)

  it("sends and decodes buckets while gradients are still to come, and leaves gradients alone until finish", function()
    if world.size == 1 then return pending "one rank has no overlap" end
    local ex = atomo.exchange {compress = "entry:ratio=20", topology = "allgather"}
    for step = 1, 2 do
      local grads, given = {}, {}
      for i = 1, 5 do
        atomo.manual_seed(10 * i + world.rank)
        grads[i] = atomo.randn(100, 700)
        given[i] = grads[i]:clone()
      end
      for i = 5, 1, -1 do
        ex:push(i, grads[i])
        if step == 2 then -- every bucket was posted with its last gradient, and its decoding behind it
          assert.equal(5, #ex.plan.buckets) -- of 256 KiB and more
          local bucket = ex.plan.buckets[6 - i]
          wait(bucket.h)
          assert.is_true(bucket.decoded[1]:norm_value(2) > 0)
        end
      end
      for i, g in ipairs(grads) do assert.equal(0, (g - given[i]):norm_value(math.huge)) end
      ex:finish()
      for i, g in ipairs(grads) do assert.is_true((g - given[i]):norm_value(math.huge) > 0) end
    end
  end)

  it("tries bucket sizes by the clock, and the bits do not depend on them", function()
    local adapted, fixed = atomo.exchange {}, atomo.exchange {overlap = false}
    local made, a, b, counts = {}, {}, {}, {}
    for i = 1, 9 do
      atomo.manual_seed(10 * i + world.rank)
      made[i] = atomo.randn(i == 4 and 17 or 200, 1000)
      a[i], b[i] = made[i]:clone(), made[i]:clone()
    end
    for _ = 1, 13 do -- four steps for each of three sizes
      for i = 9, 1, -1 do
        a[i]:copy_(made[i])
        b[i]:copy_(made[i])
        adapted:push(i, a[i])
        fixed:push(i, b[i])
      end
      adapted:finish()
      fixed:finish()
      for i = 1, 9 do assert.equal(0, (a[i] - b[i]):norm_value(math.huge)) end
      counts[#adapted.plan.buckets] = true
    end
    assert.is_false(adapted.trials) -- the trials are over
    if world.size > 1 then assert.is_true(counts[1] and counts[2] and counts[4]) end
  end)

  it("names the gradient that cannot be encoded, and drops the step if all ranks do", function()
    local ex, g = atomo.exchange {compress = "svd:ratio=4", min_size = 0, topology = "allgather"}, atomo.ones(8, 8)
    ex:push(1, g:clone())
    ex:finish()
    g:set(2, 3, world.rank == world.size - 1 and 0 / 0 or 1)
    ex:push(1, g)
    ex:drop()
    ex:push(1, atomo.ones(8, 8))
    ex:finish()
    if world.size > 1 then return end
    ex:push(1, g)
    local ok, text = pcall(ex.finish, ex)
    assert.is_false(ok)
    assert.matches("gradient 1", text)
  end)

  it("measures its working time and the time that others waited for it", function()
    local before, after = ffi.new "double[3]", ffi.new "double[3]"
    C.atomo_engine_seconds(before)
    local ex = atomo.exchange {}
    for _ = 1, 2 do
      ex:push(2, filled(300000, world.rank))
      ex:push(1, filled(300000, world.rank))
      ex:finish()
    end
    C.atomo_engine_seconds(after)
    assert.is_true(world.size == 1 or after[0] > before[0])
    assert.is_true(after[1] >= before[1] and after[2] >= before[2])
    local hidden = ex:stats().hidden
    assert.is_true(world.size == 1 and hidden == nil or hidden >= 0 and hidden <= 1)
  end)
end)
