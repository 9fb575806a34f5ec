-- scripts/simulate.lua and what it is made of: figures out of logs and files, predictions labelled as such on every way
-- out, and refusals of what cannot be read. Figures are given, so nothing here is timed.
-- test: slow
local root = require "support.root"
local shell = require "support.shell"
local spawn = require "support.spawn"
local atomo = require "atomo"
local simulate = require "atomo.tools.simulate"
local json = atomo.log
local script = spawn.quote(root .. "scripts/simulate.lua") .. " "

local function near(expected, got)
  assert.is_true(math.abs(got - expected) <= 1e-9 * math.max(1, math.abs(expected)), got)
end

local function work(message, encode, decode)
  return {dense = 44.7e6, small = 0.04e6, message = message, encode = encode, decode = decode, copy = 0.005,
    tensors = 21, scales = 1}
end

local figures = {source = "resnet18, batch 16, 1 threads", base = 0.5, backward = 0.3, model = "resnet18", batch = 16,
  threads = 1, works = {none = work(44.66e6, 0, 0), ["entry:ratio=64"] = work(0.66e6, 0.015, 0.007),
    ["svd:ratio=16,bits=8"] = work(2.5e6, 0.18, 0.03), qsgd = work(1e6, 0.1, 0.1)}}

local function write(text)
  local path = os.tmpname()
  shell.write(path, text)
  return path
end

local function refused(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(text, message, 1, true)
end

describe("rates and clusters", function()
  it("are read, shown and refused", function()
    assert.equal(1e8, simulate.rate "100mbit")
    assert.equal(2.5e9, simulate.rate "2.5Gbit")
    for bits, text in pairs {[1e8] = "100 Mbit/s", [2.5e9] = "2.5 Gbit/s", [1e11] = "100 Gbit/s",
      [5e4] = "50 kbit/s"} do
      assert.equal(text, simulate.rate_text(bits))
    end
    local ranks, bits = simulate.cluster "64:10gbit"
    assert.equal(64, ranks)
    assert.equal(1e10, bits)
    for _, bad in ipairs {"fast", "100", "-1mbit", "1.2.3gbit", "0mbit", "10bit"} do
      refused(("the rate is '%s'"):format(bad), simulate.rate, bad)
    end
    for _, bad in ipairs {"64", "1:1gbit", "x:1gbit", "64:"} do
      refused(("the cluster is '%s'"):format(bad), simulate.cluster, bad)
    end
  end)

  it("make networks: payload of the link, hosts of several ranks", function()
    local net = simulate.network(10, 1e9, {latency = 1e-4, per_host = 4})
    assert.equal(3, net.hosts)
    near(1e9 / 8 * 1448 / 1538, net.rate)
    assert.equal(1, simulate.network(2, 1e9, {latency = 0, per_host = 4}).hosts)
  end)
end)

--- A log of a run with these steps' times (ms).
local function log_of(settings, ranks, steps)
  local lines = {json.encode {event = "run", ranks = ranks, threads = 1, settings = settings}}
  for i, s in ipairs(steps) do
    lines[#lines + 1] = json.encode {event = "step", step = i, bytes_out = s.bytes, dense_bytes = 1000, ms = {data = 1,
      forward = 10, backward = s.backward, encode = s.encode or 0, exchange = 5, decode = s.decode or 0, update = 2,
      step = 50}}
  end
  return write(table.concat(lines, "\n") .. "\n")
end

local split = {dense = 1000, small = 100, tensors = 3, scales = 1, copy = 0.001}

