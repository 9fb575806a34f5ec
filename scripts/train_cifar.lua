--- Trains a network on CIFAR (or the built-in synthetic set) over MPI ranks, gradients compressed with ATOMO.
-- The main job: mpirun -n 2 build/atomo-lua scripts/train_cifar.lua
local atomo = require "atomo"
local cli = atomo.cli

local models = require "models"

local opts = cli.parse {
  name = "train_cifar.lua",
  about = "Trains a network on CIFAR-10/100 (--data) or the built-in synthetic set, over MPI ranks.",
  examples = {
    "mpirun -n 2 build/atomo-lua scripts/train_cifar.lua",
    "mpirun -n 4 build/atomo-lua scripts/train_cifar.lua --data cifar-10-batches-bin --model resnet18 " ..
      "--compress svd:ratio=64,bits=8 --epochs 30",
    "build/atomo-lua scripts/train_cifar.lua --compress none --log run.jsonl",
    "build/atomo-lua scripts/train_cifar.lua --compress none --conv direct",
    "build/atomo-lua scripts/train_cifar.lua --compress entry:ratio=16 --max-steps 20 --eval-every 0",
    "build/atomo-lua scripts/train_cifar.lua --load scripts/atoms/head_tail.lua --compress head_tail:ratio=32,rank=2",
  },
  options = {
    {"data", "string", "", "folder with the binary files of CIFAR-10 or CIFAR-100; none: the synthetic set"},
    {"model", "string", "resnet20", "network: lenet, mlp, resnet18, resnet20, vgg11, ..., or a file my_model.lua"},
    {"epochs", "int", 5, "passes over the training set", min = 1, unit = "epochs"},
    {"batch", "int", 64, "images of one rank in one step", min = 1, unit = "images"},
    {"lr", "number", 0.1, "learning rate at the start (after warm-up)", min = 0},
    {"momentum", "number", 0.9, "of SGD", min = 0, max = 1},
    {"weight-decay", "number", 5e-4, "of SGD, on all parameters", min = 0},
    {"nesterov", "flag", false, "Nesterov's momentum"},
    {"schedule", "choice", "cosine", "learning rate over the run", choices = {"constant", "cosine", "step"}},
    {"warmup", "int", 0, "steps of linear warm-up", min = 0, unit = "steps"},
    {"compress", "string", "svd:ratio=16,bits=8", "compressor of the gradients; none: dense; auto: by measured times"},
    {"load", "string", nil, "Lua file to run first: one's own compressors, as in scripts/atoms", repeated = true,
      metavar = "FILE"},
    {"topology", "choice", "standard", "how messages travel; auto: by measured times",
      choices = {"auto", "allreduce", "allgather", "ps", "sharded", "hierarchical", "standard"}},
    {"down", "choice", "dense", "the way back from a ps", choices = {"dense", "compress"}},
    {"inner", "choice", "auto", "topology between the hosts of a hierarchical one",
      choices = {"auto", "allreduce", "allgather", "ps", "sharded"}},
    {"small", "choice", "auto", "biases, norms and small tensors: dense, or joined into one message of the budget; " ..
      "auto: joined with the compressor auto", choices = {"auto", "dense", "compress"}},
    {"overlap", "flag", true, "exchange while backward goes on"},
    {"conv", "choice", "", "what computes convolutions; none: ATOMO_CONV, or auto: Winograd where it pays",
      choices = {"", "auto", "direct", "winograd", "onednn", "gemm"}},
    {"augment", "flag", true, "random crop (padding 4) and flip"},
    {"seed", "int", 0, "of weights, order, augmentation and sampling", min = 0},
    {"threads", "int", 0, "threads a rank; 0: cores / ranks on this host", min = 0, unit = "threads"},
    {"train-images", "int", 5000, "size of the synthetic training set", min = 1, unit = "images"},
    {"save", "string", "", "checkpoint (safetensors), rewritten after every epoch"},
    {"resume", "string", "", "checkpoint to go on from; ends with the same bits as a run that was not stopped"},
    {"log", "string", "", "JSONL file to append a line a step, an epoch and a run to"},
    {"check-replicas", "flag", false, "assert that all ranks hold the same bits, every 100 steps and epoch"},
    {"eval-every", "int", 1, "epochs between evaluations; 0: never", min = 0, unit = "epochs"},
    {"max-steps", "int", 0, "stop after so many steps; 0: no limit", min = 0, unit = "steps"},
    {"stop-after", "int", 0, "as --max-steps, but with the schedule of the whole run: its first steps, bit for bit",
      min = 0, unit = "steps"},
    {"nonfinite", "choice", "abort", "on NaN or Inf in loss or gradient", choices = {"abort", "skip"}},
  },
}

