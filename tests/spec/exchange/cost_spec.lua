-- The cost model of an exchange against cases worked out by hand, and its behaviour in the limits.
local cost = require "atomo.exchange.auto.cost"

local MB = 2 ^ 20

local function near(expected, got, what)
  assert.is_true(math.abs(got - expected) <= 1e-9 * math.max(1, math.abs(expected)),
    ("%s: %.12g, by hand %.12g"):format(what or "", got, expected))
end

--- 4 hosts, 1 ms, 1 MB/s: figures that can be followed in the head.
local function network(more)
  local net = {ranks = 4, hosts = 4, latency = 1e-3, rate = MB}
  for key, value in pairs(more or {}) do net[key] = value end
  return net
end

local function work(more)
  local w = {dense = 8 * MB, small = 0, message = MB, encode = 0.2, decode = 0.05, copy = 0.04, tensors = 10,
    scales = 0, backward = 0}
  for key, value in pairs(more or {}) do w[key] = value end
  return w
end

describe("a pattern", function()
  it("ring: 2 (P-1) (latency + n/P/rate) a bucket of 4 MB", function()
    near(6 * (1e-3 + 1), cost.ring(network(), 4 * MB))
    near(6 * (3e-3 + 3), cost.ring(network(), 12 * MB))
    near(14 * (1e-3 + 0.5), cost.ring(network {ranks = 8, hosts = 8}, 4 * MB))
  end)

  it("ring: buckets are never below 32 KiB a rank", function()
    near(2 * 1023 * (2e-3 + 64 / 1024), cost.ring(network {ranks = 1024, hosts = 1024}, 64 * MB))
  end)

  it("small sums: log2 P whole messages", function()
    near(2 * 1e-3 + 2 * 1024 / MB, cost.ring(network(), 1024))
    near(3 * 1e-3 + 3 * 1024 / MB, cost.ring(network {ranks = 5, hosts = 5}, 1024))
  end)

  it("gather: an announcement and P - 1 messages", function()
    near(2 * (3 + 2) * 1e-3 + 3, cost.gather(network(), MB, 2))
  end)

  it("scatter: a part of every other rank's message", function()
    near(2 * 5e-3 + 3 / 4, cost.scatter(network(), MB, 2))
  end)

  it("scatter with two ranks a host: both take in over one link", function()
    local net = network {ranks = 8, memory_latency = 1e-6, memory_rate = 1000 * MB}
    near((7 + 3) * 1e-3 + 6 * 2 / 8, cost.scatter(net, MB, 1))
  end)

  it("bcast: log2 P latencies a piece, as many where lengths are announced, the bytes once", function()
    near(2 * 3 * 1e-3 + 4, cost.bcast(network(), 4 * MB, 3))
    near(2 * 2 * 3 * 1e-3 + 4, cost.bcast(network(), 4 * MB, 3, true))
  end)

  it("checked: log2 P latencies more for each collective that would not announce lengths anyway", function()
    local net = network {checked = true}
    near(3 * 2e-3 + cost.ring(network(), 12 * MB), cost.ring(net, 12 * MB))
    near(5 * 2e-3, cost.ring(net, 4 * MB, 5) - cost.ring(network(), 4 * MB, 5))
    near(2e-3 + cost.ring(network(), 1024), cost.ring(net, 1024))
    near(3 * 2e-3 + cost.bcast(network(), MB, 3), cost.bcast(net, MB, 3))
    near(cost.bcast(network(), MB, 3, true), cost.bcast(net, MB, 3, true))
    near(cost.gather(network(), MB, 2), cost.gather(net, MB, 2))
    near(cost.scatter(network(), MB, 2), cost.scatter(net, MB, 2))
    local o = {topology = "allreduce", compress = "none"}
    local w = work {message = 8 * MB, encode = 0, decode = 0}
    near(2 * 2e-3, cost.exchange(net, w, o).seconds - cost.exchange(network(), w, o).seconds)
    assert.equal(true, require("atomo.exchange.auto.choose").slower(net, 2).checked)
  end)

  it("costs nothing on one rank", function()
    local net = {ranks = 1, hosts = 1}
    for _, name in ipairs {"ring", "gather", "scatter", "bcast"} do assert.equal(0, cost[name](net, MB, 1), name) end
  end)
end)