describe("figures of a log", function()
  it("are the medians behind the first two steps", function()
    local path = log_of({compress = "none", model = "lenet"}, 4, {{backward = 999, bytes = 9},
      {backward = 999, bytes = 9}, {backward = 20, bytes = 1500}, {backward = 30, bytes = 1500},
      {backward = 40, bytes = 1500}})
    local run = simulate.runs(path)[1]
    os.remove(path)
    local f = simulate.from_run(run, split)
    near(0.043, f.base)
    near(0.030, f.backward)
    assert.equal(900, f.works.none.message)
  end)

  it("distinguish one rank's messages from those of a topology", function()
    for topology, case in pairs {
      allgather = {bytes = 3 * 60 + 2 * 0.75 * 100, encode = 8, decode = 4 * 2},
      sharded = {bytes = 60 + 2 * 0.75 * 100, encode = 1.25 * 8, decode = 2 * 2 / 3 * 2},
    } do
      local step = {backward = 30, bytes = case.bytes, encode = case.encode, decode = case.decode}
      local path = log_of({compress = "entry:ratio=9", topology = topology}, 4, {step, step, step})
      local w = simulate.from_run(simulate.runs(path)[1], split).works["entry:ratio=9"]
      os.remove(path)
      near(60, w.message)
      near(0.008, w.encode)
      near(0.002, w.decode)
    end
  end)

  it("are merged: the first run's times, every run's compressor", function()
    local step = {backward = 30, bytes = 1000, encode = 1, decode = 1}
    local a = log_of({compress = "entry:ratio=9", topology = "allgather"}, 4, {step, step, step})
    step.backward = 60
    local b = log_of({compress = "topk:ratio=9", topology = "allgather"}, 4, {step, step, step})
    local m = simulate.merge(nil, simulate.from_run(simulate.runs(a)[1], split))
    m = simulate.merge(m, simulate.from_run(simulate.runs(b)[1], split))
    near(0.030, m.backward)
    assert.is_truthy(m.works["entry:ratio=9"] and m.works["topk:ratio=9"] and m.works.none)
    os.remove(a)
    os.remove(b)
  end)

  it("are refused if they are too short", function()
    local step = {backward = 1, bytes = 1}
    local function run(settings, ranks, steps)
      local path = log_of(settings, ranks, steps)
      local r = simulate.runs(path)[1]
      os.remove(path)
      return r
    end
    refused("2 steps, at least 3", simulate.from_run, run({}, 2, {step, step}), split)
    refused("topology ps", simulate.from_run, run({compress = "x", topology = "ps"}, 2, {step, step, step}), split)
    refused("may have been several", simulate.from_run, run({compress = "auto"}, 2, {step, step, step}), split)
    refused("weights of a sharded optimizer", simulate.from_run,
      run({compress = "x", sharded_optimizer = true}, 2, {step, step, step}), split)
    refused("one rank sends no", simulate.from_run, run({compress = "x"}, 1, {step, step, step}), split)
    refused("gradients have 1000 bytes", simulate.from_run, run({}, 2, {step, step, step}), {dense = 7})
  end)
end)

describe("figures in a file", function()
  it("come back as they were", function()
    local path = os.tmpname()
    simulate.save(path, figures)
    assert.same(figures, simulate.load(path))
    os.remove(path)
  end)

  it("are refused, naming the fault", function()
    for text, why in pairs {["nonsense"] = "holds no figures", ['{"base":-1,"backward":0}'] = "base is -1",
      ['{"base":1,"backward":null}'] = "backward is", ['{"base":1,"backward":0,"works":{}}'] = "must hold 'none'",
      ['{"base":1,"backward":0,"works":{"none":{"dense":4}}}'] = "of 'none' is nil"} do
      local path = write(text)
      refused(why, simulate.load, path)
      os.remove(path)
    end
    refused("cannot read", simulate.load, "/no/such/figures")
  end)
end)

describe("a prediction", function()
  it("uses the choice of auto, and states what it gains", function()
    local slow = simulate.predict(figures, simulate.network(4, 1e7, {latency = 5e-5}))
    assert.equal("entry:ratio=64", slow.taken.compress)
    near(slow.dense.step / slow.taken.step, slow.gain)
    assert.matches("^PREDICTION for 4 ranks at 10 Mbit/s: compression pays: entry:ratio=64 over",
      simulate.answer(slow, 4, 1e7))
    local fast = simulate.predict(figures, simulate.network(4, 1e11, {latency = 5e-6}))
    assert.equal(1, fast.gain)
    assert.matches("compression does not pay", simulate.answer(fast, 4, 1e11))
  end)

  it("scales computing, not the network", function()
    local net = simulate.network(4, 1e8, {latency = 5e-5})
    local once, twice = simulate.predict(figures, net), simulate.predict(figures, net, 2)
    for i, row in ipairs(once.rows) do
      near(2 * row.cost.encode, twice.rows[i].cost.encode)
      near(row.cost.wire, twice.rows[i].cost.wire)
    end
  end)

  it("assumes that compressors with more bytes lose less accuracy", function()
    assert.same({"none", "svd:ratio=16,bits=8", "qsgd", "entry:ratio=64"}, simulate.compressors(figures))
  end)
end)

