-- Option message_buckets: the parts in which a step's messages are sent. Every number of them averages what the ranks
-- send, in every topology; the same number again gives a bit-identical average.
local atomo = require "atomo"
local world = atomo.mpi.world

local shapes = {{64, 3, 3, 40}, {300}, {128, 700}, {96, 3, 3, 64}, {10, 64}, {10}, {256, 512}}

local function gradients(step)
  local list = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(1000 * step + 10 * i + world.rank)
    list[i] = atomo.randn(shape)
  end
  return list
end

--- Runs two steps; returns the averages, and the number of the plan's buckets of messages.
local function averages(topology, compress, buckets)
  local ex = atomo.exchange {comm = world, compress = compress, topology = topology, message_buckets = buckets,
    seed = 4, inter_node = topology == "hierarchical" and "allgather" or nil}
  local all = {}
  for step = 1, 2 do
    local grads = gradients(step)
    for i = #grads, 1, -1 do ex:push(i, grads[i]) end
    ex:finish()
    for i, g in ipairs(grads) do
      ex:check_replicas(g, "average")
      all[#all + 1] = g
    end
  end
  return all
end

describe("message_buckets", function()
  for _, topology in ipairs {"allgather", "sharded", "ps", "hierarchical"} do
    it("of any number: the mean of what the ranks have, and the same bits again: " .. topology, function()
      if topology == "ps" and world.size == 1 then return end
      for _, buckets in ipairs {1, 2, 5, 64} do
        -- natural is unbiased with a relative variance of at most 1/8 a draw, of at most two draws
        local first, again = averages(topology, "natural", buckets), averages(topology, "natural", buckets)
        local k = 0
        for step = 1, 2 do
          for _, g in ipairs(gradients(step)) do
            k = k + 1
            local mean = g:clone()
            world:allreduce(mean, "sum")
            mean:mul_(1 / world.size)
            local off = (first[k] - mean):norm_value(2) / mean:norm_value(2)
            assert.is_true(off < 0.7, ("%d buckets, tensor %d: %g"):format(buckets, k, off))
            assert.equal(first[k]:bytes(), again[k]:bytes())
          end
        end
      end
    end)
  end

  it("is one on all ranks, and a number of parts", function()
    for _, value in ipairs {0, 65, 1.5, "two", -1} do
      assert.error_matches(function() atomo.exchange {comm = world, message_buckets = value} end,
        "message_buckets is .*, expected a whole number from 1 to 64")
    end
    if world.size > 1 then
      assert.error_matches(function()
        atomo.exchange {comm = world, compress = "qsgd", message_buckets = 1 + world.rank}
      end, "message_buckets")
    end
  end)
end)
