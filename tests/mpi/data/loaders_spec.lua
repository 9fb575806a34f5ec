-- Loaders over tensors, over a user's set and with lists of transforms on any number of ranks: every sample once an
-- epoch, a resumed run is bit-identical, data that differ between ranks are named.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local nn, world = atomo.nn, atomo.mpi.world

local n = 42
local data = atomo.data.synthetic {train = n, test = 1}
local images, labels = data.train.images, data.train.labels

local function with_ranks(o)
  o.batch, o.rank, o.size, o.seed = 4, world.rank, world.size, 2
  return o
end

local normal = {mean = data.mean, std = data.std}
local own = {size = function() return n end, get = function(_, i) return images:select(1, i), labels:get(i) end}

--- The loaders by name, of a set in place of the training set.
local kinds = {
  ["a list of transforms"] = function(set)
    return atomo.data.loader(with_ranks {set = set or data.train, mean = normal.mean, std = normal.std, augment = {
      {"colour_jitter", brightness = 0.3, contrast = 0.3, saturation = 0.3}, {"normalise"}, {"crop", 4}, {"flip"},
      {"cutout", 8}, {"mixup", 0.4}}})
  end,
  ["tensors"] = function(set)
    set = set or data.train
    return atomo.data.tensors(with_ranks {x = set.images:to "f32" / 255, y = set.labels})
  end,
  ["a user's set"] = function()
    return atomo.data.loader(with_ranks {set = own, augment = {{"normalise"}, {"crop", 2}, {"cutout", 4}}})
  end,
}

--- Trains; returns all parameters as texts by name.
local function train(make, more)
  atomo.manual_seed(3)
  local model = nn.Sequential {nn.Conv2d(3, 4, 3, {stride = 4}), nn.GlobalAvgPool(), nn.Linear(4, 10)}
  local o = {model = model, data = make(), quiet = true, epochs = 2, eval_every = 0,
    optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}}
  for key, value in pairs(more or {}) do o[key] = value end
  atomo.train(o)
  local left = {}
  for name, t in pairs(model:state_dict()) do left[name] = t:bytes() end
  return left
end

describe("on any number of ranks", function()
  teardown(checkpoints.remove_all)

  for _, name in ipairs {"a list of transforms", "tensors", "a user's set"} do -- in the same order on all ranks
    local make = kinds[name]
    it("a run over " .. name .. ", stopped within an epoch and resumed, ends with the same bits", function()
      local whole = train(make)
      for _, stop in ipairs {1, 3} do
        local path = checkpoints.path()
        train(make, {max_steps = stop, save = path})
        local rest = train(make, {resume = path})
        checkpoints.remove(path)
        for key, bytes in pairs(whole) do assert.equal(bytes, rest[key], key) end
      end
    end)
  end

  it("every sample comes once an epoch, and all ranks take as many steps", function()
    for _, batch in ipairs {4, 9} do
      local ids = atomo.arange(n):to "i32"
      local seen, steps = atomo.zeros(n), 0
      local loader = atomo.data.tensors {x = ids, y = ids, batch = batch, rank = world.rank, size = world.size}
      for b in loader:epoch(1) do
        steps = steps + 1
        assert.equal(b.total, world:allreduce(atomo.tensor {b.n}):item())
        for _, id in ipairs(b.x:totable()) do seen:set(id + 1, seen:get(id + 1) + 1) end
      end
      assert.equal(loader.steps, steps)
      world:allreduce(seen)
      assert.same({1, 1}, {seen:min():item(), seen:max():item()})
    end
  end)

  it("tensors that differ between ranks are named at the start", function()
    if world.size == 1 then return end
    local other = {images = images, labels = world.rank == 0 and labels or (labels + 1):to "i32"}
    local ok, message = pcall(train, function() return kinds.tensors(other) end)
    assert.is_false(ok)
    assert.matches("data: y = i32 %[42%], crc", message)
  end)
end)
