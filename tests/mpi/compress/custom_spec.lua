-- Scripted compressors in an exchange: averages are bit-identical on all ranks and close to the dense one.
local atomo = require "atomo"
local world = atomo.mpi.world
local declare_int8 = require "support.int8"
local root = require "support.root"

for _, name in ipairs {"haar", "head_tail", "past_directions"} do
  dofile(root .. "scripts/atoms/" .. name .. ".lua")
end

--- Averages three gradients in three steps by ex and by a dense exchange; calls compare(average, dense average).
local function average_beside_dense(ex, compare)
  local dense = atomo.exchange {}
  for step = 1, 3 do
    atomo.manual_seed(100 * step + world.rank)
    local a, b = {}, {}
    for i, shape in ipairs {{8, 3, 3, 4}, {5}, {12, 30}} do
      a[i] = atomo.randn(shape)
      b[i] = a[i]:clone()
    end
    for i = 3, 1, -1 do
      ex:push(i, a[i])
      dense:push(i, b[i])
    end
    ex:finish()
    dense:finish()
    for i = 1, 3 do
      ex:check_replicas(a[i], "gradient " .. i)
      compare(a[i], b[i])
    end
  end
end

describe("a compressor in Lua", function()
  for _, spec in ipairs {"haar_lua:ratio=0.1", "head_tail:ratio=0.1", "haar_lua:ratio=8",
    "head_tail:ratio=8,ef=true"} do
    it(spec .. " averages over the ranks", function()
      local ex = atomo.exchange {compress = spec, min_size = 10}
      average_beside_dense(ex, function(a, b)
        if spec:find "0.1" then assert.is_true((a - b):norm_value(math.huge) < 1e-5) end
      end)
      assert.is_true(ex:stats().variance >= 0)
    end)
  end
end)

describe("the state of a decomposition", function()
  local shapes = {{8, 3, 3, 4}, {5}, {12, 30}}

  --- Runs steps first .. last; returns the averages. given_up: a step that is dropped before the last.
  local function run(ex, first, last, given_up)
    local averages = {}
    for step = first, last do
      local function push(seed)
        atomo.manual_seed(seed)
        local grads = {}
        for i, shape in ipairs(shapes) do grads[i] = atomo.randn(shape) end
        for i = #grads, 1, -1 do ex:push(i, grads[i]) end
        return grads
      end
      if given_up and step == last then
        push(7 + world.rank)
        ex:average()
        ex:drop()
      end
      local grads = push(100 * step + world.rank)
      ex:finish()
      for _, g in ipairs(grads) do averages[#averages + 1] = g end
    end
    return averages
  end

  for _, topology in ipairs {"allgather", "sharded", "ps"} do
    it("is undone with its step and resumed from a checkpoint bit for bit, " .. topology, function()
      if topology == "ps" and world.size == 1 then return pending "ps wants two ranks" end
      local function open()
        return atomo.exchange {compress = "past_directions:ratio=4,every=2", topology = topology, min_size = 10,
          downlink = topology == "ps" and "compress" or nil}
      end
      local ex = open()
      run(ex, 1, 3)
      local saved, want = ex:state_dict(), run(ex, 4, 6)
      local names = 0
      for name in pairs(saved) do names = names + (name:find "state/" and 1 or 0) end
      assert.is_true(names >= 2)
      local resumed = open()
      resumed:load_state_dict(saved)
      resumed:set_step(3)
      for k, g in ipairs(run(resumed, 4, 6, true)) do
        assert.equal(0, (g - want[k]):norm_value(math.huge))
        ex:check_replicas(g, "average " .. k)
      end
    end)
  end
end)

describe("a free compressor", function()
  declare_int8 "int8"

  for _, options in ipairs {{"allgather"}, {"sharded"}, {"ps"}, {"ps", "compress"}, {"hierarchical"}} do
    for _, spec in ipairs {"int8", "int8:ef=true"} do
      it(spec .. " averages over the ranks, topology " .. table.concat(options, " "), function()
        if options[1] == "ps" and world.size == 1 then return pending "ps wants two ranks" end
        local ex = atomo.exchange {compress = spec, min_size = 10, topology = options[1], downlink = options[2],
          inter_node = options[1] == "hierarchical" and "allgather" or nil}
        average_beside_dense(ex, function(a, b)
          assert.is_true((a - b):norm_value(2) < 0.03 * b:norm_value(2))
        end)
      end)
    end
  end

  it("whose decode depends on the rank is named before the first message", function()
    if world.size == 1 then return end
    atomo.codec("own_decode", {encode = function(g) return g:norm_value(2) end,
      decode = function(parts, shape) return atomo.full(shape, parts * (1 + world.rank)) end})
    local ex = atomo.exchange {compress = "own_decode", min_size = 10}
    ex:push(1, atomo.randn(8, 9))
    local ok, why = pcall(ex.finish, ex)
    assert.is_false(ok)
    assert.truthy(tostring(why):find("own_decode: tensor gradient 1: the ranks' functions", 1, true), why)
  end)

  it("whose decode goes apart later is named after the first step of training", function()
    if world.size == 1 then return end
    local calls = 0
    atomo.codec("late", {encode = function(g) return g:norm_value(2) end, decode = function(parts, shape)
      calls = calls + 1
      return atomo.full(shape, parts * (calls > 2 and 1 + world.rank or 1))
    end})
    atomo.manual_seed(1)
    local net = atomo.nn.Linear(8, 9)
    local steps = 0
    local ok, why = pcall(atomo.train, {model = net, epochs = 1, quiet = true,
      data = atomo.data.tensors {x = atomo.randn(40, 8), y = atomo.zeros(40):int(), batch = 2 * world.size},
      optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1},
      exchange = atomo.exchange {compress = "late", min_size = 10}, on_step = function() steps = steps + 1 end})
    assert.is_false(ok)
    assert.truthy(tostring(why):find("replicas after step 1", 1, true), why)
    assert.equal(1, steps)
  end)
end)
