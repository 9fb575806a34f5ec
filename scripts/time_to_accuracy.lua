#!/usr/bin/env atomo-lua
--- Compares compressors by training: test accuracy against time and bytes, time to given accuracies, speed-ups, and a
-- comparison with the ATOMO paper's claims. Each run is a separate job with its own log, so that this script resumes
-- when it is started again.
local atomo = require "atomo"
local files = require "atomo.core.files"
local renamed = require("atomo.core.renamed").exchange
local plan = require "atomo.tools.experiment.plan"
local curve = require "atomo.tools.experiment.curve"
local claims = require "atomo.tools.experiment.claims"
local summary = require "atomo.tools.experiment.summary"
local process = require "atomo.tools.experiment.process"
local log, clock_now = atomo.log, require("atomo.ffi").C.atomo_time

local opts = atomo.cli.parse {
  name = "time_to_accuracy.lua",
  about = "Trains one network with each compressor in turn and compares the runs. train_cifar.lua runs on this " ..
    "machine, on a shaped network of namespaces (--net RATE) or on a cluster (--launch). Start it without mpirun. " ..
    "Finished runs are kept in --out and not repeated.",
  examples = {
    "build/atomo-lua scripts/time_to_accuracy.lua --out runs/tta --epochs 4 --compress 'none entry:ratio=16'",
    "build/atomo-lua scripts/time_to_accuracy.lua --net 100mbit --ranks 4 --model vgg11 --data cifar-10-batches-bin " ..
      "--compress 'none svd:ratio=64,bits=4 qsgd:bits=4 terngrad' --lr 0.05,0.1 --seeds 0,1,2",
    "build/atomo-lua scripts/time_to_accuracy.lua --launch 'srun -n 64 --mpi=pmix' --ranks 64 --model resnet18",
    "build/atomo-lua scripts/time_to_accuracy.lua --out runs/tta --epochs 4 --compress 'none entry:ratio=16' --report",
  },
  options = {
    {"out", "string", "runs/time_to_accuracy", "folder of logs, tables and charts", metavar = "DIR"},
    {"compress", "string", nil, "compressors, separated by spaces, each SPEC or SPEC@TOPOLOGY; if absent: dense, " ..
      "and spectral ATOMO, QSGD and TernGrad at several budgets", repeated = true, metavar = "SPECS"},
    {"net", "string", "none", "link rate of a netlab.sh network with one rank per host (needs root); none: the " ..
      "ranks share this machine's memory", metavar = "RATE"},
    {"launch", "string", "", "command that starts the ranks, instead of mpirun or netlab.sh", metavar = "COMMAND"},
    {"ranks", "int", 2, "ranks", min = 1},
    {"time-steps", "int", 0, "train in shared memory and time N steps of each compressor on the network, whose " ..
      "losses must be bit-identical; 0: train on the network", min = 0, unit = "steps"},
    {"warm", "int", 3, "with --time-steps: the first N of them are not timed", min = 0, unit = "steps"},
    {"model", "string", "resnet20", "network of models/, or a file"},
    {"data", "string", "", "folder with the binary files of CIFAR-10 or CIFAR-100; if absent: the synthetic set",
      metavar = "DIR"},
    {"epochs", "int", 10, "passes over the training set", min = 1, unit = "epochs"},
    {"batch", "int", 64, "images per rank and step", min = 1, unit = "images"},
    {"lr", "list", {0.1}, "learning rates; each compressor is given the one with its best final accuracy",
      of = "number", above = 0},
    {"search-epochs", "int", 0, "epochs of the runs that choose the learning rate, with the first seed; 0: as --epochs",
      min = 0, unit = "epochs"},
    {"seeds", "list", {0}, "seeds; times are medians over them, accuracies means", of = "int", min = 0},
    {"topology", "string", "default", "topology of the compressors that name none",
      was_value = renamed.topology.values},
    {"threads", "int", 1, "threads of each rank", min = 1},
    {"train", "string", "", "more options of train_cifar.lua: --train='--warmup 20 --no-augment'",
      metavar = "OPTIONS"},
    {"reach", "list", {0.5, 0.6}, "test accuracies to compare the times of", of = "number", above = 0, max = 1},
    {"negligible", "number", 0.01, "largest loss of accuracy that counts as none", min = 0, max = 1},
    {"limit", "number", 0, "end a run after X seconds and count it as failed; 0: no limit", min = 0, unit = "s"},
    {"report", "flag", false, "only print the results of finished runs in --out, which the other options select"},
  },
}

