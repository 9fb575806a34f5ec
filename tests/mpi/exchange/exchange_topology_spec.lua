-- Every topology against every family of compressors: replicas are bit-identical, the average is right where nothing
-- is drawn and unbiased where something is, traffic is bounded, what cannot work is refused by name.
local atomo = require "atomo"
local world = atomo.mpi.world
local hosts_of_two = require "support.hosts"
local sharded = require "atomo.exchange.topology.sharded"

local topologies = {
  {topology = "allgather"}, {topology = "sharded"}, {topology = "ps"}, {topology = "ps", downlink = "compress"},
  {topology = "hierarchical", comm = hosts_of_two},
  {topology = "hierarchical", comm = hosts_of_two, inter_node = "sharded"},
}

local function possible(o) return o.topology ~= "ps" or world.size > 1 end

local function name(o)
  return o.topology .. (o.downlink and " " .. o.downlink or "") .. (o.inter_node and " over " .. o.inter_node or "")
end

local shapes = {{24, 32}, {7}, {13, 3, 3, 5}, {40, 30}, {3, 2}}

--- Returns an exchange with options o, gradients that differ between ranks, and their averages.
local function setup(o, compress)
  local options = {compress = compress, min_size = 50, seed = 11}
  for key, value in pairs(o) do options[key] = value end
  local ex, grads, average = atomo.exchange(options), {}, {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(100 * i + world.rank)
    grads[i] = atomo.randn(shape)
    average[i] = grads[i]:clone()
    world:allreduce(average[i], "sum")
    average[i]:mul_(1 / world.size)
  end
  local work = {}
  for i, g in ipairs(grads) do work[i] = g:clone() end
  return ex, function()
    for i, g in ipairs(grads) do ex:push(i, work[i]:copy_(g)) end
    ex:finish()
    return work
  end, average
end

describe("every topology", function()
  it("averages uncompressed gradients exactly", function()
    for _, o in ipairs(topologies) do
      if possible(o) then
        local _, step, average = setup(o, "none")
        for _ = 1, 2 do
          for i, g in ipairs(step()) do
            assert.is_true((g - average[i]):norm_value(math.huge) < 1e-6, name(o))
          end
        end
      end
    end
  end)

  it("leaves the same bits on all ranks", function()
    for _, o in ipairs(topologies) do
      for _, compress in ipairs(possible(o) and {"none", "entry:ratio=8", "svd:ratio=4,bits=8", "entry:bytes=900",
        "svd:atoms=2,bits=32"} or {}) do
        local ex, step = setup(o, compress)
        for _ = 1, 3 do
          for i, g in ipairs(step()) do ex:check_replicas(g, ("%s of %s, gradient %d"):format(compress, name(o), i)) end
        end
      end
    end
  end)

  it("works where next to no atoms are drawn, and for zero gradients", function()
    for _, o in ipairs(possible {topology = "ps"} and topologies or {{topology = "sharded"}}) do
      local ex, step = setup(o, "entry:atoms=0.3")
      for _ = 1, 6 do ex:check_replicas(step()[1], "gradient 1") end
      local zero = atomo.zeros(8, 16)
      local none = atomo.exchange {topology = o.topology, downlink = o.downlink, compress = "svd:ratio=4", min_size = 0}
      for _ = 1, 2 do
        none:push(1, zero)
        none:finish()
        assert.equal(0, zero:norm_value(math.huge))
      end
    end
  end)
end)

describe("the average", function()
  local DRAWS, DIRECTIONS = 200, 4

  --- Returns for random directions u the mean over draws of <u, ghat - average>, in standard errors. It is a sum over
  -- hundreds of entries, so nearly normal. Gradients are first multiplied by `scale` (for the control).
  local function scores(o, compress, scale)
    local _, step, average = setup(o, compress)
    local directions, sums, squares = {}, {}, {}
    for d = 1, DIRECTIONS do
      directions[d], sums[d], squares[d] = {}, 0, 0
      for i, g in ipairs(average) do
        atomo.manual_seed(1000 * d + i)
        directions[d][i] = atomo.rand(g:shape()):add_(atomo.full(g:shape(), -0.5))
      end
    end
    for _ = 1, DRAWS do
      local now = step()
      for d = 1, DIRECTIONS do
        local x = 0
        for i, g in ipairs(now) do
          local u = directions[d][i]:view(-1)
          x = x + scale * g:view(-1):dot(u):item() - average[i]:view(-1):dot(u):item()
        end
        sums[d], squares[d] = sums[d] + x, squares[d] + x * x
      end
    end
    local worst = 0
    for d = 1, DIRECTIONS do
      local mean = sums[d] / DRAWS
      local deviation = math.sqrt((squares[d] / DRAWS - mean * mean) / (DRAWS - 1))
      worst = math.max(worst, math.abs(mean) / deviation)
    end
    return worst
  end

  -- False alarms: |t| > 5.7 with 199 degrees of freedom is 4e-8, for 4 directions and 2 compressors 3.4e-7 a test.
  for _, o in ipairs(topologies) do
    it("is unbiased: " .. name(o), function()
      if not possible(o) then return pending "ps wants two ranks" end
      for _, compress in ipairs {"entry:ratio=6", "svd:ratio=4,bits=8"} do
        local worst = scores(o, compress, 1)
        assert.is_true(worst < 5.7, ("%s: %g standard errors"):format(compress, worst))
      end
    end)
  end

  it("is found out when it is biased", function()
    assert.is_true(scores({topology = "sharded"}, "entry:ratio=2", 1.5) > 5.7)
  end)
end)

describe("sharded", function()
  it("cuts between rows into parts of equal size, each in one piece", function()
    local list = {{index = 1, shape = {64, 300}, n = 19200}, {index = 2, shape = {1, 5000}, n = 5000},
      {index = 5, shape = {512, 10, 9}, n = 46080}, {index = 6, shape = {3, 2}, n = 6}}
    for _, ranks in ipairs {1, 2, 3, 7} do
      local load, next_row, last = {}, {}, 1
      for r = 1, ranks do load[r] = 0 end
      for _, p in ipairs(sharded.cut_bucket(list, 70286, ranks)) do
        assert.is_true(p.owner >= last)
        assert.equal(next_row[p.index] or 1, p.from or 1)
        next_row[p.index], last = (p.from or 1) + p.rows, p.owner
        assert.equal(p.rows, p.shape[1])
        load[p.owner] = load[p.owner] + p.n
      end
      for _, m in ipairs(list) do assert.equal(m.shape[1] + 1, next_row[m.index]) end
      for r = 1, ranks do assert.is_true(math.abs(load[r] - 70286 / ranks) < 5000, ranks .. ": " .. load[r]) end
    end
  end)

  it("spends a share of the budget on each of the two ways, and shows the budget given", function()
    for _, text in ipairs {"entry:ratio=8", "svd:bytes=3000,bits=8", "topk:ratio=8,ef=true"} do
      local whole, half = atomo.compressor(text), atomo.compressor(text, {share = 0.5})
      assert.equal(tostring(whole), tostring(half))
      atomo.manual_seed(4)
      local g = atomo.randn(60, 100)
      local share = half:encode(g).nbytes / whole:encode(g).nbytes
      assert.is_true(share > 0.4 and share < 0.6, ("%s: %g"):format(text, share))
    end
    local ex = atomo.exchange {topology = "sharded", compress = "entry:ratio=8"}
    assert.equal("entry:ratio=8", tostring(ex.compressor))
  end)

  it("works with more ranks than tensors", function()
    local ex = atomo.exchange {topology = "sharded", compress = "entry:ratio=0.1", min_size = 0}
    for _ = 1, 2 do
      local g = atomo.full({6, 6}, world.rank)
      ex:push(1, g)
      ex:finish()
      ex:check_replicas(g, "the one gradient")
      assert.is_true((g - (world.size - 1) / 2):norm_value(math.huge) < 1e-5) -- everything fits the budget
    end
  end)

  it("moves the budget to a rank, however many ranks there are", function()
    if world.size == 1 then return pending "one rank sends nothing" end
    local ex, step = setup({topology = "sharded"}, "entry:bytes=2000")
    for _ = 1, 5 do step() end
    local s = ex:stats()
    local total = atomo.tensor {s.bytes_in}
    world:allreduce(total, "sum")
    -- without lengths and fingerprints (104 bytes per rank and bucket); sampled messages vary around their budget
    local received = total:item() / world.size - 104 * (world.size - 1)
    assert.is_true(received > 1500 and received < 2600, received)
  end)
end)

describe("topologies refuse", function()
  local function message(options)
    local ok, text = pcall(atomo.exchange, options)
    assert.is_false(ok)
    return text
  end

  it("invalid combinations, naming valid ones", function()
    if world.size == 1 then
      assert.matches("ps wants a server and at least one worker.*allgather", message {topology = "ps"})
    end
    assert.matches("expected dense or compress", message {topology = "ps", downlink = "up"})
    assert.matches("expected auto, allreduce, allgather, ps or sharded",
      message {topology = "hierarchical", inter_node = "x"})
    assert.matches("messages of 'entry' cannot be added; those of .*none.*powersgd",
      message {topology = "hierarchical", inter_node = "allreduce", compress = "entry:ratio=4"})
    assert.matches("wants two nodes", message {topology = "hierarchical", inter_node = "ps",
      comm = world:split(world.rank)})
  end)
end)
