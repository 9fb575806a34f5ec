--- Shows a training run in the terminal while it runs, from its log: loss, accuracy, speed.
--   build/atomo-lua scripts/watch.lua run.jsonl
local atomo = require "atomo"
local cli, log = atomo.cli, atomo.log
local files = require "atomo.core.files"
local runs = require "atomo.tools.runs"
local series = require "atomo.tools.report.series"
local watch = require "atomo.tools.watch"

local opts = cli.parse {
  name = "watch.lua",
  about = "Shows the last run of each log (--log of the training scripts) in the terminal while it runs: loss and " ..
    "accuracy as charts, speed, a step's time by stage, the last epochs. Ends when all runs have ended.",
  examples = {
    "build/atomo-lua scripts/watch.lua run.jsonl",
    "build/atomo-lua scripts/watch.lua none.jsonl svd.jsonl --every 10",
    "build/atomo-lua scripts/watch.lua run.jsonl --once --width 80",
  },
  options = {
    {"every", "number", 2, "time between two updates of the screen", above = 0, max = 3600, unit = "seconds"},
    {"once", "flag", false, "print the screen once and exit, as without a terminal"},
    {"width", "int", 0, "columns; 0: those of the terminal, else 100", min = 0, max = 1000},
    {"height", "int", 14, "rows of a chart", min = 7, max = 200},
  },
  positional = {{"log", "string", nil, "log file", required = true, repeated = true}},
}

--- Returns the last run of each log.
local function last_runs()
  local list = {}
  for _, path in ipairs(opts.log) do
    local found = runs.read_all({path}, function() end) -- the last line may be half written
    list[#list + 1] = found[#found]
  end
  series.name_runs(list)
  return list
end

--- Waits; Ctrl-C ends the program meanwhile.
local function wait(seconds)
  local ffi = require "ffi"
  pcall(ffi.cdef, "int usleep(unsigned int)")
  local left = seconds
  while left > 0 do
    ffi.C.usleep(math.min(left, 0.2) * 1e6)
    left = left - 0.2
  end
end

local function ended(list)
  for _, run in ipairs(list) do
    if not run.finish then return false end
  end
  return true
end

local live = not opts.once and log.width() > 0
while true do
  local list, columns = last_runs(), log.width()
  local width = opts.width > 0 and opts.width or columns > 0 and columns or 100
  files.put((live and "\27[H\27[J" or "") .. watch.screen(list, width, opts.height) .. "\n")
  if not live or ended(list) then break end
  wait(opts.every)
end
