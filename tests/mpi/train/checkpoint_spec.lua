-- Files of checkpoints: they are complete, kept and pruned, named by latest and best; damaged, missing or
-- foreign files are refused on all ranks with the same text; files of earlier versions can be read.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local file = require "atomo.train.checkpoint"
local nn, world = atomo.nn, atomo.mpi.world

local function net()
  return nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2, bias = false}), nn.BatchNorm2d(8, {relu = true}),
    nn.GlobalAvgPool(), nn.Dropout(0.2), nn.Linear(8, 10)}
end

local function train(options)
  atomo.manual_seed(3)
  local data = atomo.data.synthetic {train = 60, test = 10}
  local model = options.model or net()
  local function loader(set)
    return atomo.data.loader {set = set, batch = 8, rank = world.rank, size = world.size,
      augment = {crop = 4, flip = true}, mean = data.mean, std = data.std}
  end
  local o = {
    model = model, optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01}, quiet = true, eval_every = 0,
    exchange = atomo.exchange {compress = options.compress or "topk:k=20,ef=true", min_size = 50},
    data = {train = loader(data.train), test = options.eval_every and loader(data.test) or nil},
  }
  for key, value in pairs(options) do
    if key ~= "compress" then o[key] = value end
  end
  local info = atomo.train(o)
  local bytes = {}
  for name, t in pairs(model:state_dict()) do bytes[name] = t:bytes() end
  return bytes, info, o
end

