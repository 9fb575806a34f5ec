#!/usr/bin/env atomo-lua
--- Measures the exchange alone, on the network that it runs on: gradients of 1 KB to 64 MB by each topology and
-- compressor. Prints time, bytes per rank, and the share of the link's rate that they reach; also JSON and a chart.
-- With --json, a bench that was stopped resumes.
local atomo = require "atomo"
local topologies = require("atomo.exchange").topologies
local renamed = require("atomo.core.renamed").exchange
local C = require("atomo.ffi").C
local median = require "atomo.core.median"
local log = atomo.log

local opts = atomo.cli.parse {
  name = "bench_exchange.lua",
  about = "Exchanges generated gradients between the ranks. Times are medians of whole steps (encode, transfer, " ..
    "decode), without a backward pass that would overlap them. The link rate is measured first, from rank 0 to the " ..
    "last rank.",
  examples = {
    "sh scripts/netlab.sh run 4 100mbit -- build/atomo-lua scripts/bench_exchange.lua --json b.jsonl --plot b",
    "mpirun -n 2 build/atomo-lua scripts/bench_exchange.lua --sizes 64K,1M --compress 'none svd:ratio=64,bits=8'",
    "mpirun -n 8 build/atomo-lua scripts/bench_exchange.lua --topology sharded,allgather --compress all",
  },
  options = {
    {"sizes", "string", "1K,16K,256K,4M,64M", "bytes of the fp32 gradient; K, M and G are powers of 1024"},
    {"topology", "list", topologies, "topologies; combinations that do not work are left " ..
      "out", choices = topologies},
    {"compress", "string", "none svd:ratio=64,bits=8 entry:ratio=64", "compressors, separated by spaces; all: " ..
      "every built-in one"},
    {"repeat", "int", 5, "timed steps of each case, after one to warm up; the median counts", min = 1},
    {"seconds", "number", 20, "end a case after X seconds, with the steps done so far; leave it out if a step is " ..
      "expected to take longer", above = 0, unit = "s"},
    {"total", "number", 600, "begin no further case after X seconds", above = 0, unit = "s"},
    {"downlink", "choice", "dense", "with topology ps: how rank 0 sends the average back",
      choices = {"dense", "compress"}, was = renamed.downlink.was},
    {"threads", "int", 1, "threads of each rank", min = 1},
    {"json", "string", "", "append one JSON object per case to FILE; cases in it are not repeated", metavar = "FILE"},
    {"plot", "string", "", "draw time against size as FILE.svg", metavar = "FILE"},
  },
}

local world = atomo.mpi.world
atomo.set_num_threads(opts.threads)

local function say(...) if world.rank == 0 then print(string.format(...)) end end

local function parse_size(text)
  local n, unit = text:match "^(%d+)([KMG]?)$"
  local bytes = n and tonumber(n) * ({[""] = 1, K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30})[unit]
  if not bytes or bytes < 4 then error(("bench_exchange: size '%s', expected e.g. 64K or 4M"):format(text), 0) end
  return bytes
end

--- Returns bytes per second from rank 0 to the last rank: the faster of two messages that take 0.3 s or more.
local function link_rate()
  if world.size == 1 then return nil end
  local best, n, took = 0, 2 ^ 18, atomo.zeros(1)
  repeat -- larger messages until one takes 0.3 s
    n = n * 4
    local t = atomo.zeros(n / 4)
    world:barrier()
    local from, answer = C.atomo_time(), atomo.zeros(1)
    if world.rank == 0 then
      world:send(t, world.size - 1)
      world:recv(answer, world.size - 1)
    elseif world.rank == world.size - 1 then
      world:recv(t, 0)
      world:send(answer, 0)
    end
    took:fill_(C.atomo_time() - from)
    world:bcast(took, 0)
    best = math.max(best, n / took:item())
    t:free()
  until took:item() > 0.3 or n >= 2 ^ 28
  return best
end

