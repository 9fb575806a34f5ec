--- Batches: the messages of neighbouring tensors, which travel together while backward goes on. A batch is encoded, by
-- the compressor's streaming form, when its last gradient is ready, and the communication thread sends it as the
-- topology says (its `send`); what follows at the end of the step overlaps with the travel of the later batches. The
-- bits are the same without overlap.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local carry = require "atomo.exchange.carry"
local messages = require "atomo.exchange.messages"
local ffi, C = f.ffi, f.C

local MIN_BYTES, MOST = 2 ^ 18, 6 -- of gradient in a batch; batches a step

local bytes = ffi.typeof "uint8_t *"

local M = {}

local Batch = {}
Batch.__index = Batch

--- Cuts the messages of the exchange into groups of neighbours, each an object of `class`: messages first..last, whose
-- tensors are its members. The list is in backward's order, the last tensors first; list.of[i] is tensor i's. At most
-- `most` groups.
function M.group(self, class, most)
  local total, list = 0, {of = {}}
  for _, m in ipairs(self.messages) do total = total + 4 * m.n end
  local enough, group = math.max(MIN_BYTES, total / (most or MOST)), nil
  for k = #self.messages, 1, -1 do
    local m = self.messages[k]
    if not group or group.dense >= enough and list.of[m.index] ~= group then
      group = setmetatable({members = {}, dense = 0, last = k}, class)
      list[#list + 1] = group
    end
    group.first = k
    if list.of[m.index] ~= group then table.insert(group.members, 1, {index = m.index}) end
    group.dense = group.dense + 4 * m.n
    list.of[m.index] = group
  end
  return list
end

--- Plans the exchange's batches, and the codec and buffer that they are encoded with.
function M.plan(self, most)
  self.batches = {of = {}}
  if #self.messages == 0 then return end
  messages.prepare(self, self.compressor)
  self.send = T.empty({self.compressor:wire_max()}, "u8")
  self.batches = M.group(self, Batch, most)
  for _, batch in ipairs(self.batches) do
    batch.inbox, batch.grads, batch.lengths = messages.inbox(self), {}, {}
  end
  messages.enqueue(self, self.batches)
end

--- Encodes the batch's gradients into exchange.send, behind the step's earlier batches; returns offset and bytes. A
--- gradient that cannot be encoded (NaN) leaves the batch empty: this rank says why in finish, if the step is not given
--- up before.
local function encode(self, exchange)
  local c, t = exchange.compressor, C.atomo_time()
  if not exchange.begun then
    c:begin_step(exchange.step, exchange.comm.rank)
    exchange.begun, exchange.sent = true, 0
  end
  local from = exchange.sent
  for k = self.first, self.last do
    local j = k - self.first + 1
    self.grads[j] = messages.gradient(exchange, k)
    local ok, n = pcall(c.push, c, k, self.grads[j], exchange.send, exchange.sent)
    if not ok then
      exchange.broken, exchange.sent = exchange.broken or n, from
      for i = 1, self.last - self.first + 1 do self.lengths[i] = 0 end
      break
    end
    self.lengths[j], exchange.sent = n, exchange.sent + n
  end
  messages.lap(exchange, "encode", t)
  return from, exchange.sent - from
end

function Batch:post(exchange)
  local from, n = encode(self, exchange)
  self.ticket = exchange.engine.send(exchange, self, ffi.cast(bytes, exchange.send.h.data) + from, n)
end

function Batch:wait(exchange)
  carry.wait(exchange, self.ticket)
  self.ticket = nil
end

--- What topologies with batches do with a gradient that is ready.
function M.ready(self, i, grad)
  local batch = self.batches.of[i]
  if batch then messages.complete(self, batch) else messages.ready(self, i, grad) end
end

--- ... and with a step that is given up.
function M.drop(self)
  M.close(self, true)
  messages.drop(self)
end

--- Ends the compressor's step; raises what went wrong in encoding.
function M.close(exchange, dropped)
  if exchange.begun then exchange.compressor:end_step() end
  local why = exchange.broken
  exchange.begun, exchange.broken = nil, nil
  if why and not dropped then f.raise(why) end
end

--- The second encoding, of averages: messages first .. last of a batch, into exchange.back behind the step's earlier
--- ones; returns them and their bytes.
function M.again(exchange, batch, first, last)
  local c, t, from = exchange.second, C.atomo_time(), exchange.sent_back
  for k = first, last do
    local n = c:push(k, batch.grads[k - batch.first + 1], exchange.back, exchange.sent_back)
    exchange.sent_back = exchange.sent_back + n
  end
  messages.lap(exchange, "encode", t)
  return ffi.cast(bytes, exchange.back.h.data) + from, exchange.sent_back - from
end

--- Plans a second encoding: a compressor like the exchange's, with the random streams of rank `size`, which nobody is.
function M.plan_again(self)
  if #self.messages == 0 then return end
  self.second = messages.compressor(self)
  messages.prepare(self, self.second)
  if self.kept then self.second:load_state_dict(self.kept) end -- from a checkpoint
  self.kept = nil
  self.back = T.empty({self.second:wire_max()}, "u8")
  for _, batch in ipairs(self.batches) do batch.answer = messages.inbox(self) end
end

--- To be called before the first M.again of a step.
function M.begin_again(exchange)
  exchange.second:begin_step(exchange.step, exchange.comm.size)
  exchange.sent_back = 0
end

return M
