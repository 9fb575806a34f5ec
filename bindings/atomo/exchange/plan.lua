--- The plan of an exchange: which tensors travel as compressed messages and which in dense buckets (small ones, and
-- those with fewer than two dimensions: biases, norms), which travel together, in which order, and by which operations.
-- Made at the first step; it never changes. Other gradients want another plan.
local T = require "atomo.tensor"
local Coded = require "atomo.exchange.bucket.compressed"
local Dense = require "atomo.exchange.bucket.dense"
local Linear = require "atomo.exchange.bucket.linear"
local Native = require "atomo.exchange.bucket.native"
local Scripted = require "atomo.exchange.bucket.scripted"
local fuse_small = require "atomo.exchange.fuse_small"
local messages = require "atomo.exchange.messages"
local program = require "atomo.exchange.program"
local scheduler = require "atomo.exchange.scheduler"
local sealed = require "atomo.exchange.sealed"

---@class atomo.exchange.Plan
---@field comm table            communicator
---@field comms table[]         communicators whose bytes count
---@field overlap boolean
---@field shapes string[]       of the gradients, by the user's number
---@field dense_bytes number    what they are in fp32
---@field tensors table[]       {label=, shape=, n=, members=}, by the plan's number (fuse_small.lua)
---@field places table[]        by the user's number, where a gradient goes
---@field joined table|false    the tensor of the small ones
---@field messages table[]      {index=, shape=, n=}; of a piece also owner, from, rows; k is the codec's tensor k
---@field dense table           where dense tensors lie (bucket/dense.lua)
---@field compressor table
---@field second table|false    the compressor of averages that are encoded again
---@field owner function|false  (message) -> the rank that averages it
---@field program string[]|false the operations that carry messages, as the topology says
---@field out string|false      the operation that sends messages
---@field back string|false     the operation that sends averages back
---@field averages_here boolean this rank averages what has come
---@field results table|false   how averages come out of what travels last: {codec=, from= "inbox" or "answer", block=,
---                             blocks=, rank=}; false: they come as they are
---@field scale number          of what dense buckets sum up
---@field buckets table[]       in the order in which they start
---@field bucket_of table       by the user's number
local Plan = sealed({}, "exchange: plan")

--- How messages travel by the topology's program; returns where each operation is in it.
local function ways(self, operations)
  local at = {}
  for k, operation in ipairs(operations) do at[operation] = k end
  self.program, self.out = operations, operations[2]
  if at.average then
    self.back = operations[at.encode_again and at.average + 2 or at.average + 1]
    self.averages_here = self.back == "allgather" or self.comm.rank == 0
  end
  if not at.decode then return at end
  local answers = at.average ~= nil
  local one = self.back == "broadcast" -- block: the root's; else one a rank
  self.results = {codec = self.compressor, from = answers and "answer" or "inbox",
    block = answers and self.owner or nil, blocks = one and 1 or self.comm.size,
    rank = answers and self.comm.size or -1}
  return at
end

--- The tensors that are messages, and the numbers of the others, the last first.
local function split(self, min_size)
  local all_dense, list, dense = self.topology.all_dense, {}, {}
  all_dense = all_dense and all_dense(self.compressor)
  for k, t in ipairs(self.tensors) do
    if all_dense or not fuse_small.is_message(t, self.joined and k == 1, self.compressor, min_size) then
      table.insert(dense, 1, k)
    else
      list[#list + 1] = {index = k, shape = t.shape, n = t.n}
    end
  end
  return list, dense
end

--- Plans a codec for the messages; its budget in bytes or as a ratio is that of the whole step.
local function prepare(self, codec)
  local shapes, names = {}, {}
  for k, m in ipairs(self.messages) do shapes[k], names[k] = m.shape, self.tensors[m.index].label end
  codec:prepare(shapes, names, {step_bytes = self.dense_bytes, dense_bytes = self.dense.bytes})
  if codec.check_ranks then codec:check_ranks(self.comm) end -- written in Lua
end

--- The compressor of averages that are encoded again.
local function plan_second(self, settings)
  self.second = messages.compressor(settings, "down")
  prepare(self, self.second)
  if self.results then self.results.codec = self.second end
end

--- The buckets of messages.
local function coded_buckets(self, settings)
  local topology, list = self.topology, {}
  if topology.cut then self.messages = topology.cut(self.messages, self.comm.size) end
  if #self.messages == 0 then return list end
  prepare(self, self.compressor)
  local at = ways(self, topology.program(settings))
  if at.encode_again then plan_second(self, settings) end
  local kind = self.compressor.h and Native or Scripted
  if self.out == "allreduce" then kind = Linear end
  if kind == Scripted then self.buffer, self.buffer_back = Scripted.buffers(self.compressor, self.second) end
  for k, range in ipairs(Coded.cut(self.messages, topology.most)) do list[k] = kind.new(self, range) end
  return list
end

--- Sets the buckets, in the order in which they start, and what follows from them.
local function set_buckets(self, list)
  self.buckets, self.bucket_of = scheduler.sort(list), {}
  program.order(self.buckets)
  for _, bucket in ipairs(self.buckets) do
    for _, t in ipairs(bucket.tensors) do
      for _, i in ipairs(self.tensors[t.index].members) do self.bucket_of[i] = bucket end
    end
  end
end

--- The names of gradients, for messages and overrides.
local function names_of(grads, names)
  local list = {}
  for i in ipairs(grads) do list[i] = names and names[i] or ("gradient %d"):format(i) end
  return list
end

--- Plans the exchange of these gradients.
---@param o {comm: table, settings: table, compressor: table, route: table, names: table|false}
---@param grads atomo.Tensor[]
function Plan.new(o, grads)
  local settings, topology, route = o.settings, o.route.topology, o.route
  local joins = settings.fuse_small == "compress" and o.compressor.name ~= "none" and not topology.whole
  local names = names_of(grads, o.names)
  local tensors, places, joined = fuse_small.plan(grads, names, o.compressor, settings.min_size, joins)
  local self = {comm = o.comm, comms = route.comms, route = route, topology = topology, overlap = settings.overlap,
    compressor = o.compressor, second = false, shapes = {}, dense_bytes = 0, tensors = tensors, places = places,
    joined = joined, messages = false, dense = false, owner = topology.owner or false, out = false, back = false,
    averages_here = false, results = false, buffer = false, buffer_back = false, buckets = false, bucket_of = false,
    program = false, scale = route.scale, dense_program = route.dense_program, spread_program = route.spread_program}
  for i, g in ipairs(grads) do
    self.shapes[i] = T.shape_text(g)
    self.dense_bytes = self.dense_bytes + 4 * g:numel()
  end
  local dense
  self.messages, dense = split(self, settings.min_size)
  self.dense = Dense.layout(dense, tensors, o.comm.size)
  setmetatable(self, Plan)
  local list = coded_buckets(self, settings)
  for _, bucket in ipairs(Dense.buckets(self)) do list[#list + 1] = bucket end
  set_buckets(self, list)
  return self
end

--- The same plan with dense buckets of at most `bytes`.
function Plan:with_buckets(bytes)
  local other = {}
  for key, value in pairs(self) do other[key] = value end
  setmetatable(other, Plan)
  set_buckets(other, Dense.buckets(other, bytes))
  return other
end

--- The labels of the tensors, by the plan's number.
function Plan:labels()
  local list = {}
  for k, t in ipairs(self.tensors) do list[k] = t.label end
  return list
end

return Plan