--- Makes gradients of `bytes` bytes in all, in layers of at most 2.25 MB: low rank plus noise.
local function gradients(bytes)
  local list, left = {}, math.floor(bytes / 4)
  atomo.manual_seed(world.rank + 1)
  while left > 0 do
    local n = math.min(left, 256 * 2304)
    local rows = math.max(1, math.min(256, 2 ^ math.floor(math.log(math.sqrt(n)) / math.log(2))))
    local columns = math.max(1, math.floor(n / rows))
    local g = atomo.randn(rows, columns):mul_(0.1)
    g:add_(atomo.randn(rows, 1):matmul(atomo.randn(1, columns)))
    list[#list + 1] = g
    left = left - rows * columns
  end
  return list
end

--- Measures one case: median seconds on the slowest rank, bytes sent and received by the busiest rank.
local function measure(topology, compress, bytes)
  local down = topology == "ps" and opts.down or nil -- other topologies do not have this option
  local made, ex = pcall(atomo.exchange, {topology = topology, compress = compress, downlink = down, min_size = 128})
  if not made then return nil, tostring(ex):gsub("^.-exchange: ", "") end
  local source, work, times, began = gradients(bytes), {}, {}, nil
  for i, g in ipairs(source) do work[i] = g:clone() end
  local busiest, late = atomo.zeros(3), atomo.zeros(1)
  local p = busiest:data()
  for k = 0, opts["repeat"] do
    for i, g in ipairs(source) do work[i]:copy_(g) end
    world:barrier()
    local from = C.atomo_time()
    began = began or from
    for i = #work, 1, -1 do ex:push(i, work[i]) end
    ex:finish()
    local s = ex:stats()
    p[0], p[1], p[2] = C.atomo_time() - from, s.bytes_out, s.bytes_in
    world:allreduce(busiest, "max")
    if k > 0 then times[k] = p[0] end
    late:fill_(C.atomo_time() - began)
    world:allreduce(late, "max")
    if k > 0 and late:item() > opts.seconds then break end
  end
  local result = {seconds = median(times), steps = #times, bytes_out = p[1], bytes_in = p[2]}
  for i = 1, #work do work[i]:free() source[i]:free() end
  return result
end

--- Returns the key of a case, also of one in the log.
local function key_of(e)
  return table.concat({e.topology, e.compress, e.dense_bytes, e.ranks, e.down, e.threads}, " ")
end

--- Returns the cases in the log by key, on rank 0; an empty table on other ranks.
local function earlier_cases(rate)
  local cases = {}
  local file = world.rank == 0 and opts.json ~= "" and io.open(opts.json, "rb")
  if not file then return cases end
  file:close()
  for _, e in ipairs((log.read(opts.json))) do
    if e.event == "exchange" then
      cases[key_of(e)] = e
      local ratio = rate and e.link_bytes_per_s and e.link_bytes_per_s / rate or 1
      if ratio > 2 or ratio < 0.5 then
        error(("bench_exchange: %s was measured over a link of %s/s, this one has %s/s: name another file"):format(
          opts.json, log.bytes(e.link_bytes_per_s), log.bytes(rate)), 0)
      end
    end
  end
  return cases
end

--- Returns rank 0's value of `yes` on all ranks. [collective]
local answer = atomo.zeros(1)
local function agreed(yes)
  answer:fill_(yes and 1 or 0)
  world:bcast(answer, 0)
  return answer:item() == 1
end

local function list_of_compressors()
  local list = {}
  for word in opts.compress:gmatch "%S+" do
    if word == "all" then
      for _, c in ipairs(atomo.compressors()) do list[#list + 1] = c.name end
    else
      list[#list + 1] = word
    end
  end
  return list
end

local function sizes()
  local list = {}
  for size in opts.sizes:gmatch "[^,%s]+" do list[#list + 1] = parse_size(size) end
  table.sort(list)
  return list
end

-- ---- the cases ----------------------------------------------------------------------------------------------------

local results, refused, notes = {}, {}, {}

--- Notes why a case is left out; larger cases of its topology and compressor are left out, too.
local function leave_out(topology, compress, why)
  local name = topology .. " with " .. compress
  refused[name] = true
  notes[#notes + 1] = ("left out: %s: %s"):format(name, why)
end

--- Runs one case, unless the log has it or it would take too long. last: the result of a smaller size, if any.
local function run_case(case, earlier, began, file, rate, last)
  local known = earlier[key_of(case)]
  if agreed(known) then return known or case end
  local guess = last and last.seconds and last.seconds * case.dense_bytes / last.dense_bytes or 0
  if agreed(guess > opts.seconds) then
    return leave_out(case.topology, case.compress, ("%s: a step would take about %s (--seconds %g)"):format(
      log.bytes(case.dense_bytes), log.duration(guess), opts.seconds))
  elseif agreed(C.atomo_time() - began > opts.total) then
    return leave_out(case.topology, case.compress, ("%s: the time is over (--total %g)"):format(
      log.bytes(case.dense_bytes), opts.total))
  end
  local r, why = measure(case.topology, case.compress, case.dense_bytes)
  if not r then return leave_out(case.topology, case.compress, why) end
  for name, value in pairs(r) do case[name] = value end
  case.event, case.link_bytes_per_s = "exchange", rate
  file:write(case)
  return case
end

local function run_all(rate)
  local earlier, began, last = earlier_cases(rate), C.atomo_time(), {}
  local file = log.open(world.rank == 0 and opts.json ~= "" and opts.json or nil)
  for _, bytes in ipairs(sizes()) do
    for _, compress in ipairs(list_of_compressors()) do
      for _, topology in ipairs(opts.topology) do
        local name = topology .. " with " .. compress
        local r = not refused[name] and run_case({topology = topology, compress = compress, dense_bytes = bytes,
          ranks = world.size, down = opts.down, threads = opts.threads}, earlier, began, file, rate, last[name])
        if r then results[#results + 1], last[name] = r, r end
      end
    end
  end
  file:close()
end

-- ---- output -------------------------------------------------------------------------------------------------------

local function table_text()
  local rows = {{"topology", "compressor", "gradient", "step", "bytes out", "bytes in", "of the link"}}
  for _, r in ipairs(results) do
    local rate = r.link_bytes_per_s
    rows[#rows + 1] = {r.topology, r.compress, log.bytes(r.dense_bytes), log.duration(r.seconds),
      log.bytes(r.bytes_out), log.bytes(r.bytes_in),
      rate and ("%.0f %%"):format(100 * math.max(r.bytes_out, r.bytes_in) / r.seconds / rate) or "-"}
  end
  return log.table(rows)
end

local function chart()
  local series, of = {}, {}
  for _, r in ipairs(results) do
    local name = r.topology .. ", " .. r.compress
    if not of[name] then
      of[name] = {name = name, points = {}}
      series[#series + 1] = of[name]
    end
    table.insert(of[name].points, {r.dense_bytes, r.seconds})
  end
  return {title = ("Exchange over %d ranks"):format(world.size), x = {label = "bytes of gradient", log = true},
    y = {label = "seconds a step", log = true}, series = series}
end

local rate = link_rate()
say("%d ranks on %s and others, %d a host; link: %s", world.size, world.hostname, world.local_size,
  rate and log.bytes(rate) .. "/s" or "none")
run_all(rate)
if world.rank == 0 then
  print(table_text())
  for _, note in ipairs(notes) do print(note) end
  if opts.plot ~= "" then
    print("written: " .. table.concat(require("atomo.tools.plot").save(opts.plot, chart()), ", "))
  end
end
