-- What topology = "auto" and compress = "adaptive" choose on made-up networks, and the margins of their checks. The
-- figures are those of a ResNet-18 step on one core: nothing here is timed.
local choose = require "atomo.exchange.auto.choose"
local decide = require "atomo.exchange.auto.decide"
local timing = require "atomo.exchange.auto.measure"
local atomo = require "atomo"

local MB = 1e6

local function work(message, encode, decode)
  return {dense = 44.7 * MB, small = 0.04 * MB, message = message * MB, encode = encode, decode = decode, copy = 0.005,
    tensors = 21, scales = 1, backward = 0.4}
end

local works = {none = work(44.66, 0, 0), bf16 = work(22.3, 0.01, 0.01), ["svd:ratio=16,bits=8"] = work(2.5, 0.18, 0.03),
  ["entry:ratio=16"] = work(3.8, 0.03, 0.015), ["svd:ratio=64,bits=8"] = work(0.54, 0.15, 0.012),
  ["entry:ratio=64"] = work(0.66, 0.015, 0.007)}
local compressors = {"none", "bf16", "svd:ratio=16,bits=8", "entry:ratio=16", "svd:ratio=64,bits=8", "entry:ratio=64"}

local function hosts(n, rate, more)
  local net = {ranks = n, hosts = n, latency = 5e-5, rate = rate}
  for key, value in pairs(more or {}) do net[key] = value end
  return net
end

local memory = {ranks = 4, hosts = 1, memory_latency = 5e-6, memory_rate = 4e9}

local function choice(net, list, only)
  local rows = choose.predict(choose.settings(list or compressors, net, only), net, works, 0.6)
  return choose.pick(rows), rows
end

