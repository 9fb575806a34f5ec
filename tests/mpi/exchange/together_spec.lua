-- Option together through an exchange: the average of all ranks is closer to the mean of their gradients, in every
-- topology, and bit-identical on all. False-alarm rate: 5 standard errors of two means of draws, 1e-6 a check.
local atomo = require "atomo"
local world = atomo.mpi.world

local DRAWS, SIDE = 24, 64

--- Returns the mean squared error of the exchange's average, and its standard error. equal: all ranks' gradients are.
local function error_of(text, topology, equal)
  local ex = atomo.exchange {comm = world, compress = text, topology = topology, min_size = 0, seed = 3,
    inter_node = topology == "hierarchical" and "allgather" or nil}
  atomo.manual_seed(5)
  local shared = atomo.randn(SIDE, SIDE)
  atomo.manual_seed(6 + world.rank)
  local g = equal and shared or shared * 0.63 + atomo.randn(SIDE, SIDE) * 0.77
  local mean = g:clone()
  world:allreduce(mean, "sum")
  mean:mul_(1 / world.size)
  local sum, squares = 0, 0
  for _ = 1, DRAWS do
    local average = g:clone()
    ex:push(1, average)
    ex:finish()
    ex:check_replicas(average, "average")
    local e = (average - mean):norm_value(2) ^ 2
    sum, squares = sum + e, squares + e * e
  end
  assert.is_true(sum > 0)
  return sum / DRAWS, math.sqrt(math.max(0, squares / DRAWS - (sum / DRAWS) ^ 2) / (DRAWS - 1))
end

describe("draws that cancel, in an exchange", function()
  for _, topology in ipairs {"allgather", "ps", "sharded", "hierarchical"} do
    it("make no average worse: " .. topology, function()
      if topology == "ps" and world.size == 1 then return end
      for _, text in ipairs {"qsgd:bits=5", "taps:ratio=6", "natural"} do
        local joint = text:find ":" and "," or ":"
        local with, e1 = error_of(text, topology)
        local without, e2 = error_of(text .. joint .. "together=false", topology)
        assert.is_true(with <= without + 5 * math.sqrt(e1 ^ 2 + e2 ^ 2),
          ("%s: %g, without %g"):format(text, with, without))
      end
    end)
  end

  it("divide the error by the number of ranks once more, if gradients are equal", function()
    if world.size == 1 then return end
    local strata = 2 ^ math.ceil(math.log(world.size) / math.log(2))
    local with, without = error_of("qsgd:bits=8", "allgather", true),
      error_of("qsgd:bits=8,together=false", "allgather", true)
    local least = world.size == strata and 0.85 * world.size or 1.5 -- three ranks use four strata
    assert.is_true(without / with > least, without / with)
  end)
end)
