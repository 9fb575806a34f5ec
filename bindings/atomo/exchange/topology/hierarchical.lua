--- Topology hierarchical: gradients are summed dense within a node (whose ranks share memory), exchanged between the
-- nodes' leaders by any other topology (inter_node =, default allreduce for "none", else allgather), and broadcast
-- within the node. Only one rank per node uses the network, and it encodes one sum per node. The communication thread
-- sums within the node while backward continues; if the leaders' topology is a dense all-reduce, it does this and the
-- broadcast, too.
local failure = require "atomo.exchange.failure"
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local M = {whole = true} -- small gradients are not joined here: the leaders' exchange does it

--- Every tensor is sent in dense buckets; the leaders' exchange compresses the node's sums.
function M.all_dense() return true end

--- Returns why the leaders' topology cannot be used, nil if it can. refusal(name, o): asks another topology.
function M.refuses(o, refusal)
  if o.inter_node == "auto" then return end
  -- the number of leaders is not known before open()
  local why = refusal(o.inter_node, {compressor = o.compressor, feedback = o.feedback, size = math.huge,
    downlink = o.downlink})
  return why and ("with inter_node = %s: %s"):format(o.inter_node, why)
end

--- Returns the number of nodes, which the leaders broadcast within their nodes. [collective]
local function count_nodes(node, leaders)
  local size = T.full({1}, leaders and leaders.size or 0)
  node:bcast(size, 0)
  return size:item()
end

--- Opens the leaders' exchange. [collective over the leaders]
local function between(leaders, settings, exchange)
  -- inter_node = "auto" means the default topology, not a measured choice, which would need all ranks
  return exchange {comm = leaders, compress = settings.compress,
    topology = settings.inter_node == "auto" and "default" or settings.inter_node, downlink = settings.downlink,
    min_size = settings.min_size, seed = settings.seed, overlap = settings.overlap, nested = true,
    fuse_small = settings.fuse_small, message_buckets = settings.message_buckets}
end

--- Makes the communicators and programs of a route; exchange(options) opens the leaders' exchange. [collective]
function M.open(route, settings, compressor, exchange)
  local comm = route.comms[1]
  local node = comm:split_shared()
  local leads = node.rank == 0
  local leaders = comm:split(leads and 0 or nil)
  -- A rank that begins something else meets the others on these communicators first (optim/trained.lua).
  C.atomo_comm_set_checked(node.h, settings.checked and 1 or 0)
  if leads then C.atomo_comm_set_checked(leaders.h, settings.checked and 1 or 0) end
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
  -- a node's sum is weighted so that the leaders' average is the average over all ranks, even if nodes have different
  -- numbers of ranks
  route.weight, route.scale = nodes / comm.size, 1
  route.dense_program, route.spread_program = {reduce}, {broadcast}
  if leads then route.between = between(leaders, settings, exchange) end
end

--- Exchanges the nodes' sums between the leaders; notes a failure. inner: the leaders' exchange.
local function exchange(step, inner)
  local plan = step.plan
  if plan.route.weight ~= 1 then
    for _, bucket in ipairs(plan.buckets) do bucket.buffer:mul_(plan.route.weight) end
  end
  for _, bucket in ipairs(inner.closed and {} or plan.buckets) do
    for _, t in ipairs(bucket.tensors) do inner:push(t.index, plan.dense.slices[t.index]) end
  end
  local ok, why = pcall(inner.average_or_why, inner)
  if not ok then -- if nothing was encoded yet, all leaders raise this, and the other ranks must learn of it
    if inner.current and inner.current.begun then error(why, 0) end
    return failure.note(step, failure.ENCODING, why)
  end
  if why then
    local own = inner.current.broken -- set on the leader that failed, so that the error has its rank in this exchange
    return failure.note(step, own and own.kind or failure.DECODING, own and own.text or why)
  end
  local s = inner:stats()
  step.ms.encode, step.ms.decode, step.variance = s.ms.encode, s.ms.decode, s.variance
  step.ms.exchange = step.ms.exchange + s.ms.exchange
end

--- Called when the nodes' sums are complete: exchanges them between the leaders, if there is a leaders' exchange, and
--- broadcasts the results within the nodes.
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
