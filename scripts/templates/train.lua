--- NAME: trains a small network on the built-in synthetic images, over MPI ranks.
--   atomo-lua NAME.lua                one process
--   mpirun -n 2 atomo-lua NAME.lua    two ranks, which send compressed gradients to each other
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
atomo.manual_seed(0) -- the same initial weights on every rank

-- The data. Replace this by atomo.data.open "FOLDER" for files of your own (docs/data.md).
local data = atomo.data.synthetic {train = 2000, test = 500}

local function loader(set, training)
  return atomo.data.loader {set = set, batch = 50, rank = world.rank, size = world.size, shuffle = training,
    mean = data.mean, std = data.std, augment = training and {crop = 4, flip = true} or false}
end

-- The model. Images are [N,H,W,C]: 32 x 32 x 3 here.
local model = nn.Sequential {
  nn.Conv2d(3, 16, 3, {stride = 2, padding = 1}), nn.BatchNorm2d(16), nn.ReLU(),
  nn.Conv2d(16, 32, 3, {stride = 2, padding = 1}), nn.BatchNorm2d(32), nn.ReLU(),
  nn.GlobalAvgPool(), nn.Linear(32, data.classes),
}

-- The optimizer and its learning rate: half a cosine from lr to 0.
local train, epochs = loader(data.train, true), 3
local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.05, momentum = 0.9, weight_decay = 5e-4}
local schedule = atomo.schedule.cosine {lr = 0.05, steps = epochs * train.steps}

-- What ranks send to each other. compress = "none" sends gradients dense; atomo.compressors() lists the others.
local exchange = atomo.exchange {compress = "auto:ratio=64"}

local result = atomo.train {model = model, data = {train = train, test = loader(data.test, false)},
  optimizer = optimizer, schedule = schedule, exchange = exchange, epochs = epochs}
if world.rank == 0 then print(("test accuracy %.4f after %d steps"):format(result.test_accuracy, result.step)) end
