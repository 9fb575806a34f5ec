--- Chooses topology and compressor by the cost model: the possible settings, a prediction for each, the choice and its
-- reasons. All functions are pure: ranks that have the same figures make the same choice.
local cost = require "atomo.exchange.auto.cost"
local log = require "atomo.core.log"
local rules = require "atomo.exchange.compatibility"

local M = {}

-- Margins, as factors or fractions of a step's time.
M.SWITCH = 1.05   -- the running setting is left if its predicted step is longer than this factor times the best one's
M.WRONG = 0.10    -- the model is corrected if the exchange's prediction is wrong by more than this fraction of the step
M.TRIFLE = 0.03   -- if dense exchange adds less than this fraction, compressors are not considered
M.GAIN = 0.97     -- measured steps of the more lossy setting must be shorter than this fraction of the other's

--- The least lossy setting is chosen whose step is at most SLACK times the shortest one.
M.SLACK = 1.10

--- Compressors from which `--compress adaptive` chooses, the least lossy first; all are unbiased.
M.compressors = {"none", "bf16:round=stochastic", "auto:ratio=16", "taps:ratio=16", "auto:ratio=64",
  "taps:ratio=64"}

--- Topologies, with their options.
local ways = {{topology = "allreduce"}, {topology = "allgather"}, {topology = "sharded"},
  {topology = "ps", downlink = "dense"}, {topology = "ps", downlink = "compress"},
  {topology = "hierarchical", inter_node = "allreduce"}, {topology = "hierarchical", inter_node = "allgather"},
  {topology = "hierarchical", inter_node = "sharded"}}

--- Numbers of buckets of messages that are considered besides the topology's own: fewer save latency. One of them is
--- taken if the exchange then takes less than FEWER of the time.
local FEWER_BUCKETS, FEWER = {3, 2, 1}, 0.95

local function setting(level, compress, way)
  return {level = level, compress = compress, topology = way.topology, downlink = way.downlink,
    inter_node = way.inter_node, message_buckets = way.message_buckets}
end

--- Does a setting agree with the options that the user has given?
local function allowed(s, only)
  if only.topology and s.topology ~= only.topology and s.compress ~= "none" then return false end
  if only.downlink and s.downlink and s.downlink ~= only.downlink then return false end
  return not (only.inter_node and s.inter_node and s.inter_node ~= only.inter_node)
end

