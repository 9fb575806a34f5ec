--- Cost model of a step's exchange (docs/exchange_model.md): predicts seconds and bytes per rank of a topology from the
-- network and the work. Pure functions: topology = "auto" chooses by them, scripts/simulate.lua applies them to other
-- clusters. Latency and rate are as in Hockney's model: a message of n bytes takes latency + n / rate.
--
-- A network: ranks, hosts, latency (s), rate (bytes/s of a host's link, each way); if hosts have several ranks also
--   memory_latency, memory_rate (between ranks of one host); checked (true: every rank first sends each other one a
--   48-byte fingerprint of the collective).
-- A work: dense (bytes of all gradients), small (bytes of those that are never compressed), message (bytes of one
-- rank's
--   messages), encode (s), decode (s for one rank's messages), copy (s to copy all gradients into dense buckets and
--   back), tensors (number sent as messages), scales (1: the compressor has a budget in bytes, which sharded divides
--   between its two ways; else 0), backward (s with which the exchange can overlap; 0 without overlap).
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"
local Coded = require "atomo.exchange.bucket.compressed"

local M = {}

-- Constants of the implementation: bytes of the smallest ring step (runtime/comm/ring_allreduce.c), of a dense bucket
-- and of the gradients of a bucket of messages, largest number of the latter with topology sharded (exchange/bucket/,
-- exchange/topology/sharded.lua).
local RING_MIN, BUCKET, MESSAGE_BUCKET, MOST_SHARDED = 32 * 2 ^ 10, 4 * 2 ^ 20, 2 ^ 18, 3

local function rounds(ranks) return math.ceil(math.log(ranks) / math.log(2) - 1e-9) end
local function buckets(bytes, p) return math.max(1, math.ceil(bytes / math.max(BUCKET, RING_MIN * (p or 1)))) end
local function message_buckets(w, o, most)
  most = o.message_buckets or Coded.most(w.message, most)
  return math.max(1, math.min(most, math.ceil((w.dense - w.small) / MESSAGE_BUCKET)))
end

--- Returns latency and rate of the slowest hop.
local function link(net)
  if net.hosts == 1 and net.memory_rate then return net.memory_latency, net.memory_rate end
  return net.latency, net.rate
end

local function per_host(net) return math.ceil(net.ranks / net.hosts) end

-- ---- collectives -------------------------------------------------------------------------------------------------

--- Seconds in which ranks compare fingerprints. always: also on an unchecked network (lengths are announced the same
--- way).
local function comparing(net, always)
  if not (net.checked or always) then return 0 end
  local latency = link(net)
  return rounds(net.ranks) * latency
end

--- Seconds of a dense all-reduce: a ring with 2 (P-1)/P n bytes on every link, or recursive doubling if it is small.
---@param net table
---@param bytes number
---@param pieces integer?  number of separate all-reduces, default the number of dense buckets
function M.ring(net, bytes, pieces)
  local p, latency, rate = net.ranks, link(net)
  if p == 1 or bytes == 0 then return 0 end
  local n = pieces or buckets(bytes, p)
  local compared = n * comparing(net)
  if bytes < RING_MIN * p then return compared + n * rounds(p) * latency + rounds(p) * bytes / rate end
  return compared + 2 * (p - 1) * (n * latency + bytes / p / rate)
end

--- Seconds of an all-gather of `bytes` per rank in `pieces` parts; the length of each part is announced first.
function M.gather(net, bytes, pieces)
  local p, latency, rate = net.ranks, link(net)
  if p == 1 then return 0 end
  return pieces * (p - 1 + rounds(p)) * latency + (p - 1) * bytes / rate
end

--- Seconds of an all-to-all: every rank sends an equal part of its `bytes` to each owner, in `pieces` parts. A host's
-- link receives what the other hosts send to all of its ranks.
function M.scatter(net, bytes, pieces)
  local p, c, latency, rate = net.ranks, per_host(net), link(net)
  if p == 1 then return 0 end
  if net.hosts == 1 then c = 1 end
  return pieces * (p - 1 + rounds(p)) * latency + (p - c) * c / p * bytes / rate
end

--- Seconds of a broadcast of rank 0's `bytes` in `pieces` parts, pipelined, so that each link carries them once.
--- announced: the length is sent first.
function M.bcast(net, bytes, pieces, announced)
  local latency, rate = link(net)
  if net.ranks == 1 then return 0 end
  return pieces * (rounds(net.ranks) * latency + comparing(net, announced)) + bytes / rate
end

-- ---- topologies --------------------------------------------------------------------------------------------------
-- Each returns: early (s of transfer that can overlap with backward, in `buckets` parts), late (s of transfer after
-- backward), encode, decode (s of computing, counted in full even if other threads do it, since they may have no core
-- of their own; decode is in decode_buckets parts, each when its bucket has arrived), bytes_in and bytes_out (of the
-- busiest rank, without the small tensors).

local topologies = {}

--- Dense gradients in buckets; linear compressors in buckets of messages, encoded by the communication thread.
function topologies.allreduce(net, w, o)
  local bytes, dense = 2 * (net.ranks - 1) / net.ranks * w.message, w.encode == 0
  return {early = M.ring(net, w.message, not dense and message_buckets(w, o) or nil) + w.encode,
    buckets = dense and buckets(w.message + w.small, net.ranks) or message_buckets(w, o),
    late = 0, encode = 0, decode = w.decode, bytes_in = bytes, bytes_out = bytes}
end

function topologies.allgather(net, w, o)
  local k, bytes = message_buckets(w, o), (net.ranks - 1) * w.message
  return {early = M.gather(net, w.message, k), buckets = k, late = 0, encode = w.encode, decode = net.ranks * w.decode,
    decode_buckets = k, bytes_in = bytes, bytes_out = bytes}
end

function topologies.ps(net, w, o)
  local p, k = net.ranks, message_buckets(w, o)
  local others = p - (net.hosts == 1 and 1 or per_host(net))
  local latency, rate = link(net)
  local up = k * (p - 1 + rounds(p)) * latency + others * w.message / rate
  local r = {buckets = k, late = 0, bytes_in = (p - 1) * w.message}
  if o.downlink == "compress" then
    r.early, r.encode, r.decode = up + M.bcast(net, w.message, k, true), 2 * w.encode, (p + 1) * w.decode
    r.bytes_out = (p - 1) * w.message
  else
    r.early, r.encode, r.decode = up + M.bcast(net, w.dense - w.small, k), w.encode, p * w.decode
    r.bytes_out = (p - 1) * (w.dense - w.small)
  end
  return r
end

--- Each way carries P / (2 (P - 1)) times the budget, if the compressor has one in bytes.
function topologies.sharded(net, w, o)
  local p, k = net.ranks, message_buckets(w, o, MOST_SHARDED)
  local part = w.scales == 1 and p > 2 and p / (2 * (p - 1)) or 1
  local bytes = 2 * (p - 1) / p * part * w.message
  return {early = M.scatter(net, part * w.message, k) + M.gather(net, part * w.message / p, k), buckets = k, late = 0,
    encode = (1 + 1 / p) * w.encode, decode = 2 * part * w.decode, bytes_in = bytes, bytes_out = bytes}
end

--- Dense sums within each host, topology `inter_node` between the hosts' leaders.
function topologies.hierarchical(net, w, o)
  local c = per_host(net)
  local between = {ranks = net.hosts, hosts = net.hosts, latency = net.latency, rate = net.rate, checked = net.checked}
  local r = topologies[o.inter_node](between, w, o)
  r.copy, r.small_done = w.copy, true
  local leaders, node = r.early + r.late + M.ring(between, w.small), 0
  if c > 1 then node = rounds(c) * (buckets(w.dense) * net.memory_latency + w.dense / net.memory_rate) end
  if o.inter_node == "allreduce" and w.encode == 0 then -- all operations run bucket by bucket during backward
    r.early, r.late, r.buckets = leaders + 2 * node, 0, buckets(w.dense)
  else -- the leaders' exchange begins when the host's sums are complete
    r.early, r.late, r.buckets, r.decode_buckets = node, leaders + node, buckets(w.dense), nil
  end
  return r
end

--- Returns the part of `seconds`, in equal `pieces`, that does not overlap with `window` seconds of other work. The
-- last piece begins when that work ends, so it never overlaps.
local function left_over(seconds, pieces, window)
  if not pieces then return seconds end
  return math.max(seconds / pieces, seconds - window)
end

local wanted = {"dense", "small", "message", "encode", "decode", "copy", "tensors", "scales", "backward"}

local function check(net, w, o)
  if not topologies[o.topology] then
    raise(("cost: unknown topology '%s'; there are allreduce, allgather, ps, sharded, hierarchical"):format(
      brief(o.topology)))
  end
  for _, key in ipairs(wanted) do
    local v = w[key]
    if type(v) ~= "number" or not (v >= 0 and v < math.huge) then
      raise(("cost: %s of the work is %s, expected a number of at least 0"):format(key, brief(v)))
    end
  end
  local p, h = net.ranks, net.hosts
  if o.topology == "ps" and p == 1 then raise "cost: topology ps wants two ranks" end
  if type(p) ~= "number" or type(h) ~= "number" or p % 1 ~= 0 or h % 1 ~= 0 or not (h >= 1 and p >= h) then
    raise(("cost: %s ranks on %s hosts, expected whole numbers, at least one rank a host"):format(brief(p),
      brief(h)))
  end
  if h > 1 and not (net.rate and net.rate > 0 and net.latency and net.latency >= 0) then
    raise(("cost: a network of %d hosts wants latency (s) and rate (bytes/s), they are %s and %s"):format(h,
      brief(net.latency), brief(net.rate)))
  end
  if p > h and not (net.memory_rate and net.memory_rate > 0 and net.memory_latency and net.memory_latency >= 0) then
    raise(("cost: %d ranks on %d hosts want memory_latency (s) and memory_rate (bytes/s), they are %s and %s"):format(p,
      h, brief(net.memory_latency), brief(net.memory_rate)))
  end
end

--- Predicts what the exchange adds to a step. Returns {seconds = encode + copy + decode + transfer, of which each is
--- what does not overlap; wire (all seconds of transfer), hidden (those that overlap), decode_all (all seconds of
--- decoding), bytes_in, bytes_out (of the busiest rank)}.
---@param net table
---@param w table
---@param o {topology: string, downlink: string?, inter_node: string?, message_buckets: integer?}
function M.exchange(net, w, o)
  check(net, w, o)
  local r = topologies[o.topology](net, w, o)
  local early = r.early + (r.small_done and 0 or M.ring(net, w.small))
  local wire, seen = early + r.late, left_over(early, r.buckets, w.backward) + r.late
  local decode = left_over(r.decode, r.decode_buckets, seen)
  local copied = o.compress == "none" and o.topology == "allreduce" and w.dense or w.small
  local copy = r.copy or w.copy * copied / math.max(w.dense, 1)
  local small = 2 * (net.ranks - 1) / net.ranks * w.small
  return {seconds = r.encode + copy + seen + decode, encode = r.encode, copy = copy, transfer = seen,
    decode = decode, wire = wire, hidden = wire - seen, decode_all = r.decode,
    bytes_in = r.bytes_in + small, bytes_out = r.bytes_out + small}
end

return M