local world = atomo.mpi.world

--- Says something once.
local function say(...)
  if world.rank == 0 then print(string.format(...)) end
end

--- The default is this host's cores shared by its ranks, no more than this rank is bound to.
local function set_threads()
  local C, ranks = require("atomo.ffi").C, world.local_size
  local bound, cores = C.atomo_num_cores(), C.atomo_num_host_cores()
  local threads = opts.threads > 0 and opts.threads or math.max(1, math.min(bound, math.floor(cores / ranks)))
  atomo.set_num_threads(threads)
  if world.local_rank == 0 and (threads * ranks > cores or threads > bound) then
    io.stderr:write(("warning: %d ranks of %d threads on %s, which has %d cores (a rank may use %d): " ..
      "oversubscribed, expect slow steps\n"):format(ranks, threads, world.hostname, cores, bound))
  end
  return threads
end

local function given(text) return text ~= "" and text or nil end

local function make_schedule(steps)
  local s = {lr = opts.lr, warmup = opts.warmup, steps = steps, every = math.max(1, math.ceil(steps / 3))}
  return atomo.schedule[opts.schedule](s)
end

local threads = set_threads()
if opts.conv ~= "" then atomo.nn.set_conv_engine(opts.conv) end
for _, file in ipairs(opts.load) do dofile(file) end
atomo.manual_seed(opts.seed)
local data = atomo.data.open(opts.data, opts.data == "" and {train = opts.train_images} or nil)
local model = models.open(opts.model, {classes = data.classes})

local function loader(set, training)
  return atomo.data.loader {set = set, batch = training and opts.batch or 250, rank = world.rank, size = world.size,
    seed = opts.seed, shuffle = training, augment = training and opts.augment and {crop = 4, flip = true} or false,
    mean = data.mean, std = data.std}
end
local train_loader, test_loader = loader(data.train, true), loader(data.test, false)

local exchange = atomo.exchange {compress = opts.compress, topology = opts.topology, overlap = opts.overlap,
  down = cli.given(opts, "down") and opts.down or nil, inner = opts.inner, small = opts.small, seed = opts.seed}
local parameters = 0
for _, p in ipairs(model:parameters()) do parameters = parameters + p:numel() end

say("%s", cli.echo(opts))
say("data: %s, %d training and %d test images, %d classes", data.name, data.train.n, data.test.n, data.classes)
say("model: %s, %d parameters, gradient %.2f MB; compressor %s, topology %s", opts.model, parameters,
  4 * parameters / 1e6, exchange.notify and opts.compress or tostring(exchange.compressor),
  exchange.notify and "chosen by measured times" or exchange.topology)
say("ranks: %d, threads a rank: %d, convolutions: %s", world.size, threads, atomo.nn.conv_engine())
say("versions: %s", atomo.version_text())

local total = train_loader.steps * opts.epochs
if opts.max_steps > 0 then total = math.min(total, opts.max_steps) end
local last = opts.stop_after > 0 and math.min(total, opts.stop_after) or total
atomo.train {
  model = model, data = {train = train_loader, test = test_loader}, exchange = exchange,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = opts.lr, momentum = opts.momentum,
    weight_decay = opts.weight_decay, nesterov = opts.nesterov},
  schedule = make_schedule(total), epochs = opts.epochs, eval_every = opts.eval_every,
  max_steps = (opts.max_steps > 0 or opts.stop_after > 0) and last or nil, check_replicas = opts.check_replicas or nil,
  nonfinite = opts.nonfinite, save = given(opts.save), resume = given(opts.resume), log = given(opts.log),
  settings = opts,
}
