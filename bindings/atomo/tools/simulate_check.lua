--- simulate.lua --check: trains on netlab's hosts and prints predictions beside measurements. The hosts share this
-- machine's cores, so computing is predicted to take ranks * threads / cores times as long. Runs that are in the log
-- file already are not repeated.
local simulate = require "atomo.tools.simulate"
local cost = require "atomo.exchange.auto.cost"
local log = require "atomo.core.log"
local quoted = require("atomo.core.shell_words").quote
local C = require("atomo.ffi").C

--- Returns the paths of this program and of the folder scripts.
local function paths()
  local pipe = io.popen "readlink /proc/$PPID/exe"
  local exe = pipe:read "*l"
  pipe:close()
  return exe, (arg[0]:match "^(.*)/[^/]*$" or ".")
end

--- Returns the run with this key from the log file, or nil.
local function done_already(path, key)
  local file = io.open(path, "rb")
  if not file then return nil end
  file:close()
  for _, e in ipairs((log.read(path))) do
    if e.event == "check" and e.key == key then return e end
  end
end

local units = {us = 1e-6, ms = 1e-3, s = 1}

--- Returns the seconds of a time such as 40ms; 0 for "".
local function seconds_of(text, fail)
  if text == "" then return 0 end
  local number, unit = text:match "^([%d.]+)(%a+)$"
  if not tonumber(number) or not units[unit] then fail(("--check-delay is '%s', expected e.g. 40ms"):format(text)) end
  return tonumber(number) * units[unit]
end

--- Trains on netlab; returns the run's times, or nil and an error text.
local function train(case, opts, figures)
  local exe, scripts = paths()
  local name = os.tmpname()
  local delay = opts.check_delay ~= "" and " --delay " .. quoted(opts.check_delay) or ""
  local command = ("sh %s run %d %s%s --name check -- %s %s --model %s --batch %d --threads %d --compress %s " ..
    "--topology %s --max-steps %d --eval-every 0 --train-images %d --log %s > %s.out 2>&1"):format(
    quoted(scripts .. "/netlab.sh"), case.ranks, opts.check_rate, delay, quoted(exe),
    quoted(scripts .. "/train_cifar.lua"), quoted(figures.model), figures.batch, figures.threads,
    quoted(case.compress), case.topology, opts.check_steps,
    case.ranks * figures.batch * opts.check_steps, quoted(name), quoted(name))
  local code = os.execute(command)
  local run = simulate.runs(name)[1]
  local out = io.open(name .. ".out", "rb")
  local said = out and out:read "*a" or ""
  if out then out:close() end
  os.remove(name)
  os.remove(name .. ".out")
  if code ~= 0 or not run or not run.ms.step then
    return nil, ("%s\nfailed with status %s:\n%s"):format(command, tostring(code), said)
  end
  return run
end

--- Measures one case, or reads it from the log file.
local function measure(case, opts, figures)
  local rate = opts.check_rate .. (opts.check_delay ~= "" and " and " .. opts.check_delay or "")
  local key = ("%s, %d ranks, %s, %s over %s, %d steps"):format(figures.source, case.ranks, rate,
    case.compress, case.topology, opts.check_steps)
  local e = done_already(opts.check_log, key)
  if e then return e end
  local run, why = train(case, opts, figures)
  if not run then return nil, why end
  local ms = run.ms
  e = {event = "check", key = key, step = ms.step / 1e3, exchange = (ms.encode + ms.exchange + ms.decode) / 1e3,
    compute = (ms.forward + ms.backward + ms.update + ms.data) / 1e3}
  local file = log.open(opts.check_log)
  file:write(e)
  file:close()
  return e
end

--- Returns the model's seconds for a case: of a step, and of its exchange.
local function predict(case, opts, figures, hardware)
  local scale = math.max(1, case.ranks * figures.threads / C.atomo_num_host_cores())
  local w = {}
  for key, value in pairs(figures.works[case.compress]) do w[key] = value end
  w.encode, w.decode, w.copy = scale * w.encode, scale * w.decode, scale * w.copy
  w.backward = scale * figures.backward
  local net = simulate.network(case.ranks, simulate.rate(opts.check_rate),
    {latency = hardware.latency, per_host = 1})
  local c = cost.exchange(net, w, case)
  return scale * figures.base + c.seconds, c.seconds
end

local function percent(predicted, measured) return ("%+.0f %%"):format(100 * (predicted / measured - 1)) end

local function cases(opts, figures, fail)
  local list = {}
  for _, ranks in ipairs(opts.check_ranks) do
    for text in opts.check_settings:gmatch "%S+" do
      local compress, topology = text:match "^(.+)/(%a+)$"
      if not compress then fail(("--check-settings: '%s', expected COMPRESSOR/TOPOLOGY"):format(text)) end
      if not figures.works[compress] then fail(("--check-settings: no figures of '%s'"):format(compress)) end
      list[#list + 1] = {ranks = ranks, compress = compress, topology = topology}
    end
  end
  return list
end

---@param figures table   figures measured with --model, which have fields model, batch and threads
---@param opts table      options of the script
---@param hardware table  {latency=}
---@param fail fun(text: string)
return function(figures, opts, hardware, fail)
  if not figures.model then fail "--check needs figures measured with --model" end
  hardware = {latency = hardware.latency + seconds_of(opts.check_delay, fail) / 2} -- a message goes one way
  local rows, worst = {{"hosts", "compressor", "topology", "step predicted", "measured", "error", "exchange predicted",
    "measured"}}, 0
  for _, case in ipairs(cases(opts, figures, fail)) do
    local e, why = measure(case, opts, figures)
    if not e then
      io.stderr:write("simulate.lua: check: ", why, "\n")
      os.exit(1)
    end
    local step, exchange = predict(case, opts, figures, hardware)
    worst = math.max(worst, math.abs(step / e.step - 1))
    rows[#rows + 1] = {case.ranks, case.compress, case.topology, log.duration(step), log.duration(e.step),
      percent(step, e.step), log.duration(exchange), log.duration(e.exchange)}
  end
  print(("\ncheck on netlab, links of %s%s, hosts sharing %d cores: PREDICTION beside measurement"):format(
    opts.check_rate, opts.check_delay ~= "" and ", round trips longer by " .. opts.check_delay or "",
    C.atomo_num_host_cores()))
  print(log.table(rows))
  print(("largest error of a step: %.0f %%"):format(100 * worst))
end
