-- Edge cases for every topology: no atoms drawn on one, some or all ranks; NaN or Inf on one, some or all ranks, in a
-- step that is skipped.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
local joined = require "support.parameters"
local n, me = world.size, world.rank

local topologies = {{topology = "allgather"}, {topology = "sharded"}, {topology = "hierarchical"}}
if n > 1 then
  topologies[#topologies + 1] = {topology = "ps"}
  topologies[#topologies + 1] = {topology = "ps", downlink = "compress"}
end

local function name(o) return o.topology .. (o.downlink and " " .. o.downlink or "") end

-- Groups of ranks: {name, is this rank in it?}
local groups = {
  {"no rank", false}, {"one rank", me == n - 1}, {"all ranks but one", me > 0}, {"all ranks", true},
}

local function options(o, compress)
  return {topology = o.topology, downlink = o.downlink, compress = compress, min_size = 0, seed = 5}
end

describe("zero atoms", function()
  for _, o in ipairs(topologies) do
    it("on one, some or all ranks: " .. name(o), function()
      for _, compress in ipairs {"entry:ratio=4", "svd:ratio=4,bits=8", "terngrad", "topk:ratio=8,ef=true"} do
        local ex = atomo.exchange(options(o, compress))
        for _, group in ipairs(groups) do
          atomo.manual_seed(60 + me)
          -- A zero gradient has no atom to draw. Only even entries of the others are not zero.
          local g, h = atomo.randn(16, 24), atomo.randn(7, 9)
          local p = g:data()
          for i = 0, g:numel() - 1 do
            if group[2] or i % 2 == 1 then p[i] = 0 end
          end
          if group[2] then h:zero_() end
          ex:push(1, g)
          ex:push(2, h)
          ex:finish()
          local what = ("%s, %s, zero on %s"):format(name(o), compress, group[1])
          ex:check_replicas(g, what)
          ex:check_replicas(h, what)
          assert.equal(0, (g:count_nonfinite()), what)
          if group[1] == "all ranks" and not compress:find "ef=true" then
            assert.equal(0, g:norm_value(math.huge), what)
            assert.equal(0, h:norm_value(math.huge), what)
          end
          if compress:find "^entry" then
            for i = 1, g:numel() - 1, 2 do assert.equal(0, p[i], what) end
          end
        end
      end
    end)
  end

  it("with a budget near 0", function()
    for _, o in ipairs(topologies) do
      local ex, drawn = atomo.exchange(options(o, "entry:atoms=0.3")), 0
      for _ = 1, 12 do
        local g = atomo.ones(8, 8)
        ex:push(1, g)
        ex:finish()
        ex:check_replicas(g, name(o))
        if g:norm_value() > 0 then drawn = drawn + 1 end
      end
      assert.is_true(n > 2 or drawn < 12, name(o)) -- at least one draw was empty
    end
  end)
end)

describe("NaN or Inf", function()
  --- Trains 4 steps; in the second, the loss is multiplied by `value` on ranks of the group.
  local function train(o, compress, hit, value)
    atomo.manual_seed(3)
    local data, calls = atomo.data.synthetic {train = 8 * n, test = 4}, 0
    local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, 10), nn.Linear(10, 10)}
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1, momentum = 0.9}
    local info = atomo.train {model = model, optimizer = optimizer, quiet = true, eval_every = 0, nonfinite = "skip",
      check_replicas = 1, exchange = atomo.exchange(options(o, compress)),
      loss = function(logits, labels)
        calls = calls + 1
        local loss = atomo.F.cross_entropy(logits, labels)
        return calls == 2 and hit and loss * value or loss
      end,
      data = {train = atomo.data.loader {set = data.train, batch = 2, rank = me, size = n, seed = 1}}}
    return info, joined(optimizer)
  end

  local all = {{topology = "allreduce", compress = "none"}}
  for _, o in ipairs(topologies) do
    all[#all + 1] = {topology = o.topology, downlink = o.downlink, compress = "entry:ratio=4"}
  end
  for _, o in ipairs(all) do
    it("on one, some or all ranks is skipped by all: " .. name(o), function()
      for k, group in ipairs(groups) do
        local info, flat = train(o, o.compress, group[2], k % 2 == 0 and 0 / 0 or math.huge)
        assert.equal(group[1] == "no rank" and 0 or n == 1 and not group[2] and 0 or 1, info.skipped, group[1])
        assert.equal(4, info.step)
        assert.equal(0, (flat:count_nonfinite()))
      end
    end)
  end
end)
