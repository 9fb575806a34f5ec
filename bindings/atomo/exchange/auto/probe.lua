--- Measures latency and rate of a communicator's network, between hosts and within one, for the cost model (cost.lua).
-- All ranks at once send to the next rank and receive from the previous one, as in a ring all-reduce; the slowest hop
-- determines the figures, which are the same on all ranks.
local T = require "atomo.tensor"
local C = require("atomo.ffi").C
local median = require "atomo.core.median"

local M = {}

local SMALL, FIRST, MOST = 16, 2 ^ 18, 2 ^ 24 -- bytes: message for latency, first and largest message for rate
local ROUNDS, MOST_ROUND = 7, 8 -- rounds of small messages, and the most messages in one
local LONG = 0.08 -- seconds that the message for rate should take

--- Returns the reduction of v over the ranks (default max), the same double on all.
local function reduce(comm, v, op)
  local t = T.full({1}, v)
  comm:allreduce(t, op or "max")
  local result = t:item()
  t:free()
  return result
end

--- Returns the seconds in which every rank sends `out` to the next.
local function shift(comm, out, input)
  local from = C.atomo_time()
  local received = comm:irecv(input, (comm.rank + comm.size - 1) % comm.size)
  local sent = comm:isend(out, (comm.rank + 1) % comm.size)
  received:wait()
  sent:wait()
  return C.atomo_time() - from
end

--- Returns the seconds of a message of `bytes` bytes: the least of three, or one if it takes long. A first message, not
--- counted, uses up the burst allowance of a traffic shaper.
local function large(comm, bytes)
  local out, input = T.zeros(bytes / 4), T.empty {bytes / 4}
  comm:barrier()
  shift(comm, out, input)
  local best = math.huge
  for _ = 1, 3 do
    best = math.min(best, reduce(comm, shift(comm, out, input)))
    if best > 4 * LONG then break end
  end
  out:free()
  input:free()
  return best
end

--- Returns the seconds of a small message: the median of some rounds, on the slowest rank. A single shift takes between
--- nothing and two latencies, because the ranks do not begin at the same time and each waits for its neighbour; the sum
--- of as many shifts as there are ranks takes as many latencies.
local function latency(comm)
  local out, input, times = T.zeros(SMALL / 4), T.empty {SMALL / 4}, {}
  local round = math.max(2, math.min(MOST_ROUND, comm.size))
  comm:barrier()
  for _ = 1, 3 do shift(comm, out, input) end
  for k = 1, ROUNDS do
    times[k] = 0
    for _ = 1, round do times[k] = times[k] + shift(comm, out, input) / round end
  end
  out:free()
  input:free()
  return reduce(comm, median(times))
end

--- Measures latency (s) and rate (bytes/s) of a message to the next rank, all ranks at once. [collective]
---@param comm atomo.Comm  two ranks or more
---@return number latency
---@return number rate
function M.hop(comm)
  local a, bytes = latency(comm), FIRST
  local seconds = large(comm, bytes)
  while seconds < LONG and bytes < MOST do
    bytes = 4 * bytes
    seconds = large(comm, bytes)
  end
  return a, bytes / math.max(seconds - a, 1e-9)
end

--- Measures the network of a communicator, in the form of cost.lua: {ranks, hosts, latency, rate, memory_latency,
--- memory_rate}; the same on all ranks. [collective]
---@param comm atomo.Comm
function M.network(comm)
  local node = comm:split_shared()
  local net = {ranks = comm.size, hosts = reduce(comm, node.rank == 0 and 1 or 0, "sum")}
  if reduce(comm, node.size) > 1 then
    local a, rate = 0, math.huge
    if node.size > 1 then a, rate = M.hop(node) end
    net.memory_latency, net.memory_rate = reduce(comm, a), reduce(comm, rate, "min")
  end
  node:close()
  if net.hosts > 1 then net.latency, net.rate = M.hop(comm) end
  return net
end

return M
