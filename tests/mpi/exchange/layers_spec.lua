-- Exchange:layers(): what each tensor took of a step's bytes and variance adds up to the compressor's figures.
local atomo = require "atomo"

describe("the figures by tensor", function()
  local function step(opts)
    local ex = atomo.exchange(opts)
    ex:set_names {"conv.weight", "conv.bias", "fc.weight"}
    assert.is_nil(ex:layers())
    atomo.manual_seed(3 + atomo.mpi.world.rank)
    for i, shape in ipairs {{32, 3, 3, 8}, {32}, {40, 64}} do ex:push(i, atomo.randn(shape)) end
    ex:finish()
    return ex, ex:layers()
  end

  for _, topology in ipairs {"allgather", "ps", "sharded"} do
    it("add up under " .. topology, function()
      if topology == "ps" and atomo.mpi.world.size == 1 then return pending "ps wants two ranks" end
      local ex, layers = step {compress = "entry:ratio=8", topology = topology, min_size = 64}
      local names, bytes, variance, square, dense = {}, 0, 0, 0, 0
      for _, layer in ipairs(layers) do
        names[#names + 1] = layer.name
        dense = dense + layer.dense_bytes
        if layer.variance then
          bytes, variance, square = bytes + layer.bytes, variance + layer.variance, square + layer.square
        else
          assert.same({128, 128}, {layer.bytes, layer.dense_bytes})
        end
      end
      local stats = ex.compressor:stats()
      assert.same({"conv.weight", "fc.weight", "dense tensors"}, names)
      assert.equal(ex:stats().dense_bytes, dense)
      assert.equal(stats.nbytes, bytes)
      assert.near(1, variance / stats.variance, 1e-9)
      assert.near(1, square / stats.square, 1e-9)
    end)
  end

  it("name the atoms that auto chose, and are nil where nothing is encoded", function()
    local _, layers = step {compress = "auto:ratio=8", topology = "allgather", min_size = 64}
    for _, layer in ipairs(layers) do
      assert.truthy((layer.family or ""):find "%a", layer.name)
    end
    assert.same({"of 1 small gradients", "conv.weight", "fc.weight"},
      {layers[1].name, layers[2].name, layers[3].name})
    assert.is_nil((select(2, step {compress = "none"})))
  end)
end)