describe("simulate.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local path
  setup(function()
    path = os.tmpname()
    simulate.save(path, figures)
  end)
  teardown(function() os.remove(path) end)

  it("prints, writes and draws predictions, named so everywhere", function()
    local base = os.tmpname()
    local out, code = spawn.host(script .. ("--figures %s --ranks 2,64 --rates 10mbit,10gbit --cluster 64:1gbit " ..
      "--csv %s.csv --json %s.jsonl --plot %s"):format(path, base, base, base))
    assert.equal(0, code, out)
    assert.matches("PREDICTION: how many times", out)
    assert.matches("10 Mbit/s +%d+%.%d+ a", out)
    assert.matches("PREDICTION for 64 ranks at 1 Gbit/s", out)
    local csv, rows = shell.read(base .. ".csv"), 0
    assert.matches("^# PREDICTION", csv)
    for _ in csv:gmatch "\n" do rows = rows + 1 end
    local settings = 1 + 3 * 4 -- dense; three compressors over allgather, sharded, ps down dense and down compress
    assert.equal(2 + 5 * settings, rows)
    local events, chosen = json.read(base .. ".jsonl"), 0
    assert.equal(5 * settings, #events)
    for _, e in ipairs(events) do
      assert.equal("prediction", e.event)
      if e.chosen then chosen = chosen + 1 end
    end
    assert.equal(5, chosen)
    assert.matches("PREDICTION: step time on 64 ranks", shell.read(base .. "-64.svg"))
    os.execute(("rm -f %s %s.csv %s.jsonl %s-64.*"):format(base, base, base, base))
  end)

  it("measures a model, and figures that a file lacks", function()
    local file = os.tmpname()
    os.remove(file)
    local command = script .. "--model lenet --batch 2 --ranks 2 --rates 1mbit --figures " .. file .. " --compress "
    local out, code = spawn.host(command .. "bf16")
    assert.equal(0, code, out)
    local first = simulate.load(file)
    out, code = spawn.host(command .. "'bf16 fp16'")
    assert.equal(0, code, out)
    local second = simulate.load(file)
    assert.same(first.works.bf16, second.works.bf16)
    assert.equal(first.base, second.base)
    assert.is_truthy(second.works.fp16)
    out, code = spawn.host(script .. "--model lenet --batch 3 --figures " .. file)
    assert.equal(2, code)
    assert.matches("holds figures of 'lenet, batch 2", out)
    os.remove(file)
  end)

  it("reads a log", function()
    local log_file = os.tmpname()
    local out, code = spawn.ranks(2, spawn.quote(root .. "scripts/train_cifar.lua") ..
      " --model lenet --batch 2 --train-images 20 --max-steps 4 --eval-every 0 --compress entry:ratio=8 --log " ..
      log_file)
    assert.equal(0, code, out)
    out, code = spawn.host(script .. "--log " .. log_file .. " --ranks 4 --rates 1mbit")
    os.remove(log_file)
    assert.equal(0, code, out)
    assert.matches("entry:ratio=8 over", out)
  end)

  it("prints a check that was run before, without a network", function()
    local file = write(json.encode {event = "check", step = 3.0, exchange = 2.0, compute = 1.0,
      key = "resnet18, batch 16, 1 threads, 2 ranks, 100mbit, none over allreduce, 6 steps"} .. "\n")
    local out, code = spawn.host(script .. ("--figures %s --ranks 2 --rates 1mbit --check --check-ranks 2 " ..
      "--check-settings none/allreduce --check-log %s"):format(path, file))
    os.remove(file)
    assert.equal(0, code, out)
    assert.matches("PREDICTION beside measurement", out)
    assert.matches("largest error of a step: %d+ %%", out)
    assert.matches("3.0 s", out)
  end)

  local refusals = {
    {"", "no figures: --model, --log or --figures"},
    {"--figures /no/such.json", "does not exist; --model measures"},
    {"--figures F --rates fast", "the rate is 'fast'"},
    {"--figures F --cluster 64", "the cluster is '64'"},
    {"--figures F --ranks 2,x", "--ranks is '2,x'"},
    {"--figures F --ranks 0", "number of ranks is 0"},
    {"--figures F --check --check-settings none", "expected COMPRESSOR/TOPOLOGY"},
    {"--figures F --check --check-settings terngrad/allgather", "no figures of 'terngrad'"},
    {"--log /no/such.jsonl", "/no/such.jsonl"},
    {"--model nonsense", "nonsense"},
  }
  for _, case in ipairs(refusals) do
    it("refuses " .. (case[1] == "" and "to guess" or case[1]), function()
      local out, code = spawn.host(script .. case[1]:gsub("F", path))
      assert.is_true(code == 1 or code == 2, out)
      assert.matches(case[2], out, 1, true)
    end)
  end

  it("helps", function()
    local out, code = spawn.host(script .. "--help")
    assert.equal(0, code)
    for _, word in ipairs {"Predicts", "--cluster", "--per-host", "--check", "examples"} do
      assert.matches(word, out, 1, true)
    end
  end)
end)