describe("a step's exchange", function()
  it("allreduce of dense gradients: copies and the ring", function()
    local r = cost.exchange(network(), work {message = 8 * MB, encode = 0, decode = 0},
      {topology = "allreduce", compress = "none"})
    near(0.04 + 6 * (2e-3 + 2), r.seconds)
    near(12 * MB, r.bytes_in)
    near(12 * MB, r.bytes_out)
    assert.equal(0, r.hidden)
  end)

  it("is hidden behind backward except for the last bucket", function()
    local w = work {message = 8 * MB, encode = 0, decode = 0, copy = 0, backward = 5}
    local r = cost.exchange(network(), w, {topology = "allreduce", compress = "none"})
    near(12.012 - 5, r.transfer) -- two buckets, 12.012 s
    near(5, r.hidden)
    w.backward = 100
    near(6.006, cost.exchange(network(), w, {topology = "allreduce", compress = "none"}).transfer)
  end)

  it("allreduce of dense gradients also counts the buckets of small tensors", function()
    local w = work {message = 4 * MB, small = 2 * MB, encode = 0, decode = 0, copy = 0, backward = 100}
    local r = cost.exchange(network(), w, {topology = "allreduce", compress = "none"})
    near((cost.ring(network(), 4 * MB) + cost.ring(network(), 2 * MB)) / 2, r.transfer) -- the last of two buckets
  end)

  it("allreduce of linear compressors: encoded by the communication thread, in batches", function()
    local r = cost.exchange(network(), work(), {topology = "allreduce", compress = "bf16"})
    near(6 * (6e-3 + 1 / 4) + 0.2, r.wire)
    near(0.05, r.decode)
    assert.equal(0, r.encode + r.copy)
    r = cost.exchange(network(), work {backward = 100}, {topology = "allreduce", compress = "bf16"})
    near(r.wire / 6, r.transfer)
  end)

  it("allgather: every rank decodes every message, while later batches travel", function()
    local r = cost.exchange(network(), work(), {topology = "allgather", compress = "x"})
    near(6 * 5e-3 + 3, r.transfer)     -- six batches
    near(4 * 0.05 / 6, r.decode)       -- the last batch's
    near(0.2 + r.transfer + r.decode, r.seconds)
    near(3 * MB, r.bytes_in)
    local quick = cost.exchange(network {rate = 1e12}, work {decode = 1}, {topology = "allgather", compress = "x"})
    near(4 - quick.transfer, quick.decode) -- decoding is what takes long
  end)

  it("ps: messages to one rank, the average back dense or coded", function()
    local w = work()
    local r = cost.exchange(network(), w, {topology = "ps", downlink = "dense", compress = "x"})
    near(6 * (2 + 3) * 1e-3 + 3 + 6 * 2e-3 + 8, r.transfer)
    near(4 * 0.05, r.decode)
    near(24 * MB, r.bytes_out)
    r = cost.exchange(network(), w, {topology = "ps", downlink = "compress", compress = "x"})
    near(6 * 5e-3 + 3 + 6 * 4e-3 + 1, r.transfer)
    near(0.4, r.encode)
    near(0.25, r.decode)
    r = cost.exchange(network(), work {backward = 1}, {topology = "ps", downlink = "compress", compress = "x"})
    near(1, r.hidden)
    r = cost.exchange(network(), work {backward = 100}, {topology = "ps", downlink = "compress", compress = "x"})
    near(r.wire / 6, r.transfer) -- the last of six batches, up and down
  end)

  it("sharded: a part of each message to its owner, averages back", function()
    local r = cost.exchange(network(), work(), {topology = "sharded", compress = "x"})
    near(3 * 5e-3 + 0.75 + 3 * 5e-3 + 0.75, r.transfer)
    near(0.2 * 1.25, r.encode)
    near(2 * 0.05, r.decode)
    near(1.5 * MB, r.bytes_in)
    r = cost.exchange(network(), work {backward = 0.1}, {topology = "sharded", compress = "x"})
    near(0.1, r.hidden)
  end)

  it("sharded: all except the last of three buckets goes both ways behind backward", function()
    local r = cost.exchange(network(), work {backward = 100}, {topology = "sharded", compress = "x"})
    near((6 * 5e-3 + 1.5) / 3, r.transfer)
  end)

  it("sharded with a budget: a rank receives that many bytes, for any number of ranks", function()
    for _, ranks in ipairs {3, 4, 64, 1000} do
      local r = cost.exchange(network {ranks = ranks, hosts = ranks}, work {scales = 1},
        {topology = "sharded", compress = "x"})
      near(MB, r.bytes_in)
    end
    local two = cost.exchange(network {ranks = 2, hosts = 2}, work {scales = 1}, {topology = "sharded", compress = "x"})
    near(MB, two.bytes_in)
  end)

  it("hierarchical: dense in memory, the inner topology between the hosts", function()
    local net = network {ranks = 8, memory_latency = 1e-5, memory_rate = 100 * MB}
    local r = cost.exchange(net, work(), {topology = "hierarchical", inter_node = "sharded", compress = "x"})
    local between = cost.exchange(network(), work(), {topology = "sharded", compress = "x"})
    near(between.transfer + 2 * (2 * 1e-5 + 8 / 100), r.transfer)
    local over = cost.exchange(net, work {backward = 0.05},
      {topology = "hierarchical", inter_node = "sharded", compress = "x"})
    near(r.transfer - 0.04001, over.transfer) -- of two buckets in memory, half
    local dense = cost.exchange(net, work {message = 8 * MB, encode = 0, decode = 0, backward = 100},
      {topology = "hierarchical", inter_node = "allreduce", compress = "none"})
    near(dense.wire / 2, dense.transfer)
    near(between.encode + 0.04 + r.transfer + between.decode, r.seconds)
    local one = cost.exchange({ranks = 2, hosts = 1, memory_latency = 0, memory_rate = 8 * MB}, work(),
      {topology = "hierarchical", inter_node = "allgather", compress = "x"})
    near(2, one.transfer)
  end)

  it("adds the dense tensors for every compressor", function()
    local some = cost.exchange(network(), work {small = MB}, {topology = "sharded", compress = "x"})
    local none = cost.exchange(network(), work(), {topology = "sharded", compress = "x"})
    near(none.wire + cost.ring(network(), MB), some.wire)
    near(none.bytes_in + 1.5 * MB, some.bytes_in)
  end)

  it("within one host goes through memory", function()
    local net = {ranks = 4, hosts = 1, memory_latency = 0, memory_rate = 4 * MB}
    near(6 / 4, cost.ring(net, 4 * MB))
  end)

  it("falls with the rate and grows with bytes, ranks and latency, for every topology", function()
    for _, o in ipairs {{topology = "allreduce"}, {topology = "allgather"}, {topology = "ps", downlink = "dense"},
      {topology = "ps", downlink = "compress"}, {topology = "sharded"},
      {topology = "hierarchical", inter_node = "allgather"}} do
      local function seconds(net, w) return cost.exchange(network(net), work(w), o).seconds end
      local was = seconds()
      assert.is_true(seconds {rate = 2 * MB} < was, o.topology)
      assert.is_true(seconds({latency = 1e-2}) > was, o.topology)
      assert.is_true(seconds({}, {message = 2 * MB}) > was, o.topology)
      assert.is_true(seconds {ranks = 16, hosts = 16} > was or o.topology == "sharded", o.topology)
    end
  end)
end)

describe("bad figures", function()
  local function refused(text, net, w, o)
    local ok, message = pcall(cost.exchange, net, w, o or {topology = "allreduce"})
    assert.is_false(ok)
    assert.matches(text, message, 1, true)
  end

  it("are refused by name", function()
    refused("unknown topology 'ring'", network(), work(), {topology = "ring"})
    refused("message of the work is -1", network(), work {message = -1})
    refused("encode of the work is nan", network(), work {encode = 0 / 0})
    refused("decode of the work is inf", network(), work {decode = math.huge})
    refused("2 ranks on 4 hosts", network {ranks = 2}, work())
    refused("wants latency (s) and rate", {ranks = 2, hosts = 2}, work())
    refused("want memory_latency", network {ranks = 8}, work())
    refused("ps wants two ranks", {ranks = 1, hosts = 1}, work(), {topology = "ps"})
    local w = work()
    w.tensors = nil
    refused("tensors of the work is nil", network(), w)
  end)
end)
