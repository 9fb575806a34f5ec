-- Checkpoints: a run that was stopped after an epoch and resumed ends with the bits of the run that was not.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world

local function train(options)
  atomo.manual_seed(3)
  local data = atomo.data.synthetic {train = 60, test = 10}
  local model = nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2, bias = false}), nn.BatchNorm2d(8, {relu = true}),
    nn.GlobalAvgPool(), nn.Dropout(0.2), nn.Linear(8, 10)}
  local optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01}
  local o = {
    model = model, optimizer = optimizer, quiet = true, eval_every = 0,
    exchange = atomo.exchange {compress = "entry:ratio=4", min_size = 50},
    data = {train = atomo.data.loader {set = data.train, batch = 8, rank = world.rank, size = world.size,
      augment = {crop = 4, flip = true}, mean = data.mean, std = data.std}},
  }
  for key, value in pairs(options) do o[key] = value end
  local info = atomo.train(o)
  local state = model:state_dict()
  local bytes = {}
  for name, t in pairs(state) do bytes[name] = t:bytes() end
  return bytes, info
end

--- One name for all ranks.
local function shared_path()
  local path = os.tmpname()
  local names = world:allgatherv(path)
  if names[1] ~= path then os.remove(path) end
  return names[1]
end

describe("a resumed run", function()
  it("ends with the same bits", function()
    local path = shared_path()
    local whole, info = train {epochs = 3, save = path .. ".whole"}
    train {epochs = 2, save = path}
    local resumed, resumed_info = train {epochs = 3, resume = path, save = path}
    world:barrier()
    if world.rank == 0 then
      os.remove(path)
      os.remove(path .. ".whole")
    end
    assert.equal(info.step, resumed_info.step)
    for name, bytes in pairs(whole) do assert.is_true(bytes == resumed[name], name .. " differs") end
  end)

  for _, case in ipairs {{"topk:k=20,ef=true", "allgather"}, {"powersgd:rank=1", "allgather"},
    {"svd:ratio=4,ef=true", "allgather"}, {"powersgd:rank=1,ef=true", "allreduce"}, {"fp16:ef=true", "allreduce"},
    {"topk:k=20,ef=true", "sharded"}} do
    local text, topology = unpack(case)
    it(("ends with the same bits under %s by %s, whose memory goes to a file a rank"):format(text, topology), function()
      local path = shared_path()
      local function options(more)
        more.exchange = atomo.exchange {compress = text, topology = topology, min_size = 50}
        return more
      end
      local whole = train(options {epochs = 3, save = path .. ".whole"})
      train(options {epochs = 2, save = path})
      local resumed = train(options {epochs = 3, resume = path, save = path .. ".again"})
      for _, name in ipairs {path, path .. ".whole", path .. ".again"} do
        assert.is_true(os.remove(("%s.rank%d"):format(name, world.rank)))
      end
      world:barrier()
      local forgetful = train(options {epochs = 3, resume = path, save = path .. ".again"})
      os.remove(("%s.again.rank%d"):format(path, world.rank))
      world:barrier()
      for _, name in ipairs(world.rank == 0 and {path, path .. ".whole", path .. ".again"} or {}) do os.remove(name) end
      local same = true
      for name, bytes in pairs(whole) do
        assert.is_true(bytes == resumed[name], name .. " differs")
        same = same and bytes == forgetful[name]
      end
      assert.is_false(same) -- the memory matters
    end)
  end

  it("refuses a checkpoint of another model, and what is none", function()
    local path = shared_path()
    if world.rank == 0 then require("atomo.safetensors").save(path, {a = atomo.zeros(1)}, {format = "other"}) end
    world:barrier()
    local ok, text = pcall(train, {epochs = 1, resume = path})
    assert.is_false(ok)
    assert.matches("is no checkpoint of this version", text)
    world:barrier()
    if world.rank == 0 then
      require("atomo.checkpoint").write(path, {["model.x"] = atomo.zeros(1)}, {step = "1", epoch = "1"})
    end
    world:barrier()
    ok, text = pcall(train, {epochs = 1, resume = path})
    assert.is_false(ok)
    assert.matches("unexpected", text)
    world:barrier()
    if world.rank == 0 then os.remove(path) end
  end)
end)