--- Returns all settings on a network: {level=, compress=, topology=, downlink=, inter_node=}. Dense gradients only use
--- topologies that add them on the way.
---@param compressors string[]  the least lossy first; a setting's level is the compressor's index
---@param net table
---@param only {topology: string?, downlink: string?, inter_node: string?, message_buckets: integer?}?  options that the
---  user has given
function M.settings(compressors, net, only)
  local list, several = {}, net.hosts > 1 and net.ranks > net.hosts
  for level, compress in ipairs(compressors) do
    local codec = require("atomo.compress").compressor(compress)
    for _, way in ipairs(ways) do
      local s = setting(level, compress, way)
      s.message_buckets = only and only.message_buckets
      local sensible = (compress ~= "none" or way.topology == "allreduce" or way.inter_node == "allreduce")
        and (several or way.topology ~= "hierarchical")
      if sensible and allowed(s, only or {}) and not rules.refusal(codec, s, net.ranks) then list[#list + 1] = s end
    end
  end
  return list
end

--- Returns the settings with predictions: cost (result of cost.exchange) and step = base + the exchange's seconds.
---@param settings table[]
---@param net table
---@param works table<string, table>  compressor -> its work (cost.lua)
---@param base number  seconds of a step without exchange
function M.predict(settings, net, works, base)
  local rows = {}
  for i, s in ipairs(settings) do
    local row, work = setting(s.level, s.compress, s), works[s.compress]
    row.cost = cost.exchange(net, work, row)
    local usual, in_messages = row.cost.seconds, s.compress ~= "none"
    for _, k in ipairs(in_messages and not s.message_buckets and FEWER_BUCKETS or {}) do
      local other = setting(s.level, s.compress, s)
      other.message_buckets = k
      other.cost = cost.exchange(net, work, other)
      if other.cost.seconds < FEWER * usual and other.cost.seconds < row.cost.seconds then row = other end
    end
    row.step = base + row.cost.seconds
    rows[i] = row
  end
  return rows
end

--- Returns the prediction for one setting as it is, with its number of buckets.
---@param s table  a setting
---@param net table
---@param works table<string, table>
---@param base number
function M.predict_one(s, net, works, base)
  local row = setting(s.level, s.compress, s)
  row.cost = cost.exchange(net, works[s.compress], row)
  row.step = base + row.cost.seconds
  return row
end

--- Returns the chosen row: the least lossy compressor with a step of at most SLACK times the shortest, by its fastest
--- topology; and the fastest row.
function M.pick(rows)
  local fastest, taken = rows[1], nil
  for _, row in ipairs(rows) do if row.step < fastest.step then fastest = row end end
  for _, row in ipairs(rows) do
    if row.step <= M.SLACK * fastest.step then
      local better = not taken or row.level < taken.level or (row.level == taken.level and row.step < taken.step)
      if better then taken = row end
    end
  end
  return taken, fastest
end

--- Returns the fastest row of a compressor.
function M.best_of(rows, compress)
  local best
  for _, row in ipairs(rows) do
    if row.compress == compress and (not best or row.step < best.step) then best = row end
  end
  return best
end

--- Should the running setting be left for `taken`, by prediction: because it is less lossy or clearly faster?
function M.better(taken, running)
  return not M.same(taken, running) and
    (taken.level < running.level or running.step > M.SWITCH * taken.step)
end

--- Returns how many times slower the network is than in the model, if `row` took `seconds` of visible transfer.
function M.slowdown(row, seconds)
  if row.cost.wire <= 0 then return 1 end
  return math.min(20, math.max(0.05, (seconds + row.cost.hidden) / row.cost.wire))
end

--- Returns a copy of the network with k times the latency and 1/k of the rate.
function M.slower(net, k)
  return {ranks = net.ranks, hosts = net.hosts, checked = net.checked, latency = net.latency and net.latency * k,
    rate = net.rate and net.rate / k, memory_latency = net.memory_latency and net.memory_latency * k,
    memory_rate = net.memory_rate and net.memory_rate / k}
end

--- Does the rival replace the running setting after a trial? The more lossy one of the two must be clearly faster.
function M.rival_wins(running, rival, running_seconds, rival_seconds)
  if rival.level < running.level then return running_seconds > M.GAIN * rival_seconds end
  return rival_seconds < M.GAIN * running_seconds
end

--- "sharded", "ps (downlink compress)", "hierarchical (inter_node sharded)"
function M.topology_name(s)
  return s.topology .. (s.downlink and s.topology == "ps" and (" (downlink %s)"):format(s.downlink) or "") ..
    (s.inter_node and s.topology == "hierarchical" and (" (inter_node %s)"):format(s.inter_node) or "")
end

function M.name(s)
  local k = s.message_buckets
  return ("%s over %s%s"):format(s.compress, M.topology_name(s), k and (" in %d bucket%s"):format(k, k == 1 and "" or
    "s") or "")
end

function M.same(a, b) return M.name(a) == M.name(b) end

--- "4 ranks on 4 hosts, link 94 Mbit/s, 55 us"
function M.network_text(net)
  local parts = {("%d rank%s on %d host%s"):format(net.ranks, net.ranks == 1 and "" or "s", net.hosts,
    net.hosts == 1 and "" or "s")}
  local function hop(name, rate, latency)
    parts[#parts + 1] = ("%s %s/s and %.0f us"):format(name, log.bytes(rate), 1e6 * latency)
  end
  if net.hosts > 1 then hop("link", net.rate, net.latency) end
  if net.memory_rate then hop("memory", net.memory_rate, net.memory_latency) end
  return table.concat(parts, "; ")
end

--- Returns the reasons as a table: the best topology of every compressor, and all topologies of the chosen one.
---@param rows table[]  result of predict
---@param taken table
function M.reasons(rows, taken)
  local out = {{"", "compressor", "topology", "encode", "transfer", "hidden", "decode", "bytes in", "step"}}
  for _, row in ipairs(rows) do
    if row.compress == taken.compress or row == M.best_of(rows, row.compress) then
      local c = row.cost
      out[#out + 1] = {M.same(row, taken) and "->" or "", row.compress, M.name(row):match " over (.*)$",
        log.duration(c.encode),
        log.duration(c.transfer + c.copy), log.duration(c.hidden), log.duration(c.decode), log.bytes(c.bytes_in),
        log.duration(row.step)}
    end
  end
  return log.table(out)
end

return M
