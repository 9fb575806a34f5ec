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

--- The ranks' own files that a checkpoint names.
local function own_files(path)
  local _, metadata = require("atomo.train.checkpoint").read(path)
  local names = {}
  for rank = 0, world.size - 1 do
    local checksum = metadata["own.rank" .. rank]
    names[#names + 1] = checksum and ("%s.rank%d-%s"):format(path, rank, checksum)
  end
  return names
end

--- Removes checkpoints with their ranks' files.
local function remove(...)
  world:barrier()
  for _, path in ipairs(world.rank == 0 and {...} or {}) do
    for _, name in ipairs(own_files(path)) do os.remove(name) end
    os.remove(path)
  end
  world:barrier()
end

local function bytes_of(name)
  local file = assert(io.open(name, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

--- fn() while `name` holds other bytes (nil: is missing); on all ranks.
local function with_bytes(name, bytes, fn)
  local before = bytes_of(name)
  world:barrier()
  local function put(text)
    if world.rank == 0 then
      os.remove(name)
      if text then
        local file = assert(io.open(name, "wb"))
        assert(file:write(text))
        assert(file:close())
      end
    end
    world:barrier()
  end
  put(bytes)
  fn()
  world:barrier()
  put(before)
end

local function refused(pattern, options)
  local ok, text = pcall(train, options)
  assert.is_false(ok)
  assert.matches(pattern, text)
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
      world:barrier()
      local own = own_files(path)
      assert.equal(world.size, #own)
      for rank, name in ipairs(own) do
        local bytes = bytes_of(name)
        local flipped = bytes:sub(1, -2) .. string.char(bit.bxor(bytes:byte(-1), 1))
        for _, damage in ipairs {{"is missing"}, {"is damaged", flipped}} do -- in this order on all ranks
          local what, other = damage[1], damage[2]
          with_bytes(name, other, function()
            refused(("checkpoint: rank %d: .*%%.rank%d%%-%%x+ %s"):format(rank - 1, rank - 1, what),
              options {epochs = 3, resume = path})
          end)
        end
        with_bytes(name, bytes:sub(1, 100), function()
          refused(("checkpoint: rank %d: "):format(rank - 1), options {epochs = 3, resume = path})
        end)
      end
      local forgetful = train {epochs = 3, resume = path, exchange = atomo.exchange {
        compress = text:gsub("k=20", "k=21"):gsub("ratio=4", "ratio=5"), topology = topology, min_size = 50}}
      remove(path, path .. ".whole", path .. ".again")
      local same = true
      for name, bytes in pairs(whole) do
        assert.is_true(bytes == resumed[name], name .. " differs")
        same = same and bytes == forgetful[name]
      end
      if text:find "k=20" or text:find "ratio=4" then assert.is_false(same) end
    end)
  end

  it("keeps one generation: a save replaces the files of the one before, one that fails leaves them", function()
    local path = shared_path()
    local function options(more)
      more.exchange = atomo.exchange {compress = "topk:k=20,ef=true", min_size = 50}
      return more
    end
    local earlier
    train(options {epochs = 2, save = path, on_epoch = function(info)
      world:barrier()
      if info.epoch == 1 then earlier = own_files(path) end
      world:barrier()
    end})
    world:barrier()
    for i, name in ipairs(own_files(path)) do
      assert.is_nil(io.open(earlier[i]))
      assert.truthy(bytes_of(name))
    end
    -- what a kill between the ranks' files and PATH leaves: files that PATH does not name change nothing
    local whole = train(options {epochs = 3, resume = path})
    if world.rank == 0 then require("atomo.core.files").save("spec", path .. ".rank0-00000000", "cut off") end
    world:barrier()
    local again = train(options {epochs = 3, resume = path})
    for name, bytes in pairs(whole) do assert.is_true(bytes == again[name], name .. " differs") end
    remove(path)
    if world.rank == 0 then os.remove(path .. ".rank0-00000000") end
  end)

  it("probes where it will save before it trains", function()
    local steps = 0
    local function count() steps = steps + 1 end
    refused("checkpoint: rank 0: .*cannot write /nowhere/x", {epochs = 1, save = "/nowhere/x", on_step = count})
    refused("checkpoint: rank 0: /tmp cannot be read: Is a directory", {epochs = 1, save = "/tmp",
      on_step = count})
    local path = shared_path()
    if world.rank == 0 then require("atomo.core.files").save("spec", path, "a diary") end
    world:barrier()
    refused("is there already and is no checkpoint: it is not overwritten", {epochs = 1, save = path, on_step = count})
    assert.equal("a diary", bytes_of(path))
    assert.equal(0, steps)
    world:barrier()
    if world.rank == 0 then os.remove(path) end
  end)

  it("refuses a checkpoint of another model, and what is none", function()
    local path = shared_path()
    if world.rank == 0 then require("atomo.tensor.safetensors").save(path, {a = atomo.zeros(1)}, {format = "other"}) end
    world:barrier()
    local ok, text = pcall(train, {epochs = 1, resume = path})
    assert.is_false(ok)
    assert.matches("is no checkpoint of this version", text)
    world:barrier()
    if world.rank == 0 then
      require("atomo.train.checkpoint").write(path, {["model.x"] = atomo.zeros(1)}, {step = "1", epoch = "1"})
    end
    world:barrier()
    ok, text = pcall(train, {epochs = 1, resume = path})
    assert.is_false(ok)
    assert.matches("unexpected", text)
    world:barrier()
    if world.rank == 0 then os.remove(path) end
  end)
end)
