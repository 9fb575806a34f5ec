--- Shared by the training scripts (scripts/train_*.lua): common options, threads of a rank, the exchange, and the
-- arguments of atomo.train that follow from these options.
local f = require "atomo.ffi"
local files = require "atomo.core.files"
local mpi = require "atomo.comm.mpi"
local settings = require "atomo.tools.settings"
local cli = require "atomo.tools.cli"
local compress = require "atomo.compress"
local precision = require "atomo.autograd.precision"
local T = require "atomo.tensor"
local renamed = require("atomo.core.renamed").exchange

local M = {}

local topologies = {"auto", "allreduce", "allgather", "ps", "sharded", "hierarchical", "default"}

local function compressor_names()
  local names = {}
  for i, entry in ipairs(compress.compressors()) do names[i] = entry.name end
  return table.concat(names, ", ")
end

--- Returns a script's own options followed by those of all training scripts, for cli.parse.
---@param own table[]
---@param d {compress: string, eval_every: integer, unit: string}  this script's defaults; unit: what a batch has
function M.options(own, d)
  local all = {}
  for _, option in ipairs(own) do all[#all + 1] = option end
  for _, option in ipairs {
    {"compress", "string", d.compress, "compressor of the gradients, with options: svd:ratio=64,bits=8. One of " ..
      compressor_names() .. ". none: send them dense; adaptive: choose by measured times",
      was_value = renamed.compress.values},
    {"load", "string", nil, "Lua file that declares compressors (scripts/atoms has examples); runs " ..
      "first", repeated = true,
      metavar = "FILE"},
    {"topology", "choice", "default", "who sends what to whom; default: allreduce for dense gradients, allgather " ..
      "for messages; auto: choose by measured times", choices = topologies, was_value = renamed.topology.values},
    {"downlink", "choice", "dense", "with --topology ps: how rank 0 sends the average " ..
      "back", choices = {"dense", "compress"}, was = renamed.downlink.was},
    {"inter-node", "choice", "auto", "with --topology hierarchical: topology between hosts",
      choices = {"auto", "allreduce", "allgather", "ps", "sharded"}, was = renamed.inter_node.was},
    {"fuse-small", "choice", "auto", "biases, norms and small tensors: send them dense, or compress them together; " ..
      "auto: compress them if the compressor is auto, else dense", choices = {"auto", "dense", "compress"},
      was = renamed.fuse_small.was},
    {"accumulate", "int", 1, ("add up the gradients of N micro-batches of --batch %s before an " ..
      "exchange"):format(d.unit), min = 1},
    {"local-steps", "int", 0, "average the parameters' change every N steps (DiLoCo); 0: average gradients every step",
      min = 0, unit = "steps"},
    {"outer-lr", "number", 0.7, "with --local-steps: learning rate of the outer optimizer, which applies the " ..
      "averaged change", min = 0},
    {"outer-momentum", "number", 0.9, "with --local-steps: Nesterov momentum of the outer optimizer", min = 0, max = 1},
    {"sharded-optimizer", "flag", false, "keep 1/P of the optimizer's state on each of P ranks (ZeRO-1); same " ..
      "result, and each step also sends the weights. Not with --local-steps"},
    {"sharded-weights", "choice", "fp32", "with --sharded-optimizer: how a step sends the weights; bf16: their " ..
      "change rounded to 16 bits, in half the bytes", choices = {"fp32", "bf16"}},
    {"overlap", "flag", true, "turn off exchanging during backward: exchange after it"},
    {"message-buckets", "int", 0, "parts in which a step's messages are sent; fewer wait less on links of high " ..
      "latency, more overlap with backward; 0: 6, or 3 over sharded, or what topology auto chooses", min = 0, max = 64},
    {"precision", "choice", "fp32", "format of the operands of matrix products; bf16: rounded to 16 bits, which " ..
      "CPUs with AMX or AVX512-BF16 multiply faster. Weights, sums and the optimizer are fp32",
      choices = {"fp32", "bf16"}},
    {"activations", "choice", "fp32", "with --precision bf16: format of what layers keep for backward; bf16: 16 " ..
      "bits, which takes less memory and more time", choices = {"fp32", "bf16"}},
    {"seed", "int", 0, "seed of initial weights, data order, augmentation, dropout and sampling", min = 0},
    {"threads", "int", 0, "threads of each rank; 0: cores of the host / ranks on it", min = 0, unit = "threads"},
    {"config", "string", nil, "settings from a file: *.lua that returns {batch = 64, [\"weight-decay\"] = 0}, or " ..
      "*.json; the command line overrides them", metavar = "FILE", reads = settings.config},
    {"repeat", "string", nil, "settings of an earlier run: a log (*.jsonl, its last run) or a folder of " ..
      "checkpoints; --config and the command line override them; where it saved, logged and resumed from is left out",
      metavar = "RUN", reads = settings.of_run},
    {"save", "string", "", "folder of checkpoints, each a folder step-N that is complete or absent; latest and " ..
      "best name one of them. SIGUSR1 saves, SIGTERM saves and stops with exit code 75", metavar = "DIR",
      per_run = true},
    {"save-every", "string", "", "steps between checkpoints, or a time: 30s, 10m, 2h; none: every epoch. Also at " ..
      "the end of the run, and when a test result is the best so far", metavar = "N|TIME", per_run = true},
    {"keep", "int", 3, "newest checkpoints to keep, besides latest and best; 0: all", min = 0},
    {"resume", "string", "", "DIR: its newest checkpoint; DIR/step-N: that one; auto: the newest of --save, else a " ..
      "fresh start. The run ends bit-identical to one that was not stopped", metavar = "DIR|auto", per_run = true},
    {"log", "string", "", "JSONL file, to which a line per run, step and epoch is appended", metavar = "FILE",
      per_run = true},
    {"csv", "string", "", "file of comma-separated values: a row per step and epoch is appended", metavar = "FILE",
      per_run = true},
    {"tensorboard", "string", "", "folder for a TensorBoard event file: loss, accuracy, speed, bytes, variance, times",
      metavar = "DIR", per_run = true},
    {"profile", "flag", false, "print rank 0's time in each operator, forward and backward, over steps 3 to 12"},
    {"check-replicas", "flag", false, "check every 100 steps and every epoch that all replicas are bit-identical"},
    {"eval-every", "int", d.eval_every, "evaluate on the test set every N epochs; 0: never", min = 0, unit = "epochs"},
    {"max-steps", "int", 0, "stop after N steps; the schedule ends there too; 0: no limit", min = 0, unit = "steps"},
    {"stop-after", "int", 0, "stop after N steps, with the schedule of the whole run: they are bit-identical to its " ..
      "first N; 0: no limit", min = 0, unit = "steps"},
    {"stall-warn", "number", 60, "warn after X seconds without progress, naming the ranks that are missing; 0: never",
      min = 0, unit = "seconds"},
    {"stall-abort", "number", 600, "end the job after X seconds without progress; 0: never", min = 0, unit = "seconds"},
    {"flight-prefix", "string", "flight", "when --stall-abort ends the job, write each rank's last operations to " ..
      "PREFIX-rankN.jsonl", metavar = "PREFIX", was = renamed.flight_prefix.was},
    {"nonfinite", "choice", "abort", "what to do about NaN or Inf in loss or gradient: end the job, or skip " ..
      "the step", choices = {"abort", "skip"}},
  } do all[#all + 1] = option end
  return all
end

--- Sets this rank's number of threads; returns it.
---@param wanted integer  0: this host's cores / its ranks, at most the cores that this rank is bound to
function M.set_threads(wanted)
  local C, world = f.C, mpi.world
  local ranks, bound, cores = world.local_size, C.atomo_num_cores(), C.atomo_num_host_cores()
  local threads = wanted > 0 and wanted or math.max(1, math.min(bound, math.floor(cores / ranks)))
  T.set_num_threads(threads)
  if world.local_rank == 0 and (threads * ranks > cores or threads > bound) then
    io.stderr:write(("warning: %d ranks of %d threads on %s, which has %d cores (a rank may use %d): " ..
      "oversubscribed, expect slow steps\n"):format(ranks, threads, world.hostname, cores, bound))
  end
  return threads
end

--- Prints a formatted line on rank 0.
function M.say(...)
  if mpi.world.rank == 0 then files.say(string.format(...)) end
end

--- Runs the files of --load, Lua files that declare compressors. Raises for one that cannot be read.
---@param paths string[]
function M.load(paths)
  for _, path in ipairs(paths) do
    local file, why = io.open(path)
    if not file then error(("--load: %s; expected the path of a Lua file that declares compressors"):format(why), 0) end
    file:close()
    dofile(path)
  end
end

--- Sets threads and seed, runs the files of --load; returns the number of threads.
function M.begin(opts)
  local threads = M.set_threads(opts.threads)
  M.load(opts.load)
  T.manual_seed(opts.seed)
  if opts.activations == "bf16" and opts.precision ~= "bf16" then
    error("--activations bf16 wants --precision bf16", 0)
  end
  if opts.sharded_weights == "bf16" and not opts.sharded_optimizer then
    error("--sharded-weights bf16 wants --sharded-optimizer", 0)
  end
  precision.set_activations(opts.activations)
  return threads
end

--- Opens the exchange; also returns a text about it, "compressor ..., topology ...".
function M.exchange(opts)
  local exchange = require("atomo.exchange").exchange {compress = opts.compress, topology = opts.topology,
    overlap = opts.overlap, downlink = cli.given(opts, "down") and opts.down or nil, inter_node = opts.inner,
    message_buckets = opts.message_buckets > 0 and opts.message_buckets or nil,
    fuse_small = opts.small, seed = opts.seed, stall_warn = opts.stall_warn, stall_abort = opts.stall_abort,
    flight_prefix = opts.flight}
  local by_clock = exchange.notify
  return exchange, ("compressor %s, topology %s"):format(by_clock and opts.compress or tostring(exchange.compressor),
    by_clock and "chosen by measured times" or exchange.topology)
end

local function given(text) return text ~= "" and text or nil end

--- Returns the steps of the schedule, and the number after which the run stops.
---@param epoch_steps integer  micro-batches per epoch
function M.steps(opts, epoch_steps)
  local total = math.ceil(epoch_steps / opts.accumulate) * opts.epochs
  if opts.max_steps > 0 then total = math.min(total, opts.max_steps) end
  return total, opts.stop_after > 0 and math.min(total, opts.stop_after) or total
end

--- Prints how this machine multiplies, unless it is in fp32.
local function say_precision(opts)
  if opts.precision == "fp32" then return end
  local text, fast = precision.describe()
  M.say("%sprecision: %s", fast and "" or "warning: ", text)
end

--- Adds arguments of atomo.train that follow from the common options to t. last: the step after which the run stops.
function M.arguments(opts, last, t)
  t.accumulate, t.local_steps = opts.accumulate, opts.local_steps
  t.sharded_optimizer = opts.sharded_optimizer and (opts.sharded_weights == "bf16" and "bf16" or true)
  t.outer = opts.local_steps > 0 and {lr = opts.outer_lr, momentum = opts.outer_momentum} or nil
  t.epochs, t.eval_every, t.precision = opts.epochs, opts.eval_every, opts.precision
  say_precision(opts)
  t.max_steps = (opts.max_steps > 0 or opts.stop_after > 0) and last or nil
  t.check_replicas, t.nonfinite = opts.check_replicas or nil, opts.nonfinite
  t.save, t.resume, t.log, t.settings = given(opts.save), given(opts.resume), given(opts.log), opts
  t.csv, t.tensorboard = given(opts.csv), given(opts.tensorboard)
  t.save_every, t.keep = given(opts.save_every), t.save and opts.keep or nil
  t.on_step = opts.profile and mpi.world.rank == 0 and require("atomo.tools.profile").hook(last, files.say) or nil
  return t
end

return M