local function refuse(...)
  io.stderr:write("time_to_accuracy.lua: ", string.format(...), "\n")
  os.exit(2)
end

local default_compressors = "none svd:ratio=16,bits=8 svd:ratio=64,bits=4 svd:ratio=256,bits=4 entry:ratio=64 " ..
  "taps:ratio=64 qsgd:bits=8 qsgd:bits=4 qsgd:bits=2 terngrad"

--- Returns the settings for plan.run; refuses options that exclude each other.
local function settings()
  if require("atomo.ffi").C.atomo_mpi_launched() == 1 then
    refuse("start it without mpirun: it starts mpirun itself, once a run")
  end
  if opts.launch ~= "" and opts.net ~= "none" then refuse("give one of --launch and --net") end
  if opts.time_steps > 0 and opts.time_steps <= opts.warm then
    refuse("--time-steps is %d, expected more than --warm, which is %d", opts.time_steps, opts.warm)
  end
  if opts.time_steps > 0 and opts.net == "none" and opts.launch == "" then
    refuse("--time-steps needs a network to measure on: --net or --launch")
  end
  local scripts, program = arg[0]:match "^(.*)/[^/]*$" or ".", 0
  while arg[program - 1] do program = program - 1 end
  local here = {prefix = ("sh %s -n %d"):format(process.word(scripts .. "/mpirun.sh"), opts.ranks),
    name = "shared memory"}
  local network = here
  if opts.launch ~= "" then
    network = {prefix = opts.launch, name = opts.launch}
  elseif opts.net ~= "none" then
    network = {prefix = ("sh %s run %d %s --"):format(process.word(scripts .. "/netlab.sh"), opts.ranks,
      process.word(opts.net)), name = "links of " .. opts.net}
  end
  return {folder = opts.out, program = arg[program], script = scripts .. "/train_cifar.lua", network = network,
    here = opts.time_steps > 0 and here or nil, ranks = opts.ranks, batch = opts.batch, model = opts.model,
    data = opts.data, threads = opts.threads, topology = opts.topology, train = opts.train,
    clock_steps = opts.time_steps}
end

