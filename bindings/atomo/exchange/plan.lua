--- The plan of an exchange: which tensors are sent as messages and which in dense buckets (small ones, and those with
-- fewer than two dimensions: biases, norms), in which buckets, in which order, and by which operations. It is made at
-- the first step and never changes; other gradients need another plan.
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
---@field comms table[]         communicators whose bytes are counted
---@field overlap boolean
---@field shapes string[]       shapes of the gradients, by gradient number
---@field dense_bytes number    bytes of all gradients in f32
---@field tensors table[]       {label=, shape=, n=, members=} (fuse_small.lua)
---@field places table[]        by gradient number: the tensor that has it, and its slice (fuse_small.lua)
---@field joined table|false    the tensor of the joined small gradients
---@field messages table[]      {index= (in tensors), shape=, n=}, a piece also owner, from, rows; k: codec's tensor k
---@field dense table           layout of dense tensors (bucket/dense.lua)
---@field compressor table      the compressor of gradients
---@field second table|false    the compressor of averages that are encoded again
---@field owner function|false  (message) -> the rank that averages it
---@field program string[]|false the topology's operations on a bucket of messages
---@field out string|false      the operation that sends messages
---@field back string|false     the operation that sends averages back
---@field averages_here boolean does this rank average messages that it receives?
---@field results table|false   how the last messages are decoded: {codec=, from= "inbox" or "answer", block=, blocks=,
---                             rank= sender, -1: any}; false: averages arrive dense
---@field scale number          factor for the sums of dense buckets
---@field buckets table[]       in the order in which they start
---@field bucket_of table       bucket by gradient number
local Plan = sealed({}, "exchange: plan")

--- Sets the fields that follow from the topology's program; returns operation -> its index in it.
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
  local one = self.back == "broadcast" -- one block, from the root; otherwise one per rank
  self.results = {codec = self.compressor, from = answers and "answer" or "inbox",
    block = answers and self.owner or nil, blocks = one and 1 or self.comm.size,
    rank = answers and self.comm.size or -1}
  return at
end

--- Returns the messages, and the numbers of the dense tensors in descending order.
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

--- Plans the messages in a codec. A budget in bytes or as a ratio is for the whole step. ranks: that encode messages
--- whose mean is taken.
local function prepare(self, codec, ranks)
  local shapes, names = {}, {}
  for k, m in ipairs(self.messages) do shapes[k], names[k] = m.shape, self.tensors[m.index].label end
  codec:prepare(shapes, names, {step_bytes = self.dense_bytes, dense_bytes = self.dense.bytes, ranks = ranks})
  if codec.check_ranks then codec:check_ranks(self.comm) end -- a scripted one
end

--- Makes the compressor of averages that are encoded again.
local function plan_second(self, settings)
  self.second = messages.compressor(settings, "down")
  prepare(self, self.second, 1)
  if self.results then self.results.codec = self.second end
end

--- Makes the buckets of messages.
local function coded_buckets(self, settings)
  local topology, list = self.topology, {}
  local budget = self.compressor.step_budget
  local most = settings.message_buckets or Coded.most(budget and budget(self.dense_bytes), topology.most)
  if topology.cut then self.messages = topology.cut(self.messages, self.comm.size, most) end
  if #self.messages == 0 then return list end
  prepare(self, self.compressor, self.comm.size)
  local at = ways(self, topology.program(settings))
  if at.encode_again then plan_second(self, settings) end
  local kind = self.compressor.h and Native or Scripted
  if self.out == "allreduce" then kind = Linear end
  if kind == Scripted then self.buffer, self.buffer_back = Scripted.buffers(self.compressor, self.second) end
  for k, range in ipairs(Coded.cut(self.messages, most)) do list[k] = kind.new(self, range) end
  return list
end

--- Sets the buckets, sorted in the order in which they start, and bucket_of; tells C the order.
local function set_buckets(self, list)
  self.buckets, self.bucket_of = scheduler.sort(list), {}
  program.order(self.buckets)
  for _, bucket in ipairs(self.buckets) do
    for _, t in ipairs(bucket.tensors) do
      for _, i in ipairs(self.tensors[t.index].members) do self.bucket_of[i] = bucket end
    end
  end
end

--- Returns the names of gradients, "gradient 1", ... by default.
local function names_of(grads, names)
  local list = {}
  for i in ipairs(grads) do list[i] = names and names[i] or ("gradient %d"):format(i) end
  return list
end

--- Makes the plan for these gradients. [collective]
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

--- Returns a copy of the plan with dense buckets of at most `bytes`.
function Plan:with_buckets(bytes)
  local other = {}
  for key, value in pairs(self) do other[key] = value end
  setmetatable(other, Plan)
  set_buckets(other, Dense.buckets(other, bytes))
  return other
end

--- Returns the labels of the plan's tensors.
function Plan:labels()
  local list = {}
  for k, t in ipairs(self.tensors) do list[k] = t.label end
  return list
end

return Plan
