--- Times training steps (forward, backward, SGD with momentum and weight decay) of the built-in networks on random
-- images. Prints one line per network; the time of a step is the median.
local atomo = require "atomo"
local cli = atomo.cli
local C = require("atomo.ffi").C
local nn, F = atomo.nn, atomo.F

-- {name, module in models/, usual batch}, in the order of --model all
local networks = {
  {"lenet", "models.lenet", 128}, {"resnet20", "models.resnet", 128}, {"resnet18", "models.resnet", 64},
  {"vgg11", "models.vgg", 128}, {"mlp", "models.mlp", 128},
}
local choices = {"all"}
for _, n in ipairs(networks) do choices[#choices + 1] = n[1] end

local opts = cli.parse {
  name = "bench_nn.lua",
  about = "Times training steps (forward, backward, SGD) of the built-in networks on random images.",
  examples = {
    "build/atomo-lua scripts/bench_nn.lua",
    "build/atomo-lua scripts/bench_nn.lua --model resnet20 --batch 128 --threads 2 --steps 20",
    "build/atomo-lua scripts/bench_nn.lua --model lenet --conv gemm",
    "build/atomo-lua scripts/bench_nn.lua --model resnet18 --profile",
    "build/atomo-lua scripts/bench_nn.lua --model resnet20 --limit",
  },
  options = {
    {"model", "choice", "resnet20", "network, or all of them", choices = choices},
    {"batch", "int", 0, "images per step; 0: the network's usual number (64 or 128)", min = 0, unit = "images"},
    {"threads", "int", 1, "threads", min = 1, unit = "threads"},
    {"steps", "int", 10, "timed steps, after two warm-up steps", min = 1, unit = "steps"},
    {"conv", "choice", "default", "engine of the convolutions; default: ATOMO_CONV, else auto: Winograd where it pays",
      choices = {"default", "auto", "direct", "winograd", "onednn", "gemm"}},
    {"profile", "flag", false, "also print time and rate of each operator, forward and backward"},
    {"limit", "flag", false, "also measure oneDNN's best time for each convolution, and its share of the step"},
    {"rounds", "int", 5, "with --limit: rounds in which steps and convolutions alternate; medians are " ..
      "printed", min = 1},
  },
}

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

--- Runs one step; returns the milliseconds of forward, backward and update.
local function step(net, optimizer, x, labels)
  return atomo.scope(function()
    local t0 = C.atomo_time()
    optimizer:zero_grad()
    local loss = F.cross_entropy(net(x), labels)
    local t1 = C.atomo_time()
    loss:backward()
    local t2 = C.atomo_time()
    optimizer:step()
    return 1e3 * (t1 - t0), 1e3 * (t2 - t1), 1e3 * (C.atomo_time() - t2)
  end)
end

--- Makes a network, its optimizer and a batch of random images; returns a function that runs one step.
local function set_up(name, file, batch)
  atomo.manual_seed(0)
  local net = require(file)[name] {classes = 10}
  local optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1, momentum = 0.9, weight_decay = 5e-4}
  local x, labels = atomo.rand(batch, 32, 32, 3), atomo.zeros(batch, "i32")
  for i = 1, batch do labels:set(i, (i * 7) % 10) end
  return function() return step(net, optimizer, x, labels) end
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

local function bench(name, file, usual_batch)
  local batch = opts.batch > 0 and opts.batch or usual_batch
  local go = set_up(name, file, batch)
  local times = {forward = {}, backward = {}, update = {}, total = {}}
  for _ = 1, 2 do go() end
  add_steps(times, opts.steps, go)
  local profile, limit
  if opts.profile or opts.limit then
    profile = atomo.profile.start()
    for _ = 1, opts.steps do go() end
    profile:stop()
  end
  local mem = atomo.mem()
  if opts.limit then
    limit = require("atomo.tools.conv_limit").measure(profile, opts.steps, {rounds = opts.rounds,
      step = function() return 1e-3 * add_steps(times, opts.steps, go) end})
  end
  local ms = median(times.total)
  local line = "%-9s batch %d  threads %d  conv %s  step %.1f ms (best %.1f)  forward %.1f  backward %.1f  " ..
    "update %.1f  memory %.0f MB (process %.0f MB)  %.1f img/s"
  print(line:format(name, batch, opts.threads, nn.conv_engine(), ms, times.total[1], median(times.forward),
    median(times.backward), median(times.update), mem.high_water / 1e6, mem.peak_rss / 1e6, 1e3 * batch / ms))
  if opts.profile then print(profile:text(opts.steps)) end
  if limit then print(limit:text()) end
end

atomo.set_num_threads(opts.threads)
if opts.conv ~= "default" then nn.set_conv_engine(opts.conv) end
print(cli.echo(opts))
print(("tape: %.2f us an operator, forward and backward"):format(overhead()))
for _, n in ipairs(networks) do
  if opts.model == "all" or opts.model == n[1] then bench(unpack(n)) end
end
