--- Evaluates a checkpoint or a file of weights on a test set: loss, accuracy, top-5 accuracy.
--   build/atomo-lua scripts/evaluate.lua run/best --data cifar-10-batches-bin
local atomo = require "atomo"
local cli = atomo.cli
local script = require "atomo.tools.script"
local trained = require "atomo.tools.trained"

local models = require "models"

local opts = cli.parse {
  name = "evaluate.lua",
  about = "Evaluates a trained network on a test set, over MPI ranks: loss, accuracy and top-5 accuracy.",
  examples = {
    "build/atomo-lua scripts/evaluate.lua run",
    "build/atomo-lua scripts/evaluate.lua run/best --data cifar-10-batches-bin",
    "mpirun -n 2 build/atomo-lua scripts/evaluate.lua run/step-120 --data cifar-10-batches-bin --on train",
    "build/atomo-lua scripts/evaluate.lua weights.safetensors --model resnet20 --data cifar-10-batches-bin",
  },
  options = {
    {"data", "string", "", "folder of a data set, as train_cifar.lua takes it, or synthetic; if absent: that of the " ..
      "run that saved the weights, else the synthetic set"},
    {"test-share", "number", 0, "part of the data that the training held out for tests, if they have no test part; " ..
      "0: as the run says, else 0.1", min = 0, max = 0.9},
    {"on", "choice", "test", "which part of the data set", choices = {"test", "train"}},
    {"model", "string", "", "network: resnet20, ..., or a file my_model.lua; if absent: that of the run that saved it"},
    {"batch", "int", 250, "images per rank and step", min = 1, unit = "images"},
    {"top", "int", 5, "also count images whose label is among the N largest logits", min = 1},
    {"threads", "int", 0, "threads of each rank; 0: cores of the host / ranks on it", min = 0, unit = "threads"},
  },
  positional = {{"weights", "string", nil, "folder of checkpoints (its newest), DIR/best, DIR/step-N, or a file: " ..
    ".safetensors, .npz, .pt, .pth (PyTorch's)", required = true}},
}

local world, say = atomo.mpi.world, script.say
local threads = script.set_threads(opts.threads)
local found = trained.read(opts.weights)
local run = found.settings
local data = atomo.data.open(opts.data ~= "" and opts.data or run.data or "")
if not data.test then
  local share = opts.test_share > 0 and opts.test_share or run.test_share or 0.1
  data.train, data.test = atomo.data.split(data.train, share)
end
local model, name = trained.model(found, opts.model, models.open, data.shape)
local set, from = data[opts.on], found.inputs.shape and found.inputs or data
local function shape_text(shape) return table.concat(shape or {}, " x ") end
if found.inputs.shape and shape_text(found.inputs.shape) ~= shape_text(data.shape) then
  error(("evaluate.lua: the network takes images of %s, those of %s have %s: name the data, --data DIR"):format(
    shape_text(found.inputs.shape), data.name, shape_text(data.shape)), 0)
end
local are_images = set.images ~= nil or set.get ~= nil and #data.shape == 3
local loader = atomo.data.loader {set = set, batch = opts.batch, rank = world.rank, size = world.size,
  shuffle = false, mean = are_images and from.mean or nil, std = are_images and from.std or nil}

say("weights: %s%s", found.path, found.step and (", step %d, epoch %d"):format(found.step, found.epoch) or "")
say("model: %s, %d parameters; ranks: %d, threads a rank: %d", name, model:num_parameters(), world.size, threads)
local result = atomo.evaluate(model, loader, {top = opts.top})
say("data: %s, %d images of the %s set, %d classes", data.name, result.n, opts.on, data.classes)
say("loss %.4f", result.loss)
say("top %d accuracy %.4f", opts.top, result["top" .. opts.top])
say("accuracy %.4f", result.accuracy)
