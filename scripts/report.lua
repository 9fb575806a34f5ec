--- Reads the JSONL logs of training runs: prints a table with one row per run, writes an HTML page with charts.
-- build/atomo-lua scripts/report.lua none.jsonl svd.jsonl entry.jsonl -o report.html
local atomo = require "atomo"
local cli, log = atomo.cli, atomo.log
local charts = require "atomo.tools.report.charts"
local files = require "atomo.core.files"
local page = require "atomo.tools.report.page"
local plot = require "atomo.tools.plot"
local runs = require "atomo.tools.runs"
local series = require "atomo.tools.report.series"
local tables = require "atomo.tools.report.tables"

local opts = cli.parse {
  name = "report.lua",
  about = "Prints one row per run of one or more logs (--log of the training scripts), and writes a page that shows " ..
    "accuracy and loss against time, epochs and bytes, the time of a step, bytes and variance by layer, and settings.",
  examples = {
    "build/atomo-lua scripts/report.lua run.jsonl",
    "build/atomo-lua scripts/report.lua none.jsonl svd.jsonl -o report.html",
    "build/atomo-lua scripts/report.lua none.jsonl svd.jsonl --reach 0.6 --charts figures/cifar",
    "build/atomo-lua scripts/report.lua run.jsonl --plot curve",
  },
  options = {
    {"output", "string", "", "write a page as FILE: one file, for a browser or for printing", metavar = "FILE.html",
      alias = {"o"}},
    {"title", "string", "", "title of the page", metavar = "TEXT"},
    {"charts", "string", "", "write every chart as PREFIX_NAME.svg (and .png if rsvg-convert or ImageMagick is " ..
      "installed)", metavar = "PREFIX"},
    {"plot", "string", "", "draw the losses over the steps as FILE.svg (and FILE.png if a converter is " ..
      "installed)", metavar = "FILE"},
    {"reach", "number", 0, "show when each run first reaches this test accuracy; 0: off", min = 0, max = 1},
    {"logs", "list", nil, "more log files"},
  },
  positional = {{"log", "string", nil, "log file", repeated = true}},
}

local paths = opts.log
for _, path in ipairs(opts.logs or {}) do paths[#paths + 1] = path end
if #paths == 0 then
  io.stderr:write("report.lua: no log file was named; --help shows how\n")
  os.exit(2)
end
local kind = opts.output:lower():match "%.(%a+)$"
if kind == "svg" or kind == "png" or kind == "pdf" then
  io.stderr:write(("report.lua: --output %s: the page is HTML, name it FILE.html; --charts PREFIX and --plot FILE " ..
    "write SVG and PNG, and a browser prints the page to PDF\n"):format(opts.output))
  os.exit(2)
end
local list = runs.read_all(paths, function(text) io.stderr:write(("warning: %s\n"):format(text)) end)
series.name_runs(list)

print(log.table(tables.results(list, opts.reach, "log", function(run) return run.path:match "[^/]*$" end)))

local written = {}
local function note(paths_written)
  for _, path in ipairs(paths_written) do written[#written + 1] = path end
end

--- Returns a chart of every run's training loss, and test loss if it was evaluated, over steps.
local function loss_chart()
  local axis = {key = "steps", label = "step", units = {{1, ""}},
    of = function(e) return e.event == "epoch" and e.last_step or e.step end}
  local curves = series.of(list, axis, "loss")
  for _, s in ipairs(curves) do
    if #list == 1 then s.name = s.name:match "[^,]*$":gsub("^ ", "") end
  end
  return {title = "Loss over steps", x = {label = "step"}, y = {label = "loss", clip = true}, series = curves}
end

if opts.output ~= "" then
  local title = opts.title ~= "" and opts.title or ("Report of %d run%s"):format(#list, #list == 1 and "" or "s")
  files.save("report", opts.output, page.html(list, title, opts.reach))
  note {opts.output}
end
if opts.charts ~= "" then
  local all = charts.curves(list, 720, true)
  all[#all + 1] = charts.times(list, 900)
  for _, chart in ipairs(charts.layers(list, 800)) do all[#all + 1] = chart end
  for _, chart in ipairs(all) do note(plot.save_svg(opts.charts .. "_" .. chart.name, chart.svg)) end
end
if opts.plot ~= "" then note(plot.save(opts.plot, loss_chart())) end
if #written > 0 then print("written: " .. table.concat(written, ", ")) end
