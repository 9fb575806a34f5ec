-- fuse_small = "compress" (small tensors joined into one message) and overrides in an exchange: averages are equal on
-- all ranks, the budget is kept, no gradient is lost.
local atomo = require "atomo"
local world = atomo.mpi.world

local function push_all(ex, list)
  for i = #list, 1, -1 do ex:push(i, list[i]) end
  ex:finish()
end

local shapes = {{20, 60}, {7}, {3, 4}, {40, 30}, {5}, {1}}
local names = {"a.weight", "a.bias", "b.weight", "c.weight", "c.bias", "d"}

local function gradients(step)
  atomo.manual_seed(100 * step + world.rank)
  local list = {}
  for i, shape in ipairs(shapes) do list[i] = atomo.randn(shape) end
  return list
end

describe("small tensors", function()
  for _, topology in ipairs {"allgather", "sharded", "ps", "hierarchical"} do
    if topology ~= "ps" or world.size > 1 then
      it("travel fused, and all of them arrive if the budget suffices: " .. topology, function()
        for _, overlap in ipairs {true, false} do
          local exact = atomo.exchange {compress = "none"}
          local ex = atomo.exchange {compress = "entry:ratio=0.1", topology = topology, fuse_small = "compress",
            min_size = 100, overlap = overlap}
          for step = 1, 3 do
            local a, b = gradients(step), gradients(step)
            push_all(ex, a)
            push_all(exact, b)
            for i in ipairs(shapes) do
              assert.is_true((a[i] - b[i]):norm_value(2) <= 1e-5 * b[i]:norm_value(2) + 1e-6, names[i])
              ex:check_replicas(a[i], names[i])
            end
          end
          ex:drop()
        end
      end)
    end
  end

  it("are counted in the budget: by default with auto, with others if the options say so", function()
    local function bytes(opts)
      opts.min_size = 100
      local ex, sum = atomo.exchange(opts), 0
      for step = 1, 60 do
        push_all(ex, gradients(step))
        if step > 20 then sum = sum + ex.compressor:stats().nbytes / 40 end
      end
      return sum, ex
    end
    local sum, ex = bytes {compress = "auto:bytes=900"}
    assert.near(900, sum, 45)
    assert.equal(3, #ex.plan.messages)
    assert.equal("auto:bytes=900,prefer=accuracy", tostring(ex.compressor))
    sum, ex = bytes {compress = "entry:bytes=900", fuse_small = "compress"}
    assert.near(900, sum, 18)
    assert.equal(3, #ex.plan.messages)
    sum, ex = bytes {compress = "entry:bytes=900"}
    assert.equal(2, #ex.plan.messages)
    assert.near(900 - 4 * 25, sum, 32)
  end)

  it("can be dropped in the middle of a step", function()
    local ex = atomo.exchange {compress = "auto:ratio=4", min_size = 100}
    push_all(ex, gradients(1))
    local list = gradients(2)
    for i = #list, 1, -1 do ex:push(i, list[i]) end
    ex:drop()
    list = gradients(3)
    push_all(ex, list)
    for i, g in ipairs(list) do ex:check_replicas(g, names[i]) end
  end)

  it("and large ones follow overrides by their names", function()
    local ex = atomo.exchange {compress = "entry:ratio=50;^a=none;c%.bias=svd;^d=none", min_size = 100,
      fuse_small = "compress"}
    local exact = atomo.exchange {compress = "none"}
    ex:set_names(names)
    local a, b = gradients(7), gradients(7)
    push_all(ex, a)
    push_all(exact, b)
    for _, i in ipairs {1, 2, 6} do -- dense, in buckets
      assert.is_true((a[i] - b[i]):norm_value(2) <= 1e-6 * b[i]:norm_value(2), names[i])
    end
    assert.same({"of 1 small gradients", "a.weight", "a.bias", "c.weight", "c.bias", "d"}, ex.plan:labels())
    local sent = {}
    for k, m in ipairs(ex.plan.messages) do sent[k] = m.index end
    assert.same({1, 4, 5}, sent)
    assert.equal("svd", ex.compressor:override_of "c.bias")
    local ok, message = pcall(ex.set_names, ex, names)
    assert.is_false(ok)
    assert.truthy(message:find("the first step has been taken", 1, true), message)
  end)

  it("refuse an unknown value of fuse_small", function()
    local ok, message = pcall(atomo.exchange, {fuse_small = "gone"})
    assert.is_false(ok)
    assert.truthy(message:find("small is gone, expected auto, dense or compress", 1, true), message)
  end)
end)
