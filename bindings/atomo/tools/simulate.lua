--- Predicts steps on other clusters from measured times and bytes, by the cost model of exchange/auto/cost.lua; for
-- scripts/simulate.lua. All results are predictions, except the figures themselves.
--
-- Figures: {source=, base= (s of a step without exchange), backward= (s of backward in it), works= {[compressor] =
-- work}}; a work is that of cost.lua, without backward. Assumed: each rank has the batch of the measurement (weak
-- scaling), and every host is as fast as the measured one.
local choose = require "atomo.exchange.auto.choose"
local files = require "atomo.core.files"
local json = require "atomo.core.json"
local log = require "atomo.core.log"
local median = require "atomo.core.median"
local renamed = require("atomo.core.renamed").exchange
local raise = require("atomo.ffi").raise

local M = {}

--- The fraction of a link's bits that is payload, for TCP in 1500-byte frames: 1448 of 1538 bytes.
M.PAYLOAD = 1448 / 1538

-- ---- reading -----------------------------------------------------------------------------------------------------

local units = {bit = 1, kbit = 1e3, mbit = 1e6, gbit = 1e9}

--- Parses "100mbit" to 1e8 bits per second.
---@param text string
---@return number
function M.rate(text)
  local n, unit = tostring(text):lower():match "^([%d%.]+)(%a+)$"
  local bits = tonumber(n or "") and units[unit] and tonumber(n) * units[unit]
  if not bits or bits < 1e3 then
    raise(("simulate: the rate is '%s', expected e.g. 100mbit or 10gbit, at least 1kbit"):format(tostring(text)))
  end
  return bits
end

--- 1e8 -> "100 Mbit/s"
function M.rate_text(bits)
  for _, u in ipairs {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} do
    if bits >= u[1] * 0.9995 then return ("%.4g %sbit/s"):format(bits / u[1], u[2]) end
  end
  return ("%.4g bit/s"):format(bits)
end

--- "64:1gbit" -> 64, 1e9
function M.cluster(text)
  local ranks, rate = tostring(text):match "^(%d+):(%w[%w%.]*)$"
  ranks = tonumber(ranks or "")
  if not ranks or ranks < 2 or ranks > 1e6 then
    raise(("simulate: the cluster is '%s', expected RANKS:RATE, e.g. 64:10gbit"):format(tostring(text)))
  end
  return ranks, M.rate(rate)
end

local SKIP = 2 -- steps at the start of a run, which plan and warm up

