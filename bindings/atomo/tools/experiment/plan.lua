--- The runs of an experiment: the command of each, its log, and whether it is done. A run's name has a hash of its
-- settings and network, so that a log is used again only if all of them are the same.
local bit = require "bit"
local files = require "atomo.core.files"
local renamed = require("atomo.core.renamed").exchange
local log = require "atomo.core.log"
local process = require "atomo.tools.experiment.process"

local M = {}

---@class atomo.ExperimentRun
---@field kind string      "train": the whole run; "clock": a few steps, to measure their time
---@field compress string  option --compress of train_cifar.lua
---@field topology string
---@field lr number
---@field seed integer
---@field epochs integer
---@field name string      name of its files, in folder/runs
---@field command string   command line without --log
---@field path string      path of its log, which exists when it is complete

-- Renamed values, old -> new and new -> old. Names of runs keep the old values, so that runs of earlier versions are
-- found.
local CURRENT, EARLIER = {}, {topology = {}, compress = {}}
for option, earlier in pairs(EARLIER) do
  CURRENT[option] = renamed[option].values
  for old, new in pairs(CURRENT[option]) do earlier[new] = old end
end

--- "svd:ratio=16,bits=8@sharded" -> "svd:ratio=16,bits=8", "sharded"
---@param item string
---@param topology string  used if the item has none
function M.split(item, topology)
  local spec, at = item:match "^(.-)@([%w_]+)$"
  spec, topology = spec or item, at or topology
  return CURRENT.compress[spec] or spec, CURRENT.topology[topology] or topology
end

--- Returns the 32-bit FNV-1a hash in hexadecimal.
local function fingerprint(text)
  local h = 2166136261
  for i = 1, #text do
    h = bit.bxor(h, text:byte(i))
    h = (h % 65536 * 16777619 + math.floor(h / 65536) * 16777619 % 65536 * 65536) % 2 ^ 32
  end
  return ("%08x"):format(h)
end

--- Returns a number as text with as many digits as are needed to read it back exactly.
local function exact(v)
  local short = ("%.14g"):format(v)
  return tonumber(short) == v and short or ("%.17g"):format(v)
end

--- Makes a run. opts: folder; program and script, the start of the command; network and here, {prefix of the command,
--- name}: where runs that measure times are started, and where all others are (here = nil: on the network, too); ranks,
--- epochs, batch, model, data, threads, train (further options, text), clock_steps.
---@return atomo.ExperimentRun
function M.run(opts, kind, item, lr, seed, epochs)
  local spec, topology = M.split(item, opts.topology)
  local words = {"--compress", process.word(spec), "--topology", topology, "--lr", exact(lr), "--seed", exact(seed),
    "--epochs", exact(epochs), "--batch", exact(opts.batch), "--model", process.word(opts.model), "--threads",
    exact(opts.threads)}
  if opts.data ~= "" then words[#words + 1] = "--data " .. process.word(opts.data) end
  if opts.train ~= "" then words[#words + 1] = opts.train end
  if kind == "clock" then words[#words + 1] = ("--stop-after %d --eval-every 0"):format(opts.clock_steps) end
  local earlier = {"--compress", EARLIER.compress[spec] or words[2], "--topology",
    EARLIER.topology[topology] or topology, unpack(words, 5)}
  local place, settings = kind == "clock" and opts.network or opts.here or opts.network, table.concat(words, " ")
  local run = {kind = kind, item = item, compress = spec, topology = topology, lr = lr, seed = seed, epochs = epochs,
    ranks = opts.ranks}
  run.command = ("%s %s %s %s"):format(place.prefix, process.word(opts.program), process.word(opts.script), settings)
  local earlier_item = item:gsub("^adaptive", "auto")
  run.name = ("%s_%s_lr%s_seed%d_%s"):format(kind, earlier_item:gsub("[^%w%.=@-]+", "_"), exact(lr), seed,
    fingerprint(("%s, %d ranks: %s"):format(place.name, opts.ranks, table.concat(earlier, " "))))
  run.base = opts.folder .. "/runs/" .. run.name
  run.path = run.base .. ".jsonl"
  return run
end

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Returns why a log is not a complete log of the run; nil if it is.
local function wrong_with(run, events, bad)
  local first, last = events[1] or {}, events[#events] or {}
  if #bad > 0 then return "it is damaged: " .. bad[1].message end
  if first.event ~= "run" or last.event ~= "end" then return "it is not complete" end
  for _, key in ipairs {"compress", "topology", "lr", "seed", "epochs"} do
    local found = (first.settings or {})[key]
    local earlier = EARLIER[key] and EARLIER[key][run[key]]
    if found == nil or found ~= run[key] and found ~= earlier then
      return ("its %s is %s, expected %s"):format(key, tostring(found), tostring(run[key]))
    end
  end
  if first.ranks ~= run.ranks then
    return ("it has %s ranks, expected %d: --ranks must be what the command starts"):format(tostring(first.ranks),
      run.ranks)
  end
end

--- Returns the state of a run: "done" and its events, "failed" and why, or "open".
---@param run atomo.ExperimentRun
function M.state(run)
  if exists(run.path) then
    local events, bad = log.read(run.path)
    local why = wrong_with(run, events, bad)
    if why then return "failed", ("%s is no log of this run: %s"):format(run.path, why) end
    return "done", events
  end
  local file = io.open(run.base .. ".failed", "rb")
  if not file then return "open" end
  local why = file:read "*a"
  file:close()
  return "failed", why
end

--- Returns the most informative line of a failed run's output: the first one in the frame "stopped by an error", else
--- the first that begins with the name of a program, else the last.
---@param text string
function M.last_words(text)
  local frame, named, last
  for line in text:gmatch "[^\r\n]+" do
    line = line:gsub("\27%[[%d;]*m", ""):match "^%s*(.-)%s*$"
    if frame == true then frame = line end
    if line:find "^%-%-%-%- .*stopped by an error" then frame = frame or true end
    if line:find "^atomo%-lua[ ,:]" or line:find "^netlab:" or line:find "^[%w_]+%.lua: " then named = named or line end
    if line:find "%w" then last = line end
  end
  return type(frame) == "string" and frame or named or last or "no output"
end

local function read_file(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text
end

local function write_file(path, text) files.save("experiment", path, text) end

--- Executes a run. Its log gets its name only when it is complete. Returns true, or false and why.
---@param run atomo.ExperimentRun
---@param limit number?  seconds after which the run is ended; default: no limit
function M.carry_out(run, limit)
  local part, out = run.base .. ".part", run.base .. ".out"
  os.remove(part)
  os.remove(run.base .. ".failed")
  write_file(out, "$ " .. run.command .. "\n")
  local code = process.run(run.command .. " --log " .. process.word(part), out, limit)
  local why
  if code == 0 and exists(part) then
    assert(os.rename(part, run.path))
    return true
  elseif code == 0 then
    why = "it ended well but wrote no log"
  elseif code == nil then
    why = ("ended after %g s (--limit)"):format(limit)
  else
    why = ("exit code %d: %s"):format(code, M.last_words(read_file(out):gsub("^[^\n]*\n", "")))
  end
  write_file(run.base .. ".failed", why)
  return false, why
end

return M
