-- atomo.evaluate over ranks: each evaluates its part of the set, with the ranks' average of running statistics.
local atomo = require "atomo"
local nn = atomo.nn
local world = atomo.mpi.world

describe("atomo.evaluate over ranks", function()
  it("gives the result of one rank on the whole set, and keeps each rank's running statistics", function()
    atomo.manual_seed(6)
    local model = nn.Sequential {nn.Flatten(), nn.Linear(3072, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)}
    local data = atomo.data.synthetic {train = 10, test = 33}
    local function loader(rank, size)
      return atomo.data.loader {set = data.test, batch = 7, rank = rank, size = size, shuffle = false,
        mean = data.mean, std = data.std}
    end
    local mean = model[3].running_mean
    mean:fill_((world.size - 1) / 2)
    local alone = world:split(world.rank, 0)
    local whole = atomo.evaluate(model, loader(0, 1), {comm = alone})
    mean:fill_(world.rank) -- their average over the ranks is the value above
    local parts = atomo.evaluate(model, loader(world.rank, world.size))
    assert.near(whole.loss, parts.loss, 1e-5)
    assert.near(whole.accuracy, parts.accuracy, 1e-6)
    assert.near(whole.top5, parts.top5, 1e-6)
    assert.equal(33, parts.n)
    assert.equal(world.rank, mean:get(1))
  end)
end)