local function compressors()
  local list, text = {}, table.concat(opts.compress, " ")
  for item in (text:find "%S" and text or default_compressors):gmatch "%S+" do list[#list + 1] = item end
  return list
end

-- ---- running ------------------------------------------------------------------------------------------------------

local common = settings()
local done = {} -- path of a complete log -> its events

--- Returns the events of a run, after executing it if necessary; nil and the reason if it failed.
local function obtain(run, note)
  if done[run.path] then return done[run.path] end
  local state, what = plan.state(run)
  if state ~= "done" and not opts.report then
    local from = clock_now()
    io.write(("%s  %s seed %d lr %g, %s: "):format(os.date "%H:%M:%S", run.item, run.seed, run.lr, note))
    io.flush()
    local ok, why = plan.carry_out(run, opts.limit > 0 and opts.limit or nil)
    print(ok and ("done in %s"):format(log.duration(clock_now() - from)) or "FAILED: " .. why)
    state, what = plan.state(run)
  end
  if state == "done" then
    done[run.path] = what
    return what
  end
  return nil, state == "failed" and what or nil
end

--- Returns the learning rate of a row: the best one in a search, which is skipped if only one is given.
local function choose_lr(row)
  if #opts.lr == 1 then return opts.lr[1] end
  local best
  row.search = {}
  for _, lr in ipairs(opts.lr) do
    local run = plan.run(common, "train", row.item, lr, opts.seeds[1],
      opts.search_epochs > 0 and opts.search_epochs or opts.epochs)
    local events, why = obtain(run, "search of the learning rate")
    local final = events and curve.read(events).final
    row.search[lr] = final
    if why then row.failures[#row.failures + 1] = {name = run.name, why = why} end
    if final and (not best or final > row.search[best]) then best = lr end
  end
  return best
end

--- Measures the time of a step on the network by a separate run, and sets the curve's clock; returns an error text or
--- nil.
local function clock(row, seed, c)
  local run = plan.run(common, "clock", row.item, row.lr, opts.seeds[1], opts.epochs)
  local events, why = obtain(run, ("%d steps on the network"):format(opts.time_steps))
  if not events then return why or "the steps on the network are still to be run" end
  if not row.clock then row.clock = curve.steady_ms(events, opts.warm) end
  local timed = seed == opts.seeds[1] and curve.read(events) or {losses = {}}
  local ok, problem = pcall(curve.set_clock, c, timed, row.clock)
  return not ok and problem or nil
end

--- Adds one seed's curve to a row, or a failure.
local function add_seed(row, seed)
  local run = plan.run(common, "train", row.item, row.lr, seed, opts.epochs)
  local events, why = obtain(run, ("%d epochs"):format(opts.epochs))
  local c = events and curve.read(events)
  if c and opts.time_steps > 0 then why = clock(row, seed, c) end
  if why then
    row.failures[#row.failures + 1] = {name = run.name, why = why}
  elseif c then
    c.seed, c.log = seed, run.path
    row.curves[#row.curves + 1] = c
  end
end

-- ---- output -------------------------------------------------------------------------------------------------------

local function describe()
  print(("%s on %s, %d ranks, batch %d a rank, %s"):format(opts.model, opts.data == "" and "the synthetic set" or
    opts.data, opts.ranks, opts.batch, common.network.name))
  if opts.time_steps > 0 then
    print(("Accuracies are of runs in shared memory; times are steps times the median of %d steps on the network, " ..
      "bit-identical to the trained ones."):format(opts.time_steps - opts.warm))
  end
end

local function write_json(rows, judged)
  local plain = {}
  for k, r in ipairs(rows) do plain[k] = summary.plain(r, opts.reach) end
  local path = opts.out .. "/results.json"
  local text = log.encode {network = common.network.name, model = opts.model, data = opts.data, ranks = opts.ranks,
    batch = opts.batch, epochs = opts.epochs, lr = opts.lr, seeds = opts.seeds, train = opts.train,
    time_steps = opts.time_steps, versions = atomo.versions(), claims = judged, results = plain}
  files.save("time_to_accuracy.lua", path, text .. "\n")
  return path
end

local function report(rows)
  print ""
  describe()
  local search = summary.search(rows, opts.lr)
  if search then print("\n" .. search .. "\n* chosen, by the accuracy on the test set") end
  print("\n" .. summary.table(rows, opts.reach))
  for _, accuracy in ipairs(opts.reach) do
    local text = summary.speedups(rows, accuracy, {"none", "qsgd", "terngrad"})
    if text then print("\n" .. text) end
  end
  local judged = claims.judge(rows, opts.reach, opts.negligible)
  print("\n" .. summary.claims_text(judged))
  local written = {write_json(rows, judged)}
  for name, chart in pairs(summary.charts(rows, ("%s, %d ranks, %s"):format(opts.model, opts.ranks,
    common.network.name))) do
    if #chart.series > 0 then
      for _, path in ipairs(require("atomo.tools.plot").save(opts.out .. "/" .. name, chart)) do
        written[#written + 1] = path
      end
    end
  end
  table.sort(written)
  print("\nwritten: " .. table.concat(written, ", "))
end

if os.execute("mkdir -p " .. process.quote(opts.out .. "/runs")) ~= 0 then refuse("cannot make %s", opts.out) end
local rows = {}
for k, item in ipairs(compressors()) do
  local spec, topology = plan.split(item, opts.topology)
  rows[k] = {item = item, compress = spec, topology = topology, curves = {}, failures = {}, wanted = #opts.seeds}
end
for _, row in ipairs(rows) do row.lr = choose_lr(row) end
for _, seed in ipairs(opts.seeds) do -- outer loop, so that a stopped experiment has results of every compressor
  for _, row in ipairs(rows) do
    if row.lr then add_seed(row, seed) end
  end
end
report(rows)
for _, row in ipairs(rows) do
  if #row.failures > 0 then os.exit(1) end
end
