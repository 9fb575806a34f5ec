-- The parts of time_to_accuracy.lua on logs made up here: curves, times to an accuracy, tables, the claims of the
-- paper, the names of runs and what counts as a complete log.
local plan = require "atomo.tools.experiment.plan"
local curve = require "atomo.tools.experiment.curve"
local claims = require "atomo.tools.experiment.claims"
local summary = require "atomo.tools.experiment.summary"
local log = require("atomo").log

--- A log of epochs of two steps of `ms` each that send `bytes`; accuracies by epoch.
local function events(ms, bytes, accuracies, settings)
  local list = {{event = "run", ranks = 2, settings = settings or {}}}
  for epoch, a in ipairs(accuracies) do
    for k = 1, 2 do
      list[#list + 1] = {event = "step", step = 2 * epoch - 2 + k, epoch = epoch, loss = 2 / (epoch + k),
        bytes_out = bytes, dense_bytes = 1000, ms = {step = ms}}
    end
    list[#list + 1] = {event = "epoch", epoch = epoch, test_accuracy = a}
  end
  list[#list + 1] = {event = "end", test_accuracy = accuracies[#accuracies]}
  return list
end

local function row(compress, ms, bytes, ...)
  local r = {item = compress, compress = compress, lr = 0.1, wanted = select("#", ...), failures = {}, curves = {}}
  for k, accuracies in ipairs {...} do r.curves[k] = curve.read(events(ms, bytes, accuracies)) end
  return r
end

describe("a curve", function()
  it("has the training time without evaluation, and the bytes, at every evaluation", function()
    local c = curve.read(events(500, 10, {0.25, 0.5, 0.75}))
    assert.same({6, 500, 10, 1000, 0.75}, {c.steps, c.step_ms, c.bytes_step, c.dense_step, c.final})
    assert.same({epoch = 2, step = 4, seconds = 2, bytes = 40, accuracy = 0.5}, c.points[2])
    assert.equal(3, curve.reach(c, 0.5 + 1e-9).seconds)
    assert.equal(2, curve.reach(c, 0.5).seconds)
    assert.is_nil(curve.reach(c, 0.8))
  end)

  it("takes its times from a bit-identical timed run, and from no other", function()
    local c, timed = curve.read(events(500, 10, {0.25, 0.5})), curve.read(events(9000, 10, {0.25}))
    curve.set_clock(c, timed, 2000)
    assert.equal(8, c.points[2].seconds)
    timed.losses[2] = timed.losses[2] * (1 + 2 ^ -52)
    local ok, why = pcall(curve.set_clock, c, timed, 2000)
    assert.is_false(ok)
    assert.matches("at step 2 its loss is", why)
  end)

  it("leaves out the first steps of a timed run", function()
    local list = events(100, 1, {0.1, 0.2})
    list[2].ms.step, list[3].ms.step = 9000, 8000
    assert.equal(100, curve.steady_ms(list, 2))
  end)

  it("averages over seeds", function()
    local points = curve.average {curve.read(events(100, 10, {0.2, 0.4})), curve.read(events(300, 30, {0.4, 0.6}))}
    assert.same({seconds = 0.4, bytes = 40}, {seconds = points[1].seconds, bytes = points[1].bytes})
    assert.is_true(math.abs(points[2].accuracy - 0.5) < 1e-12)
    assert.is_true(curve.standard_error {1, 3} == 1)
    assert.is_nil(curve.standard_error {1})
  end)
end)

describe("the time to an accuracy", function()
  it("is the median over seeds, and infinite where half of them do not get there", function()
    local r = row("none", 1000, 1, {0.2, 0.6}, {0.6, 0.6}, {0.2, 0.3})
    local t, reached = claims.time_to(r, 0.6)
    assert.same({4, 2}, {t, reached})
    r.curves[1] = r.curves[3]
    assert.equal(math.huge, (claims.time_to(r, 0.6)))
    assert.equal(math.huge, (claims.time_to({curves = {}}, 0.6)))
  end)
end)

describe("the claims", function()
  local function verdicts(rows)
    local list = {}
    for k, c in ipairs(claims.judge(rows, {0.5, 0.6}, 0.01)) do list[k] = c.verdict end
    return list, claims.judge(rows, {0.5, 0.6}, 0.01)
  end
  local good = {0.5, 0.6}

  it("hold where best against best does", function()
    local list, judged = verdicts {row("none", 900, 1000, good), row("svd:ratio=64", 100, 10, good),
      row("svd:ratio=16", 400, 10, good), row("qsgd:bits=4", 200, 100, good), row("terngrad", 300, 60, good)}
    assert.same({"holds", "holds", "holds"}, list)
    assert.matches("2.00x to 50 %% %(svd:ratio=64 against qsgd:bits=4%)", judged[1].why)
  end)

  it("do not hold, or for the most favourable pair only", function()
    local list, judged = verdicts {row("none", 900, 1000, {0.5, 0.65}), row("svd:ratio=64", 100, 10, good),
      row("qsgd:bits=2", 150, 50, good), row("qsgd:bits=8", 250, 200, good), row("terngrad", 200, 60, good)}
    assert.same({"holds for chosen pairs only", "does not hold", "does not hold"}, list)
    assert.matches("best against best: 1.50x .*most favourable pair: 2.50x", judged[1].why)
    assert.matches("not: svd:ratio=64 %(%-5.00 points%); of one seed", judged[3].why)
  end)

  it("are not judged without results", function()
    assert.same({"not tested", "not tested", "not tested"}, (verdicts {row("none", 900, 1000, good)}))
    local list, judged = verdicts {row("none", 900, 1000, good), row("svd:ratio=64", 100, 10, {0.1, 0.2}),
      row("qsgd", 1, 1, good)}
    assert.equal("not tested", list[1])
    assert.matches("no accuracy of %-%-reach was reached by both", judged[1].why)
  end)
end)

describe("the summary", function()
  local rows = {row("none", 1000, 1000, {0.5, 0.6}), row("svd:ratio=64", 100, 10, {0.25, 0.5}, {0.5, 0.75}),
    {item = "entry", compress = "entry", curves = {}, wanted = 1, failures = {{name = "a", why = "cosmic ray"}}}}

  it("has a row per compressor, and failed runs below", function()
    local text = summary.table(rows, {0.6})
    assert.matches("none +0.1 +1/1 +60.00 %% +1000.0 +1.00 kB +1.0x +4.0 s +4.00 kB", text)
    assert.matches("svd:ratio=64 +0.1 +2/2 +62.50 %% ±12.50 +100.0 +10 B +100x +%- %(1 of 2%)", text)
    assert.matches("entry +%- +0/1 +failed", text)
    assert.matches("failed: a: cosmic ray", text)
  end)

  it("sets times against those of others", function()
    assert.matches("svd:ratio=64 +6.67x", summary.speedups(rows, 0.5, {"none"}))
    assert.is_nil(summary.speedups(rows, 0.9, {"none"}))
  end)

  it("shows the search of a learning rate, where there was one", function()
    rows[1].search = {[0.1] = 0.6, [0.2] = 0.5}
    local text = summary.search(rows, {0.1, 0.2})
    assert.matches("none +60.00 %% %* +50.00 %%", text)
    assert.is_nil(summary.search(rows, {0.1}))
  end)

  it("is plain data, and charts that can be drawn", function()
    local plain = log.decode(log.encode(summary.plain(rows[2], {0.6})))
    assert.equal(1, plain.reach[1].seeds)
    assert.is_nil(plain.reach[1].seconds) -- infinite
    assert.equal(0.75, plain.runs[2].points[2].accuracy)
    local charts = summary.charts(rows, "title")
    assert.equal(2, #charts.accuracy_time.series)
    assert.same({0.4, 62.5}, charts.accuracy_time.series[2].points[2])
    assert.same({4000, 60}, charts.accuracy_bytes.series[1].points[2])
  end)
end)

describe("a run", function()
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir -p " .. folder .. "/runs")
  teardown(function() os.execute("rm -r " .. folder) end)
  local opts = {folder = folder, program = "a tool", script = "train.lua", network = {prefix = "go -n 2", name = "net"},
    ranks = 2, epochs = 3, batch = 8, model = "mlp", data = "", threads = 1, topology = "auto", train = "--warmup 3",
    clock_steps = 7}

  it("has a command, and a name that changes with every setting but not with the place of the program", function()
    local run = plan.run(opts, "train", "svd:ratio=4@ps", 0.1, 5, 3)
    assert.equal("go -n 2 'a tool' train.lua --compress svd:ratio=4 --topology ps --lr 0.1 --seed 5 --epochs 3 " ..
      "--batch 8 --model mlp --threads 1 --warmup 3", run.command)
    local seen = {[run.name] = true}
    local function differs(change)
      local other = setmetatable(change, {__index = opts})
      local name = plan.run(other, "train", "svd:ratio=4@ps", 0.1, 5, 3).name
      assert.is_nil(seen[name])
      seen[name] = true
    end
    differs {batch = 9}
    differs {train = "--warmup 4"}
    differs {network = {prefix = "go -n 2", name = "other"}}
    differs {ranks = 3}
    differs {data = "folder"}
    local moved = setmetatable({program = "/b", network = {prefix = "/bin/go -n 2", name = "net"}}, {__index = opts})
    assert.equal(run.name, plan.run(moved, "train", "svd:ratio=4@ps", 0.1, 5, 3).name)
    local clock = plan.run(opts, "clock", "none", 0.1, 5, 3)
    assert.matches("%-%-stop%-after 7 %-%-eval%-every 0$", clock.command)
  end)

  it("is done where its log is complete and of the same settings, and of none else", function()
    local run = plan.run(opts, "train", "entry", 0.1, 5, 3)
    local settings = {compress = "entry", topology = "auto", lr = 0.1, seed = 5, epochs = 3}
    local function write(list)
      os.remove(run.path)
      local file = log.open(run.path)
      for _, e in ipairs(list) do file:write(e) end
      file:close()
    end
    assert.equal("open", plan.state(run))
    local list = events(1, 1, {0.1}, settings)
    write(list)
    local state, read = plan.state(run)
    assert.equal("done", state)
    assert.equal(#list, #read)
    local function refused(text)
      write(list)
      local other, why = plan.state(run)
      assert.equal("failed", other)
      assert.matches(text, why, 1, true)
    end
    settings.lr = 0.2
    refused "its lr is 0.2, expected 0.1"
    settings.lr, list[1].ranks = 0.1, 3
    refused "it has 3 ranks, expected 2"
    list[#list] = nil
    refused "it is not complete"
    list[1].ranks = 2
    write(list)
    local file = assert(io.open(run.path, "ab"))
    file:write '{"event":"end"'
    file:close()
    assert.matches("it is damaged: .*:5: json", select(2, plan.state(run)))
  end)

  it("repeats the error of a failed run", function()
    assert.equal("no memory",
      plan.last_words "lots\n---- rank 1 of 2 on h1: stopped by an error ----\nno memory\nstack\n")
    assert.equal("atomo-lua: bad spec", plan.last_words "echo\natomo-lua: bad spec\nstack traceback:\n  [C]\n")
    assert.equal("netlab: skipped: no root", plan.last_words "netlab: skipped: no root\n")
    assert.equal("Killed", plan.last_words "\27[1mstep\27[0m\nKilled\n----\n\n")
    assert.equal("no output", plan.last_words "")
  end)
end)
