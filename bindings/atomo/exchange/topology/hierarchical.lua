--- Topology hierarchical: dense inside a node, where ranks share memory; any other topology between the nodes' leaders
-- (inter_node =, default allreduce for "none", else allgather); the result is broadcast inside. Only one rank a node
-- uses the network, and what it sends is compressed once a node, not once a rank. The communication thread adds up the
-- node while backward continues; where the leaders all-reduce dense sums, it does that and the broadcast too.
local failure = require "atomo.exchange.failure"
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local M = {whole = true} -- every gradient by itself: the leaders' exchange joins small ones

--- Every tensor travels in dense buckets: what is compressed is their sum over the node.
function M.all_dense() return true end

--- Why the leaders' topology cannot carry it. refusal(name, o): of a topology.
function M.refuses(o, refusal)
  if o.inter_node == "auto" then return end
  -- how many leaders there are is known when the communicators are (open)
  local why = refusal(o.inter_node, {compressor = o.compressor, feedback = o.feedback, size = math.huge,
    downlink = o.downlink})
  return why and ("with inter_node = %s: %s"):format(o.inter_node, why)
end

--- How many nodes there are; told by the leaders to their nodes' ranks. [collective]
local function count_nodes(node, leaders)
  local size = T.full({1}, leaders and leaders.size or 0)
  node:bcast(size, 0)
  return size:item()
end

--- The leaders' own exchange.
local function between(leaders, settings, exchange)
  -- inter_node = "auto" is the default one, not a measured choice: the leaders are not all ranks
  return exchange {comm = leaders, compress = settings.compress,
    topology = settings.inter_node == "auto" and "default" or settings.inter_node, downlink = settings.downlink,
    min_size = settings.min_size, seed = settings.seed, overlap = settings.overlap, nested = true,
    fuse_small = settings.fuse_small}
end

--- The communicators and programs of a route; exchange(options) opens the leaders'. [collective]
function M.open(route, settings, compressor, exchange)
  local comm = route.comms[1]
  local node = comm:split_shared()
  local leads = node.rank == 0
  local leaders = comm:split(leads and 0 or nil)
  -- the plan, which all ranks have agreed on, says what travels here: no comparison besides
  C.atomo_comm_set_checked(node.h, 0)
  if leads then C.atomo_comm_set_checked(leaders.h, 0) end
  local nodes = count_nodes(node, leads and leaders)
  route.comms = {comm, node, leaders}
  if settings.inter_node == "ps" and nodes < 2 then
    raise("exchange: hierarchical with inter_node = ps wants two nodes, all ranks are on one; inter_node can be " ..
      "allreduce, allgather, sharded")
  end
  local reduce, broadcast = {"reduce", node}, {"broadcast_tensor", node}
  if compressor.name == "none" and (settings.inter_node == "auto" or settings.inter_node == "allreduce") then
    route.dense_program = leads and {reduce, {"allreduce", leaders}, broadcast} or {reduce, broadcast}
    return
  end
  -- the nodes' sums, weighted so that the leaders' average is the average over all ranks, also where nodes have
  -- different numbers of ranks
  route.weight, route.scale = nodes / comm.size, 1
  route.dense_program, route.spread_program = {reduce}, {broadcast}
  if leads then route.between = between(leaders, settings, exchange) end
end

--- The nodes' sums through the leaders' exchange.
local function exchange(step, inner)
  local plan = step.plan
  if plan.route.weight ~= 1 then
    for _, bucket in ipairs(plan.buckets) do bucket.buffer:mul_(plan.route.weight) end
  end
  for _, bucket in ipairs(inner.closed and {} or plan.buckets) do
    for _, t in ipairs(bucket.tensors) do inner:push(t.index, plan.dense.slices[t.index]) end
  end
  local ok, why = pcall(inner.average_or_why, inner)
  if not ok then -- before anything was encoded: all leaders refuse it alike, and the other ranks must hear of it
    if inner.current and inner.current.begun then error(why, 0) end
    return failure.note(step, failure.ENCODING, why)
  end
  if why then
    local own = inner.current.broken -- the leader that was the cause says so by its rank here
    return failure.note(step, own and own.kind or failure.DECODING, own and own.text or why)
  end
  local s = inner:stats()
  step.ms.encode, step.ms.decode, step.variance = s.ms.encode, s.ms.decode, s.variance
  step.ms.exchange = step.ms.exchange + s.ms.exchange
end

--- When the nodes' sums are there: through the leaders' exchange, if there is one, and to the nodes' ranks.
function M.settle(step)
  local route, buckets = step.plan.route, step.plan.buckets
  if not route.spread_program then return end
  if route.between and step.broken then -- given up
    route.between:drop()
  elseif route.between then
    exchange(step, route.between)
  end
  for _, bucket in ipairs(buckets) do bucket:spread(step) end
  for _, bucket in ipairs(buckets) do bucket:spread_wait(step) end
end

return M
