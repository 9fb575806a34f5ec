#!/usr/bin/env atomo-lua
--- Measures what the exchange adds to a training step, in one job. Steps without exchange, steps with it, and a plain
-- MPI all-reduce of the same bytes alternate, so that all three run under the same conditions.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local median = require "atomo.core.median"
local check = require("atomo.ffi").check
local renamed = require("atomo.core.renamed").exchange
local F, log = atomo.F, atomo.log

local opts = atomo.cli.parse {
  name = "bench_step.lua",
  about = "Times training steps (forward, backward, SGD) on random images with an exchange, without one, and " ..
    "MPI_Allreduce of the same gradients, in turn. A time runs from a barrier to the slowest rank's end; medians " ..
    "are printed.",
  examples = {
    "mpirun -n 2 build/atomo-lua scripts/bench_step.lua",
    "mpirun -n 2 build/atomo-lua scripts/bench_step.lua --model resnet18 --batch 32 --compress 'none entry:ratio=64'",
    "sh scripts/netlab.sh run 4 1gbit -- build/atomo-lua scripts/bench_step.lua --model resnet18 --batch 16",
  },
  options = {
    {"model", "string", "resnet20", "network of models/, or a file"},
    {"batch", "int", 128, "images per rank and step", min = 1, unit = "images"},
    {"threads", "int", 1, "threads of each rank", min = 1},
    {"compress", "string", "none", "compressors, separated by spaces"},
    {"topology", "string", "default", "topology of the exchange", was_value = renamed.topology.values},
    {"steps", "int", 15, "timed steps of each kind, after three warm-up steps", min = 1},
    {"checked", "choice", "true", "compare the ranks' operations before each collective",
      choices = {"true", "false"}},
    {"json", "string", nil, "append one JSON object per compressor to FILE", metavar = "FILE"},
  },
}

local WARM = 3

local world = atomo.mpi.world
atomo.set_num_threads(opts.threads)

--- Makes a network, its optimizer and a batch of random images; returns the parameters and step(exchange or nil).
local function set_up()
  atomo.manual_seed(0)
  local net = require("models").open(opts.model, {classes = 10})
  local optimizer = atomo.optim.sgd {params = net:parameters(), lr = 1e-3, momentum = 0.9, weight_decay = 5e-4}
  local x, labels, index = atomo.rand(opts.batch, 32, 32, 3), atomo.zeros(opts.batch, "i32"), {}
  for i = 1, opts.batch do labels:set(i, (i * 7 + world.rank) % 10) end
  for i, p in ipairs(optimizer.params) do index[p] = i end
  local function step(exchange)
    atomo.scope(function()
      optimizer:zero_grad()
      local loss = F.cross_entropy(net(x), labels)
      loss:backward(nil, exchange and {on_ready = function(p) exchange:push(index[p], p.grad) end} or nil)
      if exchange then exchange:finish() end
      optimizer:step()
    end)
  end
  return optimizer.params, step
end

local slowest = atomo.zeros(1)
--- Returns the milliseconds of go() on the slowest rank; all ranks begin together. [collective]
local function time(go)
  world:barrier()
  local from = C.atomo_time()
  go()
  slowest:fill_(1e3 * (C.atomo_time() - from))
  return world:allreduce(slowest, "max"):item()
end

--- Measures one compressor; returns lists of milliseconds {without=, with=, allreduce=}.
local function measure(params, step, compress)
  local entries = 0
  for _, p in ipairs(params) do entries = entries + p:numel() end
  local flat = atomo.zeros(entries)
  local exchange = atomo.exchange {compress = compress, topology = opts.topology, checked = opts.checked == "true"}
  atomo.no_grad(function()
    for _, p in ipairs(params) do world:bcast(p, 0) end -- steps without an exchange have made them differ
  end)
  step(exchange)
  local times = {without = {}, with = {}, allreduce = {}}
  for k = 1 - WARM, opts.steps do
    local round = {without = time(step), with = time(function() step(exchange) end),
      allreduce = time(function() check(C.atomo_comm_allreduce_plain(world.h, flat.h)) end)}
    if k > 0 then for kind, ms in pairs(round) do times[kind][k] = ms end end
  end
  return times, exchange, 4 * entries
end

local function report(compress, times, exchange, bytes, file)
  local without, with, bare = median(times.without), median(times.with), median(times.allreduce)
  local adds = 100 * (with / (without + bare) - 1)
  local e = {event = "step_cost", model = opts.model, batch = opts.batch, ranks = world.size, threads = opts.threads,
    compress = compress, topology = exchange.topology, checked = opts.checked == "true", steps = opts.steps,
    dense_bytes = bytes, without_ms = without, with_ms = with, allreduce_ms = bare, adds_percent = adds}
  file:write(e)
  if world.rank > 0 then return end
  print(("%s batch %d, %d ranks, %s over %s: step without exchange %.1f ms (least %.1f), with %.1f ms (%.1f), " ..
    "MPI_Allreduce of %s %.2f ms (%.2f); over both the exchange adds %.1f %%"):format(opts.model, opts.batch,
    world.size, compress, exchange.topology, without, math.min(unpack(times.without)), with,
    math.min(unpack(times.with)), log.bytes(bytes), bare, math.min(unpack(times.allreduce)), adds))
end

local file = log.open(world.rank == 0 and opts.json or nil)
local params, step = set_up()
for compress in opts.compress:gmatch "%S+" do
  local times, exchange, bytes = measure(params, step, compress)
  report(compress, times, exchange, bytes, file)
end
file:close()
