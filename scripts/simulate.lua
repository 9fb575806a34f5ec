#!/usr/bin/env atomo-lua
--- Predicts steps on clusters of 2 to 4096 ranks with links of 1 Mbit/s to 100 Gbit/s from measured times and bytes, by
-- the cost model of docs/exchange_model.md: does compression pay there, with which setting, and by how much? --check
-- compares predictions with measurements on scripts/netlab.sh.
local atomo = require "atomo"
local files = require "atomo.core.files"
local simulate = require "atomo.tools.simulate"
local choose = require "atomo.exchange.auto.choose"
local cli, log = atomo.cli, atomo.log

local opts = cli.parse {
  name = "simulate.lua",
  about = "Predicts step times on other clusters from figures that are measured here (--model), taken from runs " ..
    "(--log) or read from a file (--figures). Each rank keeps its batch, whatever the number of ranks.",
  examples = {
    "build/atomo-lua scripts/simulate.lua --model resnet18 --batch 16 --threads 1 --figures resnet18.json",
    "build/atomo-lua scripts/simulate.lua --figures resnet18.json --cluster 64:1gbit --cluster 64:10gbit --plot r18",
    "build/atomo-lua scripts/simulate.lua --log dense.jsonl --log svd.jsonl --ranks 8,16,32 --per-host 4",
    "build/atomo-lua scripts/simulate.lua --figures resnet18.json --check --check-log check.jsonl",
  },
  options = {
    {"model", "string", nil, "network to measure: lenet, resnet20, resnet18, vgg11, ... or a file"},
    {"batch", "int", 16, "images per rank and step", min = 1, unit = "images"},
    {"threads", "int", 1, "threads of each rank", min = 1},
    {"compress", "string", table.concat(choose.compressors, " "), "compressors, separated by spaces"},
    {"log", "string", nil, "log of a training run (train_cifar.lua --log) to take figures from", repeated = true,
      metavar = "FILE"},
    {"figures", "string", nil, "JSON file of figures: read if it exists; missing figures are measured and " ..
      "added", metavar = "FILE"},
    {"ranks", "list", {2, 4, 8, 16, 64, 256, 1024, 4096}, "numbers of ranks in the table", of = "int"},
    {"rates", "list", {"1mbit", "10mbit", "100mbit", "1gbit", "10gbit", "100gbit"}, "link rates in the table"},
    {"cluster", "string", nil, "RANKS:RATE to answer for in a sentence, such as 64:1gbit", repeated = true},
    {"latency", "number", 50, "latency of a message between hosts", min = 0, unit = "microseconds"},
    {"per-host", "int", 1, "ranks that share a host's memory and link", min = 1},
    {"memory-rate", "number", 4, "rate between ranks of one host", above = 0, unit = "GB/s"},
    {"plot", "string", nil, "draw step time against link rate for each --cluster: FILE-RANKS.svg", metavar = "FILE"},
    {"json", "string", nil, "append each prediction to FILE as one JSON object", metavar = "FILE"},
    {"csv", "string", nil, "write each prediction to FILE as one row", metavar = "FILE"},
    {"check", "flag", false, "train on netlab and print predicted beside measured times (needs root)"},
    {"check-log", "string", "simulate_check.jsonl", "with --check: file of the runs; runs in it are not repeated",
      metavar = "FILE"},
    {"check-ranks", "list", {2, 4, 8}, "with --check: numbers of hosts", of = "int"},
    {"check-rate", "string", "100mbit", "with --check: link rate"},
    {"check-delay", "string", "", "with --check: time added to round trips between hosts, such as 40ms",
      metavar = "TIME"},
    {"check-settings", "string", "none/allreduce entry:ratio=64/allgather entry:ratio=64/sharded",
      "with --check: COMPRESSOR/TOPOLOGY pairs, separated by spaces"},
    {"check-steps", "int", 6, "with --check: steps of each run; the first two do not count", min = 3, unit = "steps"},
  },
}

local function fail(text)
  io.stderr:write("simulate.lua: ", text, "\n")
  os.exit(2)
end

-- ---- figures -----------------------------------------------------------------------------------------------------

local C = require("atomo.ffi").C

local function exists(path)
  local file = path and io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

local STEPS = 8 -- steps measured; the shortest is used, since other processes only add to a step's time

