--- Trains a network on CIFAR, the built-in synthetic set or data of the user's, over MPI ranks, with gradients
-- compressed by ATOMO.
--   mpirun -n 2 build/atomo-lua scripts/train_cifar.lua
local atomo = require "atomo"
local cli = atomo.cli
local initial_weights = require "atomo.tools.initial_weights"
local script = require "atomo.tools.script"

local models = require "models"

local opts = cli.parse {
  name = "train_cifar.lua",
  about = "Trains a network on CIFAR-10/100, other sets and your own data (--data), or the built-in synthetic set, " ..
    "over MPI ranks.",
  examples = {
    "mpirun -n 2 build/atomo-lua scripts/train_cifar.lua",
    "mpirun -n 4 build/atomo-lua scripts/train_cifar.lua --data cifar-10-batches-bin --model resnet18 " ..
      "--compress svd:ratio=64,bits=8 --epochs 30",
    "build/atomo-lua scripts/train_cifar.lua --data my_images --model lenet --test-share 0.2",
    "build/atomo-lua scripts/train_cifar.lua --compress none --log run.jsonl",
    "build/atomo-lua scripts/train_cifar.lua --compress none --conv direct",
    "build/atomo-lua scripts/train_cifar.lua --compress entry:ratio=16 --max-steps 20 --eval-every 0",
    "mpirun -n 2 build/atomo-lua scripts/train_cifar.lua --save run --save-every 10m --resume auto",
    "build/atomo-lua scripts/train_cifar.lua --model resnet18 --init resnet18.pth --data cifar-10-batches-bin",
    "build/atomo-lua scripts/train_cifar.lua --load scripts/atoms/head_tail.lua --compress head_tail:ratio=32,rank=2",
  },
  options = script.options({
    {"data", "string", "", "folder of CIFAR, MNIST or SVHN files, of class folders of images or of X.npy and y.npy; or "
      .. "a file: .npz, .csv, .mat, or .lua that returns data (docs/data.md); if absent: the synthetic set",
      metavar = "PATH"},
    {"test-share", "number", 0.1, "part of the data that is held out for tests, if they have no test part", above = 0,
      max = 0.9},
    {"init", "string", "", "initial weights: a checkpoint, or a file .safetensors, .npz, .pt or .pth (PyTorch's); " ..
      "the last layer may be of another number of classes", metavar = "FILE"},
    {"model", "string", "resnet20", "network: " .. table.concat(models.names(), ", ") .. "; or a file my_model.lua"},
    {"epochs", "int", 5, "passes over the training set", min = 1, unit = "epochs"},
    {"batch", "int", 64, "images per rank and step", min = 1, unit = "images"},
    {"lr", "number", 0.1, "learning rate at the start, after warm-up", min = 0},
    {"momentum", "number", 0.9, "momentum of SGD", min = 0, max = 1},
    {"weight-decay", "number", 5e-4, "weight decay of SGD, on all parameters", min = 0},
    {"nesterov", "flag", false, "use Nesterov momentum"},
    {"schedule", "choice", "cosine", "learning rate schedule", choices = {"constant", "cosine", "step"}},
    {"warmup", "int", 0, "raise the learning rate linearly over the first N steps", min = 0, unit = "steps"},
    {"conv", "choice", "default", "engine of the convolutions; default: ATOMO_CONV, else auto: Winograd where it pays",
      choices = {"default", "auto", "direct", "winograd", "onednn", "gemm"}},
    {"augment", "flag", true, "turn off random crop (4 pixels) and flip"},
    {"train-images", "int", 5000, "images of the synthetic training set", min = 1, unit = "images"},
  }, {compress = "auto:ratio=64", eval_every = 1, unit = "images"}),
}

local world, say = atomo.mpi.world, script.say

local function make_schedule(steps)
  local s = {lr = opts.lr, warmup = opts.warmup}
  if opts.schedule == "cosine" then s.steps = steps end
  if opts.schedule == "step" then s.every = math.max(1, math.ceil(steps / 3)) end
  return atomo.schedule[opts.schedule](s)
end

local threads = script.begin(opts)
if opts.conv ~= "default" then atomo.nn.set_conv_engine(opts.conv) end
local data = atomo.data.open(opts.data, opts.data == "" and {train = opts.train_images} or nil)
if not data.classes then
  error("train_cifar.lua: the data have no classes, see docs/data.md for regression" .. (data.train.get and
    "; a set of your own has their number in its field classes" or ""), 0)
end
if not data.test then data.train, data.test = atomo.data.split(data.train, opts.test_share) end
local model = models.open(opts.model, {classes = data.classes, shape = data.shape})
local are_images = data.train.images ~= nil or data.train.get ~= nil and #data.shape == 3

local function loader(set, training)
  return atomo.data.loader {set = set, batch = training and opts.batch or 250, rank = world.rank, size = world.size,
    seed = opts.seed, shuffle = training, mean = are_images and data.mean or nil, std = are_images and data.std or nil,
    augment = training and opts.augment and are_images and {crop = 4, flip = true} or false}
end

local function count(set) return set.n or set:size() end

local train_loader, test_loader = loader(data.train, true), loader(data.test, false)

local initial
if opts.init ~= "" then
  local loaded, left_out, matched = initial_weights.load(opts.init, model, data.shape[3])
  initial = ("initial weights: %s, %d tensors, matched by %s%s"):format(opts.init, loaded, matched,
    #left_out > 0 and "; of another number of classes: " .. table.concat(left_out, ", ") or "")
end

local exchange, how = script.exchange(opts)

say("%s", cli.echo(opts))
say("data: %s, %d training and %d test images, %d classes", data.name, count(data.train), count(data.test),
  data.classes)
say("model: %s, %d parameters, gradient %.2f MB; %s", opts.model, model:num_parameters(),
  4 * model:num_parameters() / 1e6, how)
if initial then say("%s", initial) end
say("ranks: %d, threads a rank: %d, convolutions: %s", world.size, threads, atomo.nn.conv_engine())
say("versions: %s", atomo.version_text())

local total, last = script.steps(opts, train_loader.steps)
atomo.train(script.arguments(opts, last, {
  model = model, data = {train = train_loader, test = test_loader, names = data.names},
  exchange = exchange,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = opts.lr, momentum = opts.momentum,
    weight_decay = opts.weight_decay, nesterov = opts.nesterov},
  schedule = make_schedule(total),
}))
