-- scripts/evaluate.lua, predict.lua and inspect.lua as a user runs them on what a training run has left.
-- test: slow
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local contents = require "atomo.tools.contents"
local fails = require "support.fails"
local initial_weights = require "atomo.tools.initial_weights"
local root = require "support.root"
local safetensors = require "atomo.tensor.safetensors"
local spawn = require "support.spawn"
local trained = require "atomo.tools.trained"
local with_file = require "support.with_file"

local function script(name, arguments)
  return spawn.host(spawn.quote(root .. "scripts/" .. name .. ".lua") .. " " .. arguments, {timeout = 30})
end

local function has(text, ...)
  for _, what in ipairs {...} do assert(text:find(what, 1, true), ("expected %q in:\n%s"):format(what, text)) end
end

describe("the result of training", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local dir, model, data = checkpoints.path(), nil, nil
  local log = dir .. ".jsonl"

  setup(function()
    atomo.manual_seed(2)
    data = atomo.data.synthetic {train = 40, test = 20}
    model = require("models").open("lenet", {classes = 10})
    local function loader(set) return atomo.data.loader {set = set, batch = 10, mean = data.mean, std = data.std} end
    atomo.train {model = model, epochs = 2, save = dir,
      data = {train = loader(data.train), test = loader(data.test), names = data.names},
      optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01}, quiet = true, log = log,
      settings = {model = "lenet", compress = "none"}}
  end)
  teardown(checkpoints.remove_all)

  it("is found: a folder's newest, best, latest, one checkpoint, a file of weights", function()
    for _, case in ipairs {{dir, 8}, {dir .. "/latest", 8}, {dir .. "/step-4", 4}, {dir .. "/step-4/", 4}} do
      local found = trained.read(case[1])
      assert.equal(case[2], found.step)
      assert.equal("lenet", found.identity.model)
      assert.same({shape = {32, 32, 3}, mean = data.mean, std = data.std, classes = 10, names = data.names},
        found.inputs)
    end
    assert.truthy(trained.read(dir .. "/best").step)
    for name, t in pairs(trained.read(dir).tensors) do assert.equal(t:bytes(), model:state_dict()[name]:bytes()) end
    with_file("", ".safetensors", function(path)
      safetensors.save(path, model:state_dict())
      local found = trained.read(path)
      assert.equal(model[1].weight:bytes(), found.tensors["0.weight"]:bytes())
      fails({path, "does not say its model"}, trained.model, found, "", require("models").open)
    end)
  end)

  it("has the normalisation of a loader without test data, also where a list of transforms says it", function()
    for _, case in ipairs {{{{"flip"}, {"normalise"}}, data.mean, data.mean}, {{{"normalise", mean = {0.1, 0.2, 0.3}}},
      nil, {0.1, 0.2, 0.3}}, {{{"flip"}}, nil, nil}} do
      local path, net = checkpoints.path(), atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
      atomo.train {model = net, max_steps = 1, save = path, quiet = true,
        data = atomo.data.loader {set = data.train, batch = 10, augment = case[1], mean = case[2]},
        optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.01}}
      assert.same(case[3], trained.read(path).inputs.mean)
    end
  end)

  it("says the size of the images of a set with get(i), so that predict.lua needs no --data", function()
    local path, net = checkpoints.path(), require("models").open("mlp", {classes = 2, shape = {8, 6, 1}})
    local set = {classes = 2, size = function() return 4 end,
      get = function(_, i) return atomo.full({8, 6, 1}, i % 2), i % 2 end}
    atomo.train {model = net, max_steps = 1, save = path, quiet = true, settings = {model = "mlp"},
      data = atomo.data.loader {set = set, batch = 4, mean = {0.5}, std = {0.25}},
      optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.01}}
    assert.same({shape = {8, 6, 1}, mean = {0.5}, std = {0.25}, classes = 2}, trained.read(path).inputs)
    with_file("P5 40 50 255\n" .. ("\9"):rep(2000), ".pgm", function(gray)
      local out, code = script("predict", ("--weights %s %s"):format(path, gray))
      assert.equal(0, code, out)
      has(out, gray .. ": class ")
    end)
    with_file("", ".safetensors", function(file)
      safetensors.save(file, net:state_dict())
      fails({"does not say the size of its images, and is no mlp of 32 x 32 x 3; name it, --data or --size: ",
        "[512,48]"}, trained.model, {path = file, tensors = net:state_dict(), identity = {model = "mlp"}, inputs = {}},
        "", require("models").open, {32, 32, 3})
    end)
  end)

  it("is evaluated to the accuracy of the run's end", function()
    local weights = trained.read(dir)
    local loaded, name = trained.model(weights, "", require("models").open)
    assert.equal("lenet", name)
    local test = atomo.data.loader {set = data.test, batch = 20, shuffle = false, mean = data.mean, std = data.std}
    local want, got = atomo.evaluate(model, test), atomo.evaluate(loaded, test)
    assert.same(want, got)
    local out, code = script("evaluate", dir .. " --batch 500")
    assert.equal(0, code, out)
    has(out, "step 8, epoch 2", "model: lenet, 657080 parameters", "1000 images of the test set", "top 5 accuracy 0.",
      "\naccuracy 0.", "loss ")
  end)

  it("classifies image files", function()
    with_file("", ".npy", function(path)
      local images = data.test.images:narrow(1, 1, 2):contiguous()
      images:save_npy(path)
      local out, code = script("predict", ("--weights %s --top 10 %s"):format(dir, path))
      assert.equal(0, code, out)
      has(out, path .. " [1]: ", path .. " [2]: ", "striped disc")
      model:eval()
      local loader = atomo.data.loader {set = data.test, batch = 2, shuffle = false, mean = data.mean, std = data.std}
      local best = atomo.F.softmax(model(loader:epoch(0)().x)):max(2)
      local sum, first = 0, out:match "%[1%]: [^\n]*\n[^\n]-([%d.]+)\n"
      assert.near(best:get(1), tonumber(first), 5e-5)
      for p in out:match("%[1%]:(.-)\n[^ ]"):gmatch " (0%.%d+)" do sum = sum + tonumber(p) end
      assert.near(1, sum, 1e-3)
      with_file("P5 40 50 255\n" .. ("\9"):rep(2000), ".pgm", function(gray)
        out, code = script("predict", ("--weights %s --data synthetic --top 1 %s %s"):format(dir, gray, path))
        assert.equal(0, code, out)
        has(out, gray .. ": ", path .. " [1]: ", path .. " [2]: ")
        assert.equal(7, select(2, out:gsub("\n", ""))) -- the model's line, and two of each image
      end)
      out, code = script("predict", ("--weights %s --classes a,b %s"):format(dir, path))
      assert.equal(1, code)
      has(out, "--classes has 2 names, the network has 10 classes")
    end)
  end)

  it("is shown: folder, checkpoint, tensors, log", function()
    local text = table.concat(contents.describe(dir), "\n")
    has(text, "2 complete checkpoints", "step-4", "step-8", "latest", "best: test_accuracy 0.")
    text = table.concat(contents.describe(dir .. "/step-8"), "\n")
    has(text, "checkpoint of lenet: step 8, epoch 2, 1 rank", "model.safetensors", "sound",
      "8 tensors, 657080 elements", "images: 32 x 32 x 3",
      ("%.4g"):format(model[1].weight:norm():item()), "[20,5,5,3]")
    assert.equal(table.concat(contents.describe(dir .. "/latest"), "\n"), text)
    has(text, "settings: ", " lr=")
    assert.is_nil(text:find("layer_'", 1, true), text) -- settings, not every layer's options
    text = table.concat(contents.describe(log), "\n")
    has(text, "run 1: lenet, compressor none, 1 rank, 8 steps", "test accuracy")
    local out, code = script("inspect", ("%s %s --only 7.weight"):format(dir, dir .. "/step-8/model.safetensors"))
    assert.equal(0, code, out)
    has(out, "model/7.weight", "1 tensor, 625000 elements, 2.50 MB", "format = atomo-checkpoint-2")
    with_file("", ".npy", function(path)
      atomo.tensor({1, -2, 0 / 0}):save_npy(path)
      assert.matches("array +f32 +%[3%] +12 B +nan +nan +nan +1", table.concat(contents.describe(path), "\n"))
    end)
  end)

  it("is written for PyTorch and evaluated from there; gives a model its initial weights", function()
    local open = require("models").open
    with_file("", ".pt", function(path)
      atomo.torch.save(path, model)
      local loaded = trained.model(trained.read(path), "lenet", open)
      for name, t in pairs(model:state_dict()) do assert.equal(t:bytes(), loaded:state_dict()[name]:bytes()) end
      has(table.concat(contents.describe(path), "\n"), "PyTorch state_dict", "[20,3,5,5]", "8 tensors")
      for _, from in ipairs {path, dir} do
        local same, other = open("lenet", {classes = 10}), open("lenet", {classes = 7})
        assert.same({8, {}, "names"}, {initial_weights.load(from, same, 3)})
        assert.equal(model[10].weight:bytes(), same[10].weight:bytes())
        local before = other[10].weight:bytes()
        local count, left_out = initial_weights.load(from, other, 3)
        table.sort(left_out)
        assert.same({6, {"9.bias", "9.weight"}}, {count, left_out})
        assert.equal(before, other[10].weight:bytes())
        assert.equal(model[8].weight:bytes(), other[8].weight:bytes())
        fails({"does not fit the model"}, initial_weights.load, from, open("resnet20", {classes = 10}), 3)
        fails({"does not fit the model", "7.weight is [500,1250]"}, initial_weights.load, from,
          atomo.nn.Sequential {open("lenet", {classes = 10})[1], atomo.nn.MaxPool2d(2), atomo.nn.ReLU(), model[4],
            atomo.nn.MaxPool2d(2), atomo.nn.ReLU(), atomo.nn.Flatten(), atomo.nn.Linear(1250, 400), atomo.nn.ReLU(),
            atomo.nn.Linear(400, 10)}, 3)
      end
      local out, code = script("train_cifar", ("--model lenet --init %s --train-images 20 --batch 20 --epochs 1 " ..
        "--eval-every 0 --lr 0"):format(path))
      assert.equal(0, code, out)
      has(out, ("initial weights: %s, 8 tensors, matched by names\n"):format(path))
    end)
  end)

  it("is evaluated on the data that it was trained on, unless others are named", function()
    local path, classes = checkpoints.path(), checkpoints.path()
    for i, class in ipairs {"one", "two"} do
      os.execute(("mkdir -p %s/%s"):format(classes, class))
      for k = 1, 10 do
        local file = io.open(("%s/%s/%d.pgm"):format(classes, class, k), "wb")
        file:write("P5 20 16 255\n" .. string.char(70 * i + k):rep(320))
        file:close()
      end
    end
    local out, code = script("train_cifar", ("--data %s --test-share 0.3 --model lenet --epochs 1 --batch 4 " ..
      "--lr 0.01 --compress none --threads 1 --save %s"):format(classes, path))
    assert.equal(0, code, out)
    local accuracy = out:match "final test accuracy ([%d.]+)"
    out, code = script("evaluate", path)
    assert.equal(0, code, out)
    has(out, classes:match "[^/]+$" .. ", 6 images of the test set, 2 classes", "\naccuracy " .. accuracy)
    out, code = script("evaluate", path .. " --data synthetic")
    assert.equal(1, code, out)
    has(out, "the network takes images of 16 x 20 x 1")
    os.execute("rm -r " .. classes)
  end)

  it("is not evaluated on images of another shape", function()
    local other = checkpoints.path()
    os.execute(("mkdir -p %s/one %s/two"):format(other, other))
    for _, class in ipairs {"one", "two"} do
      local file = io.open(("%s/%s/1.pgm"):format(other, class), "wb")
      file:write("P5 20 16 255\n" .. ("\7"):rep(320))
      file:close()
    end
    local out, code = script("evaluate", ("%s --data %s"):format(dir, other))
    assert.equal(1, code, out)
    has(out, "the network takes images of 32 x 32 x 3", "have 16 x 20 x 1")
  end)

  it("is refused by name where it is damaged, of another model, or none", function()
    fails({"nowhere", "is not there"}, trained.read, "nowhere")
    fails({"nowhere", "is not there"}, contents.describe, "nowhere")
    fails("holds no resnet20, it is of a run of lenet: missing: conv1.weight", trained.model, trained.read(dir),
      "resnet20", require("models").open)
    with_file("hello, this is text", ".txt", function(path)
      fails({path, "of no known kind"}, contents.describe, path)
      fails({path, "safetensors: "}, trained.read, path)
    end)
    local file = dir .. "/step-8/model.safetensors"
    local bytes = checkpoints.bytes(file)
    checkpoints.with_bytes(file, bytes:sub(1, -2) .. "!", function()
      fails({"model.safetensors is damaged"}, trained.read, dir)
      local ok, lines = pcall(contents.describe, dir .. "/step-8")
      has(ok and table.concat(lines, "\n") or lines, "model.safetensors is damaged")
    end)
    checkpoints.with_bytes(file, checkpoints.bytes(dir .. "/step-4/model.safetensors"), function()
      fails("step-8: model.safetensors is damaged", trained.read, dir)
    end)
    checkpoints.with_bytes(dir .. "/step-8/manifest", nil, function()
      assert.equal(4, trained.read(dir).step)
      fails("step-8 is no complete checkpoint", trained.read, dir .. "/step-8")
    end)
  end)
end)