--- Trains a network for STEPS steps; returns the last step's gradients, and the least seconds of a step and of
--- backward.
local function train_a_little(name)
  local F, T = atomo.F, require "atomo.tensor"
  atomo.manual_seed(1)
  local model = require("models").open(name, {classes = 10})
  local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01, momentum = 0.9}
  local x, y = atomo.randn(opts.batch, 32, 32, 3), atomo.zeros(opts.batch):to "i32"
  local base, backward = math.huge, math.huge
  for _ = 1, STEPS do
    local from, between, done = C.atomo_time(), nil, nil
    optimizer:zero_grad()
    T.scope(function()
      local loss = F.cross_entropy(model(x), y)
      between = C.atomo_time()
      loss:backward()
      done = C.atomo_time()
    end)
    optimizer:step()
    base, backward = math.min(base, C.atomo_time() - from), math.min(backward, done - between)
  end
  local grads = {}
  for i, p in ipairs(model:parameters()) do grads[i] = p.grad end
  return grads, base, backward
end

--- Measures the figures that are missing. The file is rewritten after each compressor, so that a stopped run resumes.
local function measure(figures)
  local timing = require "atomo.exchange.auto.measure"
  local key = ("%s, batch %d, %d threads"):format(opts.model, opts.batch, opts.threads)
  if figures and figures.source ~= key then
    fail(("%s holds figures of '%s', not of '%s'"):format(opts.figures, figures.source, key))
  end
  local missing = {}
  for name in ("none " .. opts.compress):gmatch "%S+" do
    if not (figures and figures.works[name]) then missing[#missing + 1] = name end
  end
  if #missing == 0 then return figures end
  atomo.set_num_threads(opts.threads)
  local grads, base, backward = train_a_little(opts.model)
  figures = figures or {source = key, base = base, backward = backward, model = opts.model, batch = opts.batch,
    threads = opts.threads, works = {}}
  for _, name in ipairs(missing) do
    figures.works[name] = figures.works[name] or timing.work(name, grads, {steps = STEPS})
    figures.works[name].backward = nil
    if opts.figures then simulate.save(opts.figures, figures) end
  end
  return figures
end

local function from_logs()
  local timing, figures = require "atomo.exchange.auto.measure", nil
  for _, path in ipairs(opts.log) do
    local runs = simulate.runs(path)
    if #runs == 0 then fail(path .. " holds no run") end
    for _, run in ipairs(runs) do
      local grads = {}
      local name = opts.model or run.settings.model
      if not name then fail(path .. ": the run does not say which model it was; --model does") end
      for i, p in ipairs(require("models").open(name, {classes = 10}):parameters()) do
        grads[i] = atomo.zeros(p:shape())
      end
      figures = simulate.merge(figures, simulate.from_run(run, timing.frame(run.settings.compress or "none", grads)))
    end
  end
  return figures
end

local function get_figures()
  if #opts.log > 0 then return from_logs() end
  local figures = exists(opts.figures) and simulate.load(opts.figures) or nil
  if opts.model then return measure(figures) end
  if figures then return figures end
  fail(opts.figures and opts.figures .. " does not exist; --model measures figures" or
    "no figures: --model, --log or --figures says where they come from")
end

-- ---- output ------------------------------------------------------------------------------------------------------

local hardware = {latency = opts.latency / 1e6, per_host = opts.per_host, memory_rate = opts.memory_rate * 1e9}

local function print_figures(figures)
  print(("measured: %s: a step without exchange %s, backward %s of it"):format(figures.source,
    log.duration(figures.base), log.duration(figures.backward)))
  local rows = {{"compressor", "bytes", "encode", "decode"}}
  for _, name in ipairs(simulate.compressors(figures)) do
    local w = figures.works[name]
    rows[#rows + 1] = {name, log.bytes(w.message + w.small), log.duration(w.encode), log.duration(w.decode)}
  end
  print(log.table(rows))
end

--- Prints the table over ranks and links: how many times as fast as dense, and a letter for the setting.
local function print_grid(figures, clusters)
  local letters, legend, rows = {}, {}, {{"link"}}
  for _, n in ipairs(opts.ranks) do table.insert(rows[1], ("%d ranks"):format(n)) end
  for _, text in ipairs(opts.rates) do
    local bits = simulate.rate(text)
    local row = {simulate.rate_text(bits)}
    for _, n in ipairs(opts.ranks) do
      local p = simulate.predict(figures, simulate.network(n, bits, hardware))
      clusters[#clusters + 1] = {ranks = n, bits = bits, prediction = p}
      local name = choose.name(p.taken)
      if not letters[name] then
        legend[#legend + 1] = name
        letters[name] = string.char(96 + #legend)
      end
      row[#row + 1] = ("%s %s"):format(p.taken.compress == "none" and "1" or ("%.2f"):format(p.gain), letters[name])
    end
    rows[#rows + 1] = row
  end
  print("\nPREDICTION: how many times as fast as dense the chosen setting is (1: dense stays the choice)")
  print(log.table(rows))
  for i, name in ipairs(legend) do print(("  %s  %s"):format(string.char(96 + i), name)) end
end

local function print_answers(figures, clusters)
  for _, text in ipairs(opts.cluster) do
    local ranks, bits = simulate.cluster(text)
    local p = simulate.predict(figures, simulate.network(ranks, bits, hardware))
    clusters[#clusters + 1] = {ranks = ranks, bits = bits, prediction = p}
    print("\n" .. simulate.answer(p, ranks, bits))
    print(choose.reasons(p.rows, p.taken))
  end
end

local columns = {"ranks", "hosts", "link_bits_per_s", "compress", "topology", "step_s", "exchange_s", "encode_s",
  "transfer_s", "hidden_s", "decode_s", "bytes_in", "bytes_out", "gain_over_dense", "chosen"}

local function records(clusters)
  local list = {}
  for _, c in ipairs(clusters) do
    for _, row in ipairs(c.prediction.rows) do
      local x = row.cost
      list[#list + 1] = {event = "prediction", ranks = c.ranks, hosts = c.prediction.net.hosts,
        link_bits_per_s = c.bits, chosen = row == c.prediction.taken, compress = row.compress,
        topology = choose.topology_name(row), step_s = row.step, exchange_s = x.seconds,
        encode_s = x.encode, transfer_s = x.transfer, hidden_s = x.hidden, decode_s = x.decode, bytes_in = x.bytes_in,
        bytes_out = x.bytes_out, gain_over_dense = c.prediction.dense.step / row.step}
    end
  end
  return list
end

local function write_records(clusters)
  if not opts.json and not opts.csv then return end
  local list = records(clusters)
  if opts.json then
    local file = log.open(opts.json)
    for _, r in ipairs(list) do file:write(r) end
    file:close()
  end
  if not opts.csv then return end
  local lines = {"# PREDICTION by atomo-lua scripts/simulate.lua", table.concat(columns, ",")}
  for _, r in ipairs(list) do
    local cells = {}
    for i, key in ipairs(columns) do
      local v = r[key]
      cells[i] = type(v) == "number" and ("%.10g"):format(v) or type(v) == "string" and '"' .. v .. '"' or tostring(v)
    end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  files.save("simulate.lua", opts.csv, table.concat(lines, "\n") .. "\n")
end

local function draw(figures)
  if not opts.plot then return end
  local drawn = {}
  for _, text in ipairs(#opts.cluster > 0 and opts.cluster or {"64:1gbit"}) do
    local ranks = simulate.cluster(text)
    if not drawn[ranks] then
      drawn[ranks] = true
      local series = {}
      for i, name in ipairs(simulate.compressors(figures)) do series[i] = {name = name, points = {}} end
      for e = 6, 11, 0.25 do
        local p = simulate.predict(figures, simulate.network(ranks, 10 ^ e, hardware))
        for _, s in ipairs(series) do table.insert(s.points, {10 ^ e, choose.best_of(p.rows, s.name).step}) end
      end
      local written = require("atomo.tools.plot").save(("%s-%d"):format(opts.plot, ranks), {
        title = ("PREDICTION: step time on %d ranks, %s"):format(ranks, figures.source),
        x = {label = "link, bit/s", log = true}, y = {label = "step, s", log = true}, series = series})
      print("\nPREDICTION drawn: " .. table.concat(written, ", "))
    end
  end
end

local figures = get_figures()
print_figures(figures)
local clusters = {}
print_grid(figures, clusters)
print_answers(figures, clusters)
write_records(clusters)
draw(figures)
if opts.check then require("atomo.tools.simulate_check")(figures, opts, hardware, fail) end
