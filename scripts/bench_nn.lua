--- Times training steps (forward, backward, optimizer) of the built-in networks on random images or texts. Prints one
-- line per network and precision; the time of a step is the median.
local atomo = require "atomo"
local cli = atomo.cli
local C = require("atomo.ffi").C
local median = require "atomo.core.median"
local nn, F = atomo.nn, atomo.F

-- {name, module in models/, usual batch, options of a language model}, in the order of --model all
local networks = {
  {"lenet", "models.lenet", 128}, {"resnet20", "models.resnet", 128}, {"resnet18", "models.resnet", 64},
  {"vgg11", "models.vgg", 128}, {"mlp", "models.mlp", 128},
  {"transformer", "models.transformer", 8, {vocab = 96, width = 384, layers = 6, heads = 6, length = 256}},
  {"lstm", "models.lstm", 32, {vocab = 96, width = 256, layers = 2, length = 64}},
}
local choices = {"all"}
for _, n in ipairs(networks) do choices[#choices + 1] = n[1] end

local opts = cli.parse {
  name = "bench_nn.lua",
  about = "Times training steps (forward, backward, optimizer) of the built-in networks on random images or texts.",
  examples = {
    "build/atomo-lua scripts/bench_nn.lua",
    "build/atomo-lua scripts/bench_nn.lua --model resnet20 --batch 128 --threads 2 --steps 20",
    "build/atomo-lua scripts/bench_nn.lua --model lenet --conv gemm",
    "build/atomo-lua scripts/bench_nn.lua --model resnet18 --profile",
    "build/atomo-lua scripts/bench_nn.lua --model resnet20 --limit",
    "build/atomo-lua scripts/bench_nn.lua --model transformer --precision both",
    "build/atomo-lua scripts/bench_nn.lua --model lstm --precision bf16 --limit",
    "build/atomo-lua scripts/bench_nn.lua --model lstm --precision both --beside 'python3 other.py {precision}'",
  },
  options = {
    {"model", "choice", "resnet20", "network, or all of them", choices = choices},
    {"batch", "int", 0, "images or sequences per step; 0: the network's usual number", min = 0, unit = "images"},
    {"threads", "int", 1, "threads", min = 1, unit = "threads"},
    {"steps", "int", 10, "timed steps, after two warm-up steps", min = 1, unit = "steps"},
    {"conv", "choice", "default", "engine of the convolutions; default: ATOMO_CONV, else auto: Winograd where it pays",
      choices = {"default", "auto", "direct", "winograd", "onednn", "gemm"}},
    {"precision", "choice", "fp32", "format of the operands of matrix products; both: fp32 and bf16 in turns, and " ..
      "how many times as fast bf16 is", choices = {"fp32", "bf16", "both"}},
    {"activations", "choice", "fp32", "with --precision bf16: format of what layers keep for backward",
      choices = {"fp32", "bf16"}},
    {"profile", "flag", false, "also print time and rate of each operator, forward and backward"},
    {"limit", "flag", false, "also run every convolution (by oneDNN) and every matrix product of a step by itself, " ..
      "and print each one's best time and the share of their sum in the time of the step: 1 is a step without any " ..
      "other work; operands are in the caches as far as they fit, rounding to bf16 is not counted"},
    {"beside", "string", nil, "also time a step of another program, a command that prints \"median N ms\", in turn " ..
      "with ours; {precision} in it stands for fp32 or bf16", metavar = "COMMAND"},
    {"optimizer", "choice", "sgd", "sgd with momentum and weight decay, or adamw with gradients clipped to norm 1",
      choices = {"sgd", "adamw"}},
    {"rounds", "int", 5, "with --limit or --beside: rounds in which steps alternate with what is measured; medians " ..
      "are printed", min = 1},
  },
}

--- Runs one step; returns the milliseconds of forward, backward and update.
local function step(net, optimizer, x, labels, precision)
  return atomo.scope(function()
    local t0 = C.atomo_time()
    optimizer:zero_grad()
    local loss = atomo.autocast(precision, function() return F.cross_entropy(net(x), labels) end)
    local t1 = C.atomo_time()
    loss:backward()
    local t2 = C.atomo_time()
    if opts.optimizer == "adamw" then atomo.optim.clip_grad_norm(net:parameters(), 1) end
    optimizer:step()
    return 1e3 * (t1 - t0), 1e3 * (t2 - t1), 1e3 * (C.atomo_time() - t2)
  end)
end

--- Returns a batch of random images and their labels, or of texts, which are their own labels.
local function random_batch(batch, text)
  local labels = atomo.zeros({batch, text and text.length or 1}, "i32")
  local p = labels:data()
  for i = 0, labels:numel() - 1 do p[i] = (i * 7919) % (text and text.vocab or 10) end
  if text then return labels, labels end
  return atomo.rand(batch, 32, 32, 3), labels:view(batch)
end

--- Makes a network, its optimizer and a batch; returns a function of the precision that runs one step.
local function set_up(name, file, batch, text)
  atomo.manual_seed(0)
  local net = require(file)[name](text or {classes = 10})
  local optimizer = opts.optimizer == "adamw" and atomo.optim.adamw {params = net:parameters(), lr = 1e-3} or
    atomo.optim.sgd {params = net:parameters(), lr = 0.1, momentum = 0.9, weight_decay = 5e-4}
  local x, labels = random_batch(batch, text)
  return function(precision) return step(net, optimizer, x, labels, precision) end
end

--- Adds the milliseconds of n steps to the lists in `times`; returns the median of these steps.
local function add_steps(times, n, go)
  local mine = {}
  for i = 1, n do
    local f, b, u = go()
    mine[i] = f + b + u
    for key, ms in pairs {forward = f, backward = b, update = u, total = f + b + u} do
      times[key][#times[key] + 1] = ms
    end
  end
  return median(mine)
end

--- Returns the microseconds of an operator on 8 elements, forward and backward, which is mostly the tape's overhead.
local function overhead()
  local operators, runs = 50, {}
  local x = atomo.param(atomo.randn(2, 4))
  local function chain()
    local y = x
    for _ = 1, operators do y = F.relu(y) end
    y:sum():backward()
  end
  for i = 1, 800 do
    local start = C.atomo_time()
    atomo.scope(chain)
    if i > 400 then runs[i - 400] = 1e6 * (C.atomo_time() - start) / operators end -- the first 400 runs warm up the JIT
  end
  return median(runs)
end

local function new_times() return {forward = {}, backward = {}, update = {}, total = {}} end

--- Prints the line of a network in a precision, and what was asked for besides; returns the median time of a step.
local function report(name, batch, precision, times, profile, limit)
  local ms, best, mem = median(times.total), math.huge, atomo.mem()
  for _, t in ipairs(times.total) do best = math.min(best, t) end
  local line = "%-11s batch %d  threads %d  conv %s  %s  step %.1f ms (best %.1f)  forward %.1f  backward %.1f  " ..
    "update %.1f  memory %.0f MB (process %.0f MB)  %.1f img/s"
  print(line:format(name, batch, opts.threads, nn.conv_engine(), precision, ms, best, median(times.forward),
    median(times.backward), median(times.update), mem.high_water / 1e6, mem.peak_rss / 1e6, 1e3 * batch / ms))
  if opts.profile then print(profile:text(opts.steps)) end
  if limit then print(limit:text()) end
  return ms
end

--- Profiles steps, and with --limit measures their convolutions and products; adds more times of steps meanwhile.
local function examine(go, precision, times)
  if not (opts.profile or opts.limit) then return end
  local step_limit = require "atomo.tools.step_limit"
  local parts, profile = step_limit.parts(opts.steps, function() go(precision) end)
  return profile, opts.limit and step_limit.measure(parts, {rounds = opts.rounds,
    step = function() return 1e-3 * add_steps(times, opts.steps, function() return go(precision) end) end}) or nil
end

--- Prints the times of steps in turn with those of the command of --beside.
local function print_beside(go, precisions)
  print(require("atomo.tools.beside").measure({rounds = opts.rounds, precisions = precisions, command = opts.beside,
    step = function(precision)
      return 1e-3 * add_steps(new_times(), opts.steps, function() return go(precision) end)
    end}):text())
end

local function bench(name, file, usual_batch, text)
  local batch = opts.batch > 0 and opts.batch or usual_batch
  local go = set_up(name, file, batch, text)
  local precisions = opts.precision == "both" and {"fp32", "bf16"} or {opts.precision}
  local times, medians = {}, {}
  for _, precision in ipairs(precisions) do
    times[precision] = new_times()
    for _ = 1, 2 do go(precision) end
  end
  for _ = 1, opts.steps do
    for _, precision in ipairs(precisions) do
      add_steps(times[precision], 1, function() return go(precision) end)
    end
  end
  for _, precision in ipairs(precisions) do
    medians[precision] = report(name, batch, precision, times[precision], examine(go, precision, times[precision]))
  end
  if medians.fp32 and medians.bf16 then
    print(("%-11s bf16 is %.2f times as fast as fp32"):format(name, medians.fp32 / medians.bf16))
  end
  if opts.beside then print_beside(go, precisions) end
end

if cli.given(opts, "rounds") and not (opts.limit or opts.beside) then
  error("bench_nn.lua: --rounds is the number of rounds of --limit or --beside, neither of which is given", 0)
end
if opts.beside and opts.model == "all" then
  error("bench_nn.lua: --beside compares one network, not --model all", 0)
end
if opts.activations ~= "fp32" and opts.precision == "fp32" then
  error("bench_nn.lua: --activations bf16 needs --precision bf16 or both", 0)
end
atomo.set_num_threads(opts.threads)
atomo.set_activations(opts.activations)
if opts.conv ~= "default" then nn.set_conv_engine(opts.conv) end
print(cli.echo(opts))
if opts.precision ~= "fp32" then print((require("atomo.autograd.precision").describe())) end
print(("tape: %.2f us an operator, forward and backward"):format(overhead()))
for _, n in ipairs(networks) do
  if opts.model == "all" or opts.model == n[1] then bench(unpack(n)) end
end