describe("the choice", function()
  it("is dense in shared memory and on fast links, compressed on slow ones", function()
    assert.equal("none over allreduce", choose.name((choice(memory))))
    assert.equal("none over allreduce", choose.name((choice(hosts(4, 1.25e9)))))
    for _, rate in ipairs {1.25e5, 1.25e6, 1.25e7} do
      local taken, rows = choice(hosts(4, rate))
      assert.not_equal("none", taken.compress)
      assert.is_true(taken.step < choose.best_of(rows, "none").step)
    end
  end)

  it("loses no accuracy that does not buy a tenth of the step", function()
    for _, n in ipairs {2, 4, 8, 32} do
      for rate = 5, 10, 0.5 do
        local taken, rows = choice(hosts(n, 10 ^ rate))
        local _, fastest = choose.pick(rows)
        assert.is_true(taken.step <= choose.SLACK * fastest.step)
        for _, row in ipairs(rows) do
          if row.level < taken.level then assert.is_true(row.step > choose.SLACK * fastest.step, choose.name(row)) end
        end
      end
    end
  end)

  it("predicts the running setting as it is, though its topology would now have another number of buckets", function()
    local nets = {memory}
    for _, latency in ipairs {1e-6, 1e-3, 0.01, 0.05} do
      for rate = 5, 9 do nets[#nets + 1] = hosts(4, 10 ^ rate, {latency = latency}) end
    end
    local alone = 0
    for _, before in ipairs(nets) do
      local _, settings = choice(before)
      for _, now in ipairs(nets) do
        local taken, rows = choice(now)
        for _, setting in ipairs(settings) do
          local running = decide.running({setting = setting, net = now, works = works, base = 0.6}, rows)
          assert.equal(choose.name(setting), choose.name(running))
          assert.equal(0.6 + running.cost.seconds, running.step)
          assert.is_boolean(choose.better(taken, running))
          local found = false
          for _, row in ipairs(rows) do found = found or row == running end
          alone = alone + (found and 0 or 1)
        end
      end
    end
    assert.is_true(alone > 100)
  end)

  it("sends messages in fewer buckets where latency counts more than overlap, unless their number is given", function()
    local list = {"entry:ratio=64"}
    local near, far = hosts(4, 1.25e7), hosts(4, 1.25e7, {latency = 0.05})
    for _, row in ipairs(select(2, choice(near, list, {topology = "allgather"}))) do
      assert.is_nil(row.message_buckets)
    end
    local taken = choice(far, list)
    assert.is_true(taken.message_buckets <= 2, choose.name(taken))
    assert.matches("over %S+.* in %d buckets?$", choose.name(taken))
    local given = choice(far, list, {topology = taken.topology, message_buckets = 6})
    assert.equal(6, given.message_buckets)
    assert.is_true(given.step > taken.step)
    assert.is_false(choose.same(given, taken))
  end)

  it("is never longer than dense", function()
    for rate = 5, 10, 0.25 do
      local taken, rows = choice(hosts(8, 10 ^ rate))
      assert.is_true(taken.step <= choose.best_of(rows, "none").step)
    end
  end)

  it("of the topology is that of a fixed compressor: gathered among few, owners among many", function()
    local one = {"entry:ratio=64"}
    assert.equal("allgather", choice(hosts(2, 1.25e7), one).topology)
    assert.equal("sharded", choice(hosts(64, 1.25e7), one).topology)
    local net = hosts(8, 1.25e6, {ranks = 32, memory_latency = 5e-6, memory_rate = 4e9})
    assert.equal("hierarchical", choice(net, one).topology)
    assert.equal("none", choice(net, {"none"}).compress)
  end)

  it("predicts predicted rows anew", function()
    local _, rows = choice(hosts(4, 1.25e7))
    local quick = choose.predict(rows, hosts(4, 1.25e9), works, 0.1)
    for i, row in ipairs(choose.predict(choose.settings(compressors, hosts(4, 1)), hosts(4, 1.25e9), works, 0.1)) do
      assert.equal(row.step, quick[i].step)
      assert.is_true(choose.same(row, quick[i]))
    end
  end)

  it("keeps the settings that the user has named", function()
    for _, row in ipairs(select(2, choice(hosts(4, 1e6), compressors, {topology = "ps", downlink = "compress"}))) do
      assert.is_true(row.compress == "none" and row.topology == "allreduce" or row.downlink == "compress")
      assert.not_equal("ps (downlink dense)", choose.topology_name(row))
    end
    local net = hosts(4, 1e6, {ranks = 8, memory_latency = 5e-6, memory_rate = 4e9})
    for _, row in ipairs(select(2, choice(net, {"bf16"}, {topology = "hierarchical", inter_node = "sharded"}))) do
      assert.equal("hierarchical (inter_node sharded)", choose.topology_name(row))
    end
  end)

  it("has no server on one rank, and no hierarchy where it makes no sense", function()
    local function has(net, topology)
      for _, s in ipairs(choose.settings(compressors, net)) do if s.topology == topology then return true end end
      return false
    end
    assert.is_false(has({ranks = 1, hosts = 1}, "ps"))
    assert.is_true(has(memory, "ps"))
    assert.is_false(has(memory, "hierarchical"))
    assert.is_false(has(hosts(4, 1e6), "hierarchical"))
    assert.is_true(has({ranks = 4, hosts = 2}, "hierarchical"))
  end)

  it("leaves out invalid combinations", function()
    local net = hosts(4, 1e6)
    local function topologies(compress)
      local names = {}
      for _, s in ipairs(choose.settings({compress}, net)) do names[#names + 1] = choose.topology_name(s) end
      return table.concat(names, ", ")
    end
    local all = "allgather, sharded, ps (downlink dense), ps (downlink compress)"
    assert.equal("allreduce, " .. all, topologies "bf16:round=stochastic")
    assert.equal("allreduce, allgather, ps (downlink dense)", topologies "bf16")
    assert.equal(all, topologies "entry:ratio=8")
    assert.equal("allgather, ps (downlink dense)", topologies "topk:ratio=8") -- biased: not to be encoded twice
    assert.equal("allreduce", topologies "none")
  end)

  it("gives its reasons", function()
    local taken, rows = choice(hosts(4, 1.25e7))
    local text = choose.reasons(rows, taken)
    for _, word in ipairs {"->", "none", "bf16", "svd:ratio=64", "encode", "transfer", "hidden", "bytes in"} do
      assert.matches(word, text, 1, true)
    end
    assert.equal("4 ranks on 4 hosts; link 12.5 MB/s and 50 us", choose.network_text(hosts(4, 1.25e7)))
    assert.equal("4 ranks on 1 host; memory 4.00 GB/s and 5 us", choose.network_text(memory))
  end)
end)

describe("against the clock", function()
  local dense = {compress = "none", topology = "allreduce", level = 1, step = 1}
  local coded = {compress = "x", topology = "allgather", level = 3, step = 1}

  it("a compressor stays only where its steps are 3 % shorter than dense ones", function()
    assert.is_true(choose.rival_wins(coded, dense, 1.00, 1.00))
    assert.is_true(choose.rival_wins(coded, dense, 0.98, 1.00))
    assert.is_false(choose.rival_wins(coded, dense, 0.96, 1.00))
    assert.is_false(choose.rival_wins(dense, coded, 1.00, 0.98))
    assert.is_true(choose.rival_wins(dense, coded, 1.00, 0.96))
  end)

  it("a running setting is left for less loss, or for steps 5 % shorter", function()
    local quick = {compress = "x", topology = "sharded", level = 3, step = 0.97}
    assert.is_false(choose.better(quick, coded))
    quick.step = 0.9
    assert.is_true(choose.better(quick, coded))
    assert.is_true(choose.better(dense, coded))
    assert.is_false(choose.better(coded, coded))
  end)

  it("the network is corrected so that the model gives the measured time", function()
    for _, net in ipairs {hosts(4, 1.25e7), hosts(8, 1.25e8)} do
      for _, factor in ipairs {0.5, 2, 5} do
        local s = {compress = "none", topology = "allreduce", level = 1}
        local there = choose.predict({s}, choose.slower(net, factor), works, 0.6)[1]
        local row = choose.predict({s}, net, works, 0.6)[1]
        if there.cost.hidden == row.cost.hidden then
          local k = choose.slowdown(row, there.cost.transfer)
          assert.is_true(math.abs(k - factor) < 1e-6, k)
        end
      end
    end
    local row = choose.predict({{compress = "none", topology = "allreduce", level = 1}}, hosts(4, 1e6), works, 0.6)[1]
    assert.equal(20, choose.slowdown(row, 1e9)) -- within bounds
  end)
end)

describe("the work of a compressor", function()
  it("is measured on the gradients as the exchange would send them", function()
    atomo.manual_seed(4)
    local grads = {atomo.randn(64, 32), atomo.randn(32), atomo.randn(16, 3, 3, 16), atomo.randn(4, 5)}
    local before = grads[1]:clone()
    local w = timing.work("entry:ratio=8", grads, {min_size = 100})
    local dense = 4 * (64 * 32 + 32 + 16 * 9 * 16 + 20)
    assert.equal(dense, w.dense)
    assert.equal(4 * (32 + 20), w.small)
    assert.equal(2, w.tensors)
    assert.equal(1, w.scales)
    assert.is_true(w.message > 0 and w.message + w.small < 1.3 * dense / 8)
    assert.is_true(w.encode > 0 and w.decode > 0 and w.copy > 0)
    assert.equal(0, (before - grads[1]):norm_value(math.huge))
    local none = timing.work("none", grads, {min_size = 100})
    assert.equal(dense - w.small, none.message)
    assert.equal(0, none.encode + none.decode + none.scales)
    local all = timing.work("entry:ratio=8", grads, {min_size = 100, fuse_small = "compress"})
    assert.equal(0, all.small) -- joined into a third message
    assert.equal(3, all.tensors)
    local frame = timing.frame("entry:ratio=8", grads, {min_size = 100})
    assert.equal(dense - w.small, frame.message)
    assert.equal(w.small, frame.small)
    for spec, scales in pairs {["entry:atoms=9"] = 0, ["svd:bytes=500"] = 1, bf16 = 0, ["qsgd"] = 0} do
      assert.equal(scales, timing.frame(spec, grads).scales, spec)
    end
  end)

  it("knows models whose tensors all travel dense", function()
    local w = timing.work("svd:ratio=4", {atomo.randn(10), atomo.randn(3, 3)}, {min_size = 100})
    assert.equal(0, w.tensors)
    assert.equal(0, w.message)
  end)
end)
