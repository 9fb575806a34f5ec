--- Reads the JSONL logs of training runs and prints a table with one row per run.
-- build/atomo-lua scripts/report.lua none.jsonl svd.jsonl entry.jsonl
local atomo = require "atomo"
local cli, log = atomo.cli, atomo.log

local opts = cli.parse {
  name = "report.lua",
  about = "Prints one row per run of one or more logs (--log of the training scripts).",
  examples = {
    "build/atomo-lua scripts/report.lua run.jsonl",
    "build/atomo-lua scripts/report.lua --logs none.jsonl,svd.jsonl --reach 0.6",
    "build/atomo-lua scripts/report.lua run.jsonl --plot curve",
  },
  options = {
    {"logs", "list", nil, "more log files"},
    {"plot", "string", "", "draw the losses over the steps as FILE.svg (and FILE.png if a converter is " ..
      "installed)", metavar = "FILE"},
    {"reach", "number", 0, "show when each run first reaches this test accuracy; 0: do not", min = 0, max = 1},
  },
  positional = {{"log", "string", nil, "log file"}},
}

local paths = opts.logs or {}
if opts.log then table.insert(paths, 1, opts.log) end
if #paths == 0 then
  io.stderr:write("report.lua: no log file was named; --help shows how\n")
  os.exit(2)
end

--- Returns the runs of a log. Runs are appended to a log; each begins with an event "run".
local function runs_of(path)
  local events, bad = log.read(path)
  for _, b in ipairs(bad) do io.stderr:write(("warning: %s\n"):format(b.message)) end
  local runs, run = {}, nil
  for _, e in ipairs(events) do
    if e.event == "run" then
      run = {path = path, settings = e.settings or {}, ranks = e.ranks, steps = 0, images_ms = 0, bytes = 0, dense = 0,
        epochs = {}, losses = {}}
      runs[#runs + 1] = run
    elseif run and e.event == "step" then
      run.losses[#run.losses + 1] = {e.step, e.loss}
      run.steps, run.bytes, run.dense = run.steps + 1, run.bytes + (e.bytes_out or 0), run.dense + (e.dense_bytes or 0)
      run.ms = (run.ms or 0) + (e.ms and e.ms.step or 0)
    elseif run and e.event == "epoch" then
      e.step = run.losses[#run.losses] and run.losses[#run.losses][1]
      run.epochs[#run.epochs + 1] = e
    elseif run and e.event == "end" then
      run.finish = e
    end
  end
  return runs
end

local function percent(v) return v and ("%.2f %%"):format(100 * v) or "-" end

--- Returns when the test accuracy --reach was first reached: "epoch 7, 1m02s".
local function reached(run)
  for _, e in ipairs(run.epochs) do
    if e.test_accuracy and e.test_accuracy >= opts.reach then
      return ("epoch %d, %s"):format(e.epoch, log.duration(e.time))
    end
  end
  return "-"
end

local function best(run)
  local most
  for _, e in ipairs(run.epochs) do
    if e.test_accuracy and (not most or e.test_accuracy > most) then most = e.test_accuracy end
  end
  return most
end

--- Returns losses over steps as at most 200 points, each the mean over equally many steps, without NaN.
local function thinned(losses)
  local points, every = {}, math.ceil(#losses / 200)
  for first = 1, #losses, every do
    local sum, n, last = 0, 0, math.min(#losses, first + every - 1)
    for i = first, last do
      local loss = losses[i][2]
      if type(loss) == "number" then sum, n = sum + loss, n + 1 end
    end
    if n > 0 then points[#points + 1] = {losses[last][1], sum / n} end
  end
  return points
end

--- Returns a chart of every run's training loss, and test loss if it was evaluated.
local function chart_of(runs)
  local series = {}
  for _, run in ipairs(runs) do
    local name = #runs > 1 and ("%s %s "):format(run.path:match "[^/]*$", run.settings.compress or "") or ""
    local test = {}
    for _, e in ipairs(run.epochs) do
      if type(e.test_loss) == "number" and e.step then test[#test + 1] = {e.step, e.test_loss} end
    end
    local training = thinned(run.losses)
    if #training > 0 then series[#series + 1] = {name = name .. "training", points = training} end
    if #test > 0 then series[#series + 1] = {name = name .. "test", points = test} end
  end
  return {title = "Loss over steps", x = {label = "step"}, y = {label = "loss"}, series = series}
end

local header = {"log", "model", "compress", "ranks", "steps", "test", "best", "ms/step", "sent/step", "less", "time"}
if opts.reach > 0 then header[#header + 1] = ("to %g %%"):format(100 * opts.reach) end
local rows, runs = {header}, {}
for _, path in ipairs(paths) do
  for _, run in ipairs(runs_of(path)) do
    runs[#runs + 1] = run
    local last = run.finish or run.epochs[#run.epochs] or {}
    local row = {
      path:match "[^/]*$", run.settings.model or "-", run.settings.compress or "-", run.ranks or "-", run.steps,
      percent(last.test_accuracy), percent(best(run)),
      run.steps > 0 and run.ms and ("%.1f"):format(run.ms / run.steps) or "-",
      run.steps > 0 and log.bytes(run.bytes / run.steps) or "-",
      run.bytes > 0 and log.ratio(run.dense / run.bytes) or "-",
      last.time and log.duration(last.time) .. (run.finish and "" or " (unfinished)") or "-",
    }
    if opts.reach > 0 then row[#row + 1] = reached(run) end
    rows[#rows + 1] = row
  end
end
if #rows == 1 then
  io.stderr:write("report.lua: no run in " .. table.concat(paths, ", ") .. "\n")
  os.exit(1)
end
print(log.table(rows))
if opts.plot ~= "" then
  local written = require("atomo.tools.plot").save(opts.plot, chart_of(runs))
  print("written: " .. table.concat(written, ", "))
end