--- Trains with output. Returns the model's bytes by name, and the text that rank 0 printed; the others print nothing.
local function train_said(options)
  local files, said = require "atomo.core.files", {}
  local put = files.put
  files.put = function(text) said[#said + 1] = text end
  options.quiet = false
  local ok, bytes = pcall(train, options)
  files.put = put
  assert(ok, bytes)
  local text = table.concat(said)
  assert.equal(world.rank == 0, text ~= "")
  return bytes, world:allgatherv(text)[1]
end

local function refused(pattern, options)
  local ok, text = pcall(train, options)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.matches(pattern, text)
  local all = world:allgatherv((tostring(text):gsub("^[^ ]+ ", ""))) -- without the source position
  for _, other in ipairs(all) do assert.equal(all[1], other) end
end

local function assert_same(whole, other)
  for name, bytes in pairs(whole) do assert.is_true(bytes == other[name], name .. " differs") end
end

local function write(path, text)
  if world.rank == 0 then require("atomo.core.files").save("spec", path, text) end
  world:barrier()
end

local function flipped(bytes, at)
  return bytes:sub(1, at - 1) .. string.char(bit.bxor(bytes:byte(at), 1)) .. bytes:sub(at + 1)
end

describe("a checkpoint", function()
  teardown(checkpoints.remove_all)

  it("is refused on all ranks where a file is missing, cut off or damaged, or the manifest is", function()
    local path = checkpoints.path()
    local ema = {state_dict = function() return {n = 1} end, load_state_dict = function() end}
    train {epochs = 1, save = path, state = {ema = ema}}
    local folder = checkpoints.named(path)
    local names = {"model", "optimizer", "state"}
    for rank = 0, world.size - 1 do names[#names + 1] = "rank-" .. rank end
    local again = {epochs = 2, resume = folder, state = {ema = ema}}
    for _, name in ipairs(names) do
      local whole = folder .. "/" .. name .. ".safetensors"
      local bytes = checkpoints.bytes(whole)
      local pattern = ("checkpoint: .*step%%-%%d+: %s%%.safetensors "):format((name:gsub("%-", "%%-")))
      checkpoints.with_bytes(whole, nil, function() refused(pattern .. "is missing", again) end)
      checkpoints.with_bytes(whole, bytes:sub(1, -2), function()
        refused(pattern .. "has %d+ bytes, the manifest says %d+", again)
      end)
      for _, at in ipairs {1, math.floor(#bytes / 2), #bytes} do
        checkpoints.with_bytes(whole, flipped(bytes, at), function() refused(pattern .. "is damaged", again) end)
      end
    end
    local manifest = folder .. "/manifest"
    local text = checkpoints.bytes(manifest)
    checkpoints.with_bytes(manifest, nil, function() refused("it has no manifest", again) end)
    for _, n in ipairs {0, 1, 20, math.floor(#text / 2), #text - 1} do
      checkpoints.with_bytes(manifest, text:sub(1, n), function()
        refused("its manifest is damaged or cut off", again)
      end)
    end
    for at = 1, #text, 97 do
      checkpoints.with_bytes(manifest, flipped(text, at), function()
        refused("its manifest is damaged or cut off", again)
      end)
    end
    train(again)
  end)

  it("that is damaged is skipped for the one before, with a notice, by DIR and auto", function()
    local path = checkpoints.path()
    local whole = train {epochs = 3}
    train {epochs = 2, save = path}
    local newest = checkpoints.named(path)
    local model = newest .. "/model.safetensors"
    checkpoints.with_bytes(model, flipped(checkpoints.bytes(model), 900), function()
      local rest, said = train_said {epochs = 3, resume = path}
      assert_same(whole, rest)
      assert.truthy(said:find(newest .. " is skipped: model.safetensors is damaged", 1, true), said)
    end)
  end)

  it("is written by a run in which nothing is left to train, which says so", function()
    local first, second = checkpoints.path(), checkpoints.path()
    local whole = train {epochs = 1}
    local _, said = train_said {epochs = 1, max_steps = 0, save = first}
    assert.truthy(said:find("nothing is left to train: step 0, 0 of 1 epochs, max_steps is 0", 1, true), said)
    assert.same({"step-0"}, checkpoints.names(first))
    assert_same(whole, (train {epochs = 1, resume = first, save = first}))
    local rest
    rest, said = train_said {epochs = 1, resume = first, save = second}
    assert.truthy(said:find("nothing is left to train: step %d+, 1 of 1 epochs\n"), said)
    assert_same(whole, rest)
    assert_same(whole, (train {epochs = 1, resume = checkpoints.named(second)}))
  end)

  it("is kept as long as it is among the newest, the latest or the best", function()
    local path, results = checkpoints.path(), {0.5, 0.9, 0.2, 0.3, 0.1}
    local calls = 0
    local function accuracy() -- of every test, once an epoch on all ranks
      return results[math.max(1, calls)]
    end
    local _, _, o = train {epochs = 5, save = path, keep = 2, eval_every = 1, accuracy = accuracy,
      on_step = function(info) calls = info.epoch end}
    local steps = math.ceil(60 / 8 / world.size)
    assert.equal(("step-%d"):format(5 * steps), checkpoints.named(path):match "[^/]+$")
    assert.equal(("step-%d"):format(2 * steps), checkpoints.named(path, "best"):match "[^/]+$")
    assert.matches("^step%-%d+ test_accuracy 0.9", checkpoints.bytes(path .. "/best"))
    local kept = checkpoints.names(path)
    table.sort(kept)
    local expected = {}
    for i, epoch in ipairs {2, 4, 5} do expected[i] = ("step-%d"):format(epoch * steps) end
    table.sort(expected)
    assert.same(expected, kept)
    assert.truthy(o.save)
    for _, pointer in ipairs {"latest", "best"} do -- either can be resumed from
      local _, info = train {epochs = 6, resume = path .. "/" .. pointer}
      assert.equal(6 * steps, info.step)
    end
  end)

  it("is the best by the test loss where no accuracy is measured, also after resuming", function()
    local path, results, epoch = checkpoints.path(), {0.9, 0.2, 0.5, 0.1}, 0
    local model = net()
    local function loss(logits, labels)
      local value = atomo.F.cross_entropy(logits, labels)
      return model.training and value or value * 0 + results[epoch]
    end
    local o = {save = path, keep = 1, eval_every = 1, accuracy = false, loss = loss, model = model,
      on_step = function(info) epoch = info.epoch end}
    local steps = math.ceil(60 / 8 / world.size)
    for _, case in ipairs {{3, 2}, {4, 4}} do
      o.epochs, o.resume = case[1], case[1] == 4 and "auto" or nil
      train(o)
      assert.equal(("step-%d"):format(case[2] * steps), checkpoints.named(path, "best"):match "[^/]+$")
      assert.matches("^step%-%d+ test_loss " .. results[case[2]], checkpoints.bytes(path .. "/best"))
      world:barrier()
    end
  end)

  it("of an earlier step that is saved later is the newest: a run that was resumed from further back", function()
    local path = checkpoints.path()
    train {epochs = 3, save = path}
    local first = path .. "/" .. ("step-%d"):format(math.ceil(60 / 8 / world.size))
    train {epochs = 2, save = path, resume = first, compress = "none"}
    local _, info = train {epochs = 2, resume = path, compress = "none"}
    assert.equal(2, info.epoch)
    assert.equal(checkpoints.named(path), ("%s/step-%d"):format(path, info.step))
  end)
end)

describe("the folder of checkpoints", function()
  teardown(checkpoints.remove_all)

  it("is tested before the training, and existing files are not touched", function()
    local steps = 0
    local function count() steps = steps + 1 end
    refused("checkpoint: rank 0: .*cannot write /nowhere/x", {epochs = 1, save = "/nowhere/x", on_step = count})
    refused("checkpoint: rank 0: .*cannot write /proc/self/x", {epochs = 1, save = "/proc/self/x", on_step = count})
    refused("checkpoint: rank 0: /dev/null is no folder", {epochs = 1, save = "/dev/null", on_step = count})
    local path = checkpoints.path()
    write(path, "a diary")
    refused("is there already and is no checkpoint: it is not overwritten", {epochs = 1, save = path, on_step = count})
    assert.equal("a diary", checkpoints.bytes(path))
    world:barrier() -- all ranks have read it
    if world.rank == 0 then os.remove(path) end
    write(path, "")
    train {epochs = 1, save = path} -- an empty file, as mktemp leaves it, is replaced
    assert.equal(0, steps)
  end)

  it("is cleaned of unfinished saves, which resuming ignores", function()
    local path = checkpoints.path()
    local whole = train {epochs = 3}
    train {epochs = 2, save = path}
    local kept = checkpoints.named(path):match "[^/]+$"
    if world.rank == 0 then
      local disk = require "atomo.train.checkpoint.disk"
      disk.make(path .. "/step-999.partial")
      disk.write_text(path .. "/step-999.partial/model.safetensors", "half")
      disk.make(path .. "/step-3.removed")
      disk.write_text(path .. "/latest.77.tmp", "step-")
      disk.write_text(path .. "/notes", "mine")
      disk.rename(path .. "/" .. kept, path .. "/" .. kept .. ".replaced") -- as if saving its successor had failed
    end
    world:barrier()
    local rest, said = train_said {epochs = 3, resume = "auto", save = path}
    assert_same(whole, rest)
    local gone = assert(said:match "removed what unfinished saves had left: ([^\n]*)", said)
    for _, name in ipairs {"step-999.partial", "step-3.removed", "latest.77.tmp",
      kept .. ".replaced (back in place)"} do
      assert.truthy((", " .. gone .. ", "):find(", " .. name .. ", ", 1, true), name .. ": " .. gone)
    end
    world:barrier()
    local names = table.concat(require("atomo.train.checkpoint.disk").names(path), " ")
    assert.is_nil(names:find "partial" or names:find "removed" or names:find "tmp" or names:find "replaced")
    assert.truthy(names:find(kept, 1, true) and names:find "notes")
  end)

  it("that holds nothing to resume is a fresh start for auto, and refused by name", function()
    local path = checkpoints.path()
    assert_same(train {epochs = 1}, (train {epochs = 1, save = path, resume = "auto"}))
    refused("needs save, the folder", {epochs = 1, resume = "auto"})
    refused("is not there: expected a folder of checkpoints", {epochs = 1, resume = path .. ".none"})
    if world.rank == 0 then require("atomo.train.checkpoint.disk").make(path .. ".empty") end
    world:barrier()
    refused("%.empty holds no complete checkpoint", {epochs = 1, resume = path .. ".empty"})
    refused("save_every is soon", {epochs = 1, save = path, save_every = "soon"})
    refused("keep wants save, a folder", {epochs = 1, keep = 3})
  end)
end)

describe("a checkpoint of something else", function()
  teardown(checkpoints.remove_all)

  it("is refused by name", function()
    local path = checkpoints.path()
    train {epochs = 1, save = path, state = {ema = {state_dict = function() return {} end,
      load_state_dict = function() end}}}
    local function again(more)
      more.epochs, more.resume = 2, path
      more.state = more.state or {ema = {state_dict = function() return {} end, load_state_dict = function() end}}
      return more
    end
    local wide = nn.Sequential {nn.Conv2d(3, 9, 3), nn.GlobalAvgPool(), nn.Linear(9, 10)}
    refused("model%.safetensors is of another model: Sequential with 7 tensors there, Sequential with 4 here; only " ..
      "there: 1%.bias, 1%.running_mean, 1%.running_var and 3 more; only here: 0%.bias, 2%.bias, 2%.weight; wrong " ..
      "shape: 0%.weight is %[8,3,3,3%] there, %[9,3,3,3%] here", again {model = wide})
    local model = net()
    refused("holds the state of adam, this run's optimizer is sgd", again {model = model,
      optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1}})
    model = net()
    refused("this optimizer has no 0%.weight", again {model = model,
      optimizer = atomo.optim.adam {params = {model[2].weight, model[2].bias, model[5].weight, model[5].bias}}})
    refused("holds the state of 'ema', which this run does not name: state = {ema = %.%.%.}", again {state = {}})
  end)

  it("finds an optimizer's state by name, in whatever order of groups", function()
    local path = checkpoints.path()
    local whole = train {epochs = 2, compress = "none"}
    train {epochs = 1, save = path, compress = "none"}
    local model = net()
    local list = model:parameters()
    local rest = train {epochs = 2, resume = path, compress = "none", model = model,
      optimizer = atomo.optim.adam {lr = 0.01, params = {{params = {list[5], list[2]}},
        {params = {list[1], list[4], list[3]}}}}}
    assert_same(whole, rest)
  end)
end)

describe("a file of an earlier version", function()
  teardown(checkpoints.remove_all)

  --- Writes a checkpoint after two epochs in the format of an earlier version.
  local function write_file(path, compress, old)
    local _, info, o = train {epochs = 2, compress = compress}
    local metadata = {step = ("%d"):format(info.step), epoch = "2", exchanges = ("%d"):format(o.exchange.step)}
    local ranks, own, tensors = ("%d"):format(world.size), {}, {}
    for name, t in pairs(o.exchange.compressor:state_dict()) do
      if name:match "^%d+$" then own["memory." .. name] = t end
    end
    local checksum = file.write(path .. ".own" .. world.rank, own, {step = metadata.step, ranks = ranks})
    local name = old and ("%s.rank%d"):format(path, world.rank) or ("%s.rank%d-%s"):format(path, world.rank, checksum)
    os.rename(path .. ".own" .. world.rank, name)
    local checksums = world:allgatherv(checksum)
    for key, t in pairs(o.model:state_dict()) do tensors["model." .. key] = t end
    for key, v in pairs(o.optimizer:state_dict()) do
      local place = type(v) == "number" and metadata or tensors
      place["optimizer." .. key] = type(v) == "number" and ("%.17g"):format(v) or v
    end
    metadata.unit = "1"
    if not old then
      metadata.ranks, metadata.coder = ranks, ("%s, topology %s"):format(tostring(o.exchange.compressor),
        o.exchange.topology)
      for rank, sum in ipairs(checksums) do metadata["own.rank" .. rank - 1] = sum end
    end
    if world.rank == 0 then file.write(path, tensors, metadata) end
    world:barrier()
    return name
  end

  for _, old in ipairs {false, true} do
    it("is resumed from with the same bits" .. (old and ", also one that names no ranks' files" or ""), function()
      for _, compress in ipairs {"topk:k=20,ef=true", "powersgd:rank=1,ef=true", "none"} do
        local path = checkpoints.path()
        local whole = train {epochs = 3, compress = compress}
        write_file(path, compress, old)
        local function trained(more)
          more.epochs, more.compress, more.resume = 3, compress, path
          local bytes = train(more)
          for name, b in pairs(whole) do
            if not name:find "running" then assert.is_true(b == bytes[name], name .. " differs") end -- differ by rank
          end
        end
        trained {}
        refused("is a checkpoint of an earlier version, one file; .*save to another name", {epochs = 3,
          compress = compress, resume = path, save = path})
        trained {save = path .. ".new"}
        checkpoints.remove(path)
      end
    end)
  end

  it("is refused on all ranks where a rank's file is missing or damaged", function()
    local path = checkpoints.path()
    write_file(path, "topk:k=20,ef=true")
    for rank = 0, world.size - 1 do
      local metadata = select(2, file.read(path))
      local name = ("%s.rank%d-%s"):format(path, rank, metadata["own.rank" .. rank])
      local pattern = ("checkpoint: rank %d: .*%%.rank%d%%-%%x+ "):format(rank, rank)
      local bytes = checkpoints.bytes(name)
      checkpoints.with_bytes(name, nil, function() refused(pattern .. "is missing", {epochs = 3, resume = path}) end)
      checkpoints.with_bytes(name, flipped(bytes, #bytes), function()
        refused(pattern .. "is damaged", {epochs = 3, resume = path})
      end)
    end
  end)

  it("that is not a checkpoint, or of another model, is refused", function()
    local path = checkpoints.path()
    if world.rank == 0 then require("atomo.tensor.safetensors").save(path, {a = atomo.zeros(1)}, {format = "other"}) end
    world:barrier()
    refused("is no checkpoint of this version", {epochs = 1, resume = path})
    world:barrier()
    if world.rank == 0 then file.write(path, {["model.x"] = atomo.zeros(1)}, {step = "1", epoch = "1"}) end
    world:barrier()
    refused("unexpected", {epochs = 1, resume = path})
  end)
end)
