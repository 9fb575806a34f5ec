-- A run that is resumed with other settings says what differs, and uses the new ones.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local files = require "atomo.core.files"
local identity = require "atomo.train.checkpoint.identity"
local nn, world = atomo.nn, atomo.mpi.world

--- Trains; o: options of atomo.train, and seed, layers, loss, exchange, lr, divisor (of x), shuffle. Returns what
--- rank 0 printed, and the learning rates by step.
local function train(o, more)
  atomo.manual_seed(o.seed or 1)
  local model = nn.Sequential {nn.Linear(4, 6), unpack(o.layers or {nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3)})}
  local x, y = (atomo.arange(96) / (o.divisor or 96)):view(24, 4), atomo.zeros(24):int()
  local said, put, rates = {}, files.put, {}
  local options = {model = model, optimizer = atomo.optim.sgd {params = model:parameters(), lr = o.lr or 0.1},
    data = atomo.data.tensors {x = x, y = y, batch = 2, rank = world.rank, size = world.size,
      shuffle = o.shuffle == true},
    exchange = atomo.exchange(o.exchange or {}), loss = o.loss, epochs = 2,
    on_step = function(info) rates[info.step] = info.lr end}
  for key, value in pairs(more) do options[key] = value end
  files.put = function(text) said[#said + 1] = text end
  local ok, why = pcall(atomo.train, options)
  files.put = put
  assert(ok, why)
  return world:allgatherv(table.concat(said))[1], rates
end

describe("a resumed run", function()
  teardown(checkpoints.remove_all)

  local first = {exchange = {compress = "svd:ratio=2", min_size = 0}}
  local path

  setup(function()
    path = checkpoints.path()
    train(first, {save = path, max_steps = 1})
  end)

  local function resume(o) return train(o, {resume = path, max_steps = 3}) end

  local function with(name, value)
    return {exchange = {compress = "svd:ratio=2", min_size = name == "min_size" and value or 0, [name] = value}}
  end

  it("with the same settings says nothing of them", function()
    assert.is_nil(resume(first):find("other settings", 1, true))
  end)

  it("with other data names what differs, on one rank too", function()
    local text = resume {exchange = first.exchange, divisor = 48}
    assert.matches("resumed with other settings than it was saved with: data: x f32 %[24,4%], crc %x+ %-> f32 " ..
      "%[24,4%], crc %x+\n", text)
  end)

  for _, case in ipairs {
    {"the exchange's seed", with("seed", 7), "exchange: seed 0 -> 7"},
    {"its least size of messages", with("min_size", 5), "exchange: min_size 0 -> 5"},
    {"the way of small tensors", with("fuse_small", "compress"), "exchange: fuse_small dense -> compress"},
    {"the number of its buckets", with("message_buckets", 2), "exchange: message_buckets 0 -> 2"},
    {"the random seed", {seed = 2, exchange = first.exchange}, "manual_seed 1 -> 2"},
    {"an option of a layer", {layers = {nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)}, exchange = first.exchange},
      "layer '2' Dropout(p=0.2) p = 0.20000000000000001 -> Dropout(p=0.5) p = 0.5"},
    {"a layer without parameters", {layers = {nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 3)}, exchange = first.exchange},
      "layer '1' ReLU() -> Tanh()"},
    {"the data", {divisor = 48, exchange = first.exchange}, "data: x f32 [24,4], crc "},
    {"the data's order", {shuffle = true, exchange = first.exchange}, "data: shuffle false -> true"},
    {"the loss", {loss = nn.CrossEntropyLoss {label_smoothing = 0.1}, exchange = first.exchange}, "the loss none -> "},
  } do
    it("names " .. case[1], function()
      local text = resume(case[2])
      assert(text:find("resumed with other settings than it was saved with: ", 1, true), text)
      assert(text:find(case[3], 1, true), text)
    end)
  end

  it("says that the steps of an open round of local SGD are lost, if it takes no local steps", function()
    local dir, again = checkpoints.path(), checkpoints.path()
    train({}, {save = dir, max_steps = 2, local_steps = 3})
    local text = train({}, {resume = dir, save = again, max_steps = 3})
    assert(text:find("2 steps of a round of local steps are lost: the round is not continued", 1, true), text)
    text = train({}, {resume = again, max_steps = 4})
    assert.is_nil(text:find("lost", 1, true))
  end)

  it("uses another learning rate, and says so", function()
    local text, rates = resume {lr = 0.01, exchange = first.exchange}
    assert(text:find("lr 0.10000000000000001 -> 0.01", 1, true), text)
    assert.equal(0.01, rates[2])
  end)

  it("keeps a learning rate that was set during the run", function()
    local changed = checkpoints.path()
    local function saved(o, more)
      local options = {save = changed, max_steps = 2}
      local optimizer
      local sgd = atomo.optim.sgd
      atomo.optim.sgd = function(...)
        optimizer = sgd(...)
        return optimizer
      end
      options.on_step = function() optimizer.lr = 0.05 end
      for key, value in pairs(more or {}) do options[key] = value end
      local ok, why = pcall(train, o, options)
      atomo.optim.sgd = sgd
      assert(ok, why)
      return optimizer
    end
    saved(first)
    assert.equal(0.05, saved(first, {resume = changed, max_steps = 2}).lr)
  end)
end)

describe("differences of an identity", function()
  it("leave out what an earlier version did not record", function()
    local now = {lr = "1", ["exchange: seed"] = "0", ["layer '1'"] = "ReLU()", ["the model"] = "Sequential()",
      manual_seed = "1"}
    assert.is_nil(identity.differences({lr = "1"}, now, {}))
    assert.equal("layer '2' none -> Tanh()", identity.differences(now,
      {lr = "1", ["exchange: seed"] = "0", ["layer '1'"] = "ReLU()", ["layer '2'"] = "Tanh()",
        ["the model"] = "Sequential()", manual_seed = "1"}, {}))
  end)
end)
