--- What a step's exchange costs, by a stated model (docs/exchange_model.md): seconds, and bytes a rank, of a topology
-- from the network and the work. Pure functions: `auto` decides with them, scripts/simulate.lua carries them to other
-- clusters. Latency and rate are as in Hockney's model: a message of n bytes takes latency + n / rate.
--
-- A network: ranks, hosts, latency (s), rate (bytes/s of a host's link, each way), and where hosts hold several ranks
--   memory_latency, memory_rate (between ranks of one host).
-- A work: dense (bytes of all gradients), small (those that travel dense whatever the compressor), message (bytes of
--   one rank's messages), encode (s), decode (s for one rank's messages), copy (s to copy all gradients into dense
--   buckets and back), tensors (that travel as messages), largest (share of the messages' bytes in the largest one),
--   backward (s in which exchange can hide; 0 without overlap).
local raise = require("atomo.ffi").raise

local M = {}

-- What the code does: see runtime/comm/allreduce.c, exchange/buckets.lua and exchange/batches.lua.
local RING_MIN, BUCKET, BATCH, MOST_BATCHES = 32 * 2 ^ 10, 4 * 2 ^ 20, 2 ^ 18, 6

local function rounds(ranks) return math.ceil(math.log(ranks) / math.log(2) - 1e-9) end
local function buckets(bytes) return math.max(1, math.ceil(bytes / BUCKET)) end

--- Latency and rate of the slowest hop.
local function link(net)
  if net.hosts == 1 and net.memory_rate then return net.memory_latency, net.memory_rate end
  return net.latency, net.rate
end

local function per_host(net) return math.ceil(net.ranks / net.hosts) end

-- ---- patterns ----------------------------------------------------------------------------------------------------

--- Seconds of a dense all-reduce: a ring, 2 (P-1)/P n bytes over every link; small ones by recursive doubling.
---@param net table
---@param bytes number
function M.ring(net, bytes)
  local p, latency, rate = net.ranks, link(net)
  if p == 1 or bytes == 0 then return 0 end
  local n = buckets(bytes)
  if bytes / n < RING_MIN * p then return n * rounds(p) * latency + rounds(p) * bytes / rate end
  return 2 * (p - 1) * (n * latency + bytes / p / rate)
end

--- Seconds until every rank has every rank's `bytes`, in `pieces`; each is announced to all first.
function M.gather(net, bytes, pieces)
  local p, latency, rate = net.ranks, link(net)
  if p == 1 then return 0 end
  return pieces * (p - 1 + rounds(p)) * latency + (p - 1) * bytes / rate
end

--- Seconds until every rank's `bytes` are with their owners: the busiest link takes in what the other hosts have for
-- its host, and at least the share `largest` that one owner gets.
function M.scatter(net, bytes, largest)
  local p, c, latency, rate = net.ranks, per_host(net), link(net)
  if p == 1 then return 0 end
  local others = net.hosts == 1 and p - 1 or p - c
  local share = math.max((net.hosts == 1 and 1 or c) / p, largest)
  return (p - 1 + rounds(p)) * latency + others * share * bytes / rate
end

--- Seconds of rank 0's `bytes` to all, in `pieces`: pipelined, so that each link carries them once.
function M.bcast(net, bytes, pieces)
  local latency, rate = link(net)
  if net.ranks == 1 then return 0 end
  return pieces * rounds(net.ranks) * latency + bytes / rate
end

-- ---- topologies --------------------------------------------------------------------------------------------------
-- Each gives: transfer (s), units (that overlap backward one by one; nil: no overlap), encode, decode (s), bytes_in and
-- bytes_out (of the busiest rank, besides the small tensors).

local topologies = {}

function topologies.allreduce(net, w)
  local bytes = 2 * (net.ranks - 1) / net.ranks * w.message
  return {transfer = M.ring(net, w.message), units = buckets(w.message + w.small), encode = w.encode, decode = w.decode,
    bytes_in = bytes, bytes_out = bytes}
end

function topologies.allgather(net, w)
  local k = math.max(1, math.min(MOST_BATCHES, math.ceil((w.dense - w.small) / BATCH)))
  local bytes = (net.ranks - 1) * w.message
  return {transfer = M.gather(net, w.message, k), units = k, encode = w.encode, decode = net.ranks * w.decode,
    decode_units = k, bytes_in = bytes, bytes_out = bytes}
end

function topologies.ps(net, w, o)
  local others = net.ranks - (net.hosts == 1 and 1 or per_host(net))
  local latency, rate = link(net)
  local up = rounds(net.ranks) * latency + (net.ranks - 1) * latency + others * w.message / rate
  local r = {encode = w.encode, decode = net.ranks * w.decode, bytes_in = (net.ranks - 1) * w.message}
  if o.down == "compress" then
    r.transfer = up + M.bcast(net, w.message, 1)
    r.encode, r.decode = 2 * w.encode, (net.ranks + 1) * w.decode
    r.bytes_out = (net.ranks - 1) * w.message
  else
    r.transfer = up + M.bcast(net, w.dense - w.small, w.tensors)
    r.bytes_out = (net.ranks - 1) * (w.dense - w.small)
  end
  return r
end

function topologies.sharded(net, w)
  local p, share = net.ranks, math.max(1 / net.ranks, w.largest)
  local bytes = (p - 1) * share * w.message
  return {transfer = M.scatter(net, w.message, w.largest) + M.gather(net, w.message / p, 1),
    encode = (1 + share) * w.encode, decode = (p * share + 1) * w.decode,
    bytes_in = bytes + (p - 1) / p * w.message, bytes_out = (p - 1) / p * w.message + bytes}
end

--- Dense in the memory of a host, `inner` between the hosts' leaders.
function topologies.hierarchical(net, w, o)
  local c, between = per_host(net), {ranks = net.hosts, hosts = net.hosts, latency = net.latency, rate = net.rate}
  local inner = {}
  for key, value in pairs(w) do inner[key] = value end
  inner.backward = 0
  local r = topologies[o.inner](between, inner, o)
  r.transfer = r.transfer + M.ring(between, w.small)
  r.small_done, r.units, r.decode_units = true, nil, nil
  if c > 1 then
    r.transfer = r.transfer + 2 * rounds(c) * (buckets(w.dense) * net.memory_latency + w.dense / net.memory_rate)
  end
  r.copy = w.copy
  return r
end

--- Of T seconds in k equal units, those that `window` seconds of other work do not hide: the last unit begins when
-- that work ends.
local function left_over(seconds, units, window)
  if not units then return seconds end
  return math.max(seconds / units, seconds - window)
end

local wanted = {"dense", "small", "message", "encode", "decode", "copy", "tensors", "largest", "backward"}

local function check(net, w, o)
  if not topologies[o.topology] then
    raise(("cost: unknown topology '%s'; there are allreduce, allgather, ps, sharded, hierarchical"):format(
      tostring(o.topology)))
  end
  for _, key in ipairs(wanted) do
    local v = w[key]
    if type(v) ~= "number" or not (v >= 0 and v < math.huge) then
      raise(("cost: %s of the work is %s, expected a number of at least 0"):format(key, tostring(v)))
    end
  end
  local p, h = net.ranks, net.hosts
  if o.topology == "ps" and p == 1 then raise "cost: topology ps wants two ranks" end
  if type(p) ~= "number" or type(h) ~= "number" or p % 1 ~= 0 or h % 1 ~= 0 or not (h >= 1 and p >= h) then
    raise(("cost: %s ranks on %s hosts, expected whole numbers, at least one rank a host"):format(tostring(p),
      tostring(h)))
  end
  if h > 1 and not (net.rate and net.rate > 0 and net.latency and net.latency >= 0) then
    raise(("cost: a network of %d hosts wants latency (s) and rate (bytes/s), they are %s and %s"):format(h,
      tostring(net.latency), tostring(net.rate)))
  end
  if p > h and not (net.memory_rate and net.memory_rate > 0 and net.memory_latency and net.memory_latency >= 0) then
    raise(("cost: %d ranks on %d hosts want memory_latency (s) and memory_rate (bytes/s), they are %s and %s"):format(p,
      h, tostring(net.memory_latency), tostring(net.memory_rate)))
  end
end

--- What exchange adds to a step: {seconds, of which encode, copy, decode and transfer are seen (the rest is hidden),
--- wire (all seconds of transfer), decode_all (all of decoding), bytes_in, bytes_out (of the busiest rank)}.
---@param net table
---@param w table
---@param o {topology: string, down: string?, inner: string?}
function M.exchange(net, w, o)
  check(net, w, o)
  local r = topologies[o.topology](net, w, o)
  local wire = r.transfer + (r.small_done and 0 or M.ring(net, w.small))
  local seen = left_over(wire, r.units, w.backward)
  local decode = left_over(r.decode, r.decode_units, seen)
  local copied = o.compress == "none" and o.topology == "allreduce" and w.dense or w.small
  local copy = r.copy or w.copy * copied / math.max(w.dense, 1)
  local small = 2 * (net.ranks - 1) / net.ranks * w.small
  return {seconds = r.encode + copy + seen + decode, encode = r.encode, copy = copy, transfer = seen,
    decode = decode, wire = wire, hidden = wire - seen, decode_all = r.decode,
    bytes_in = r.bytes_in + small, bytes_out = r.bytes_out + small}
end

return M