--- Returns median milliseconds by stage, bytes and settings of each run in a log, without the first two steps.
---@param path string
---@return table[]
function M.runs(path)
  local events = log.read(path)
  local runs, run = {}, nil
  for _, e in ipairs(events) do
    if e.event == "run" then
      run = {settings = e.settings or {}, ranks = e.ranks, threads = e.threads, path = path, seen = 0, lists = {}}
      runs[#runs + 1] = run
    elseif run and e.event == "step" and type(e.ms) == "table" then
      run.seen = run.seen + 1
      if run.seen > SKIP then
        for key, value in pairs(e.ms) do
          run.lists[key] = run.lists[key] or {}
          table.insert(run.lists[key], value)
        end
        run.bytes_out, run.dense_bytes = e.bytes_out, e.dense_bytes
        run.lists.bytes = run.lists.bytes or {}
        table.insert(run.lists.bytes, e.bytes_out)
      end
    end
  end
  for _, r in ipairs(runs) do
    r.ms = {}
    for key, list in pairs(r.lists) do r.ms[key] = median(list) end
    r.bytes_out, r.ms.bytes = r.ms.bytes, nil
    r.lists = nil
  end
  return runs
end

--- Returns for a topology: how many times a rank encodes, decodes and sends one rank's messages per step. scales: see
-- cost.lua.
local function multiples(topology, ranks, scales)
  if topology ~= "sharded" then return 1, ranks, ranks - 1 end
  local part = scales == 1 and ranks > 2 and ranks / (2 * (ranks - 1)) or 1
  return 1 + 1 / ranks, 2 * part, 2 * (ranks - 1) / ranks * part
end

--- Returns figures from a run, with the work of its compressor, if any. s: a work of the model's gradients
--- (measure.lua: dense, small, tensors, scales, copy). The topology of a run with a compressor must be allgather,
--- default or sharded.
function M.from_run(run, s)
  local where = ("simulate: %s"):format(run.path)
  if run.seen <= SKIP then raise(("%s: %d steps, at least %d are needed"):format(where, run.seen, SKIP + 1)) end
  if run.dense_bytes ~= s.dense then
    raise(("%s: its gradients have %s bytes, those of the model %d"):format(where, tostring(run.dense_bytes), s.dense))
  end
  if run.settings.sharded_optimizer then
    raise(("%s: its steps include sending the weights of a sharded optimizer; expected a run without"):format(where))
  end
  local ms, name = run.ms, run.settings.compress or "none"
  local base = ((ms.data or 0) + (ms.forward or 0) + (ms.backward or 0) + (ms.update or 0)) / 1e3
  local function work(message, encode, decode)
    return {dense = s.dense, small = s.small, tensors = s.tensors, scales = s.scales, copy = s.copy, message = message,
      encode = encode, decode = decode}
  end
  local figures = {source = ("%s (%d ranks)"):format(run.path, run.ranks), base = base, backward = ms.backward / 1e3,
    works = {none = work(s.dense - s.small, 0, 0)}}
  if name == "none" then return figures end
  if name == "auto" or name == "adaptive" then raise(("%s: compress adaptive may have been several"):format(where)) end
  local topology = run.settings.topology or "default"
  topology = renamed.topology.values[topology] or topology -- logs of earlier versions have the old value
  if topology ~= "allgather" and topology ~= "default" and topology ~= "sharded" then
    raise(("%s: topology %s; expected allgather or sharded, whose logs show the cost of a message"):format(where,
      topology))
  elseif run.ranks < 2 then
    raise(("%s: a run of one rank sends no messages"):format(where))
  end
  local encodes, decodes, leaves = multiples(topology, run.ranks, s.scales)
  local sent = run.bytes_out - 2 * (run.ranks - 1) / run.ranks * s.small
  figures.works[name] = work(math.max(0, sent) / leaves, ms.encode / 1e3 / encodes, ms.decode / 1e3 / decodes)
  return figures
end

--- Adds the works of figures b to a, and returns a; its times are not changed. a may be nil.
function M.merge(a, b)
  if not a then return b end
  a.source = a.source .. ", " .. b.source
  for name, w in pairs(b.works) do a.works[name] = a.works[name] or w end
  return a
end

local wanted = {"dense", "small", "message", "encode", "decode", "copy", "tensors", "scales"}

--- Reads figures from a JSON file written by M.save.
function M.load(path)
  local file, why = io.open(path, "rb")
  if not file then raise(("simulate: cannot read %s"):format(why)) end
  local ok, figures = pcall(json.decode, file:read "*a")
  file:close()
  if not ok or type(figures) ~= "table" then raise(("simulate: %s holds no figures"):format(path)) end
  for _, key in ipairs {"base", "backward"} do
    local v = figures[key]
    if type(v) ~= "number" or v ~= v or v < 0 then
      raise(("simulate: %s: %s is %s, expected seconds"):format(path, key, tostring(v)))
    end
  end
  if type(figures.works) ~= "table" or not figures.works.none then
    raise(("simulate: %s: works must hold 'none', the dense gradients"):format(path))
  end
  for name, w in pairs(figures.works) do
    for _, key in ipairs(wanted) do
      local v = type(w) == "table" and w[key]
      if type(v) ~= "number" or v ~= v or v < 0 then
        raise(("simulate: %s: %s of '%s' is %s, expected a number of at least 0"):format(path, key, name, tostring(v)))
      end
    end
  end
  figures.source = figures.source or path
  return figures
end

function M.save(path, figures) files.save("simulate", path, json.encode(figures) .. "\n") end

-- ---- predicting --------------------------------------------------------------------------------------------------

--- Returns a network (cost.lua) of hosts with links of `bits` per second. o: latency (s), per_host (ranks per host),
--- memory_rate (bytes/s).
function M.network(ranks, bits, o)
  if ranks < 2 then raise(("simulate: the number of ranks is %d, expected 2 or more"):format(ranks)) end
  local per_host = math.min(o.per_host or 1, ranks)
  return {ranks = ranks, hosts = math.ceil(ranks / per_host), latency = o.latency, rate = bits / 8 * M.PAYLOAD,
    memory_latency = 5e-6, memory_rate = o.memory_rate or 4e9, checked = true}
end

--- Returns the compressors, the least lossy first; more bytes are assumed to mean less loss.
function M.compressors(figures)
  local names, bytes = {}, {}
  for name, w in pairs(figures.works) do names[#names + 1], bytes[name] = name, w.message + w.small end
  table.sort(names, function(a, b)
    if (a == "none") ~= (b == "none") then return a == "none" end
    if bytes[a] ~= bytes[b] then return bytes[a] > bytes[b] end
    return a < b
  end)
  return names
end

--- Predicts one cluster: {rows= (all settings, from choose.predict), taken=, fastest=, dense=, gain= (dense step /
--- taken step)}.
---@param figures table
---@param net table
---@param scale number?  how many times slower than the measured host each host computes, default 1
function M.predict(figures, net, scale)
  scale = scale or 1
  local names, works = M.compressors(figures), {}
  for _, name in ipairs(names) do
    local w = {}
    for key, value in pairs(figures.works[name]) do w[key] = value end
    w.encode, w.decode, w.copy = scale * w.encode, scale * w.decode, scale * w.copy
    w.backward = scale * figures.backward
    works[name] = w
  end
  local rows = choose.predict(choose.settings(names, net), net, works, scale * figures.base)
  local taken, fastest = choose.pick(rows)
  local dense = choose.best_of(rows, "none")
  return {rows = rows, taken = taken, fastest = fastest, dense = dense, gain = dense.step / taken.step, net = net}
end

--- "PREDICTION: 64 ranks, 1 Gbit/s: compression pays, 1.3x: ..."
function M.answer(p, ranks, bits)
  local head = ("PREDICTION for %d ranks at %s: "):format(ranks, M.rate_text(bits))
  local dense, taken = p.dense, p.taken
  if taken.compress == "none" then
    return head .. ("compression does not pay. Dense over %s: %s a step, of which exchange %s."):format(
      choose.topology_name(dense), log.duration(dense.step), log.duration(dense.cost.seconds))
  end
  return head .. ("compression pays: %s, %s a step, dense %s: %.2f times as fast."):format(choose.name(taken),
    log.duration(taken.step), log.duration(dense.step), p.gain)
end

return M
