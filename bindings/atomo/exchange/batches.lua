--- Batches: the messages of neighbouring tensors, which travel together while backward goes on. A batch is encoded, by
-- the compressor's streaming form, when its last gradient is ready, and the communication thread gathers it from all
-- ranks; its decoding at the end of the step overlaps with the travel of the later ones. The bits are the same without
-- overlap.
local f = require "atomo.ffi"
local messages = require "atomo.exchange.messages"
local ffi, C, check = f.ffi, f.C, f.check

local MIN_BYTES, MOST = 2 ^ 18, 6 -- of gradient in a batch; batches a step

local ticket = ffi.new "double[1]"
local bytes = ffi.typeof "uint8_t *"

local M = {}

local Batch = {}
Batch.__index = Batch

--- Cuts the messages of the exchange into batches of neighbours: tensors first..last of the compressor. The list is in
-- backward's order, the last tensors first; list.of[i] is tensor i's batch.
function M.plan(self)
  local total, list = 0, {of = {}}
  for _, i in ipairs(self.messages) do total = total + 4 * self.pushed[i]:numel() end
  local enough, batch = math.max(MIN_BYTES, total / MOST), nil
  for k = #self.messages, 1, -1 do
    local i = self.messages[k]
    if not batch or batch.dense >= enough then
      batch = setmetatable({members = {}, dense = 0, grads = {}, inbox = messages.inbox(self)}, Batch)
      list[#list + 1] = batch
    end
    batch.first = k
    table.insert(batch.members, 1, {index = i})
    batch.dense = batch.dense + 4 * self.pushed[i]:numel()
    list.of[i] = batch
  end
  for k, each in ipairs(list) do each.name = ("messages %d of %d"):format(k, #list) end
  return list
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
  for j, m in ipairs(self.members) do
    self.grads[j] = exchange.pushed[m.index]
    local ok, n = pcall(c.push, c, self.first + j - 1, self.grads[j], exchange.send, exchange.sent)
    if not ok then
      exchange.broken, exchange.sent = exchange.broken or n, from
      break
    end
    exchange.sent = exchange.sent + n
  end
  messages.lap(exchange, "encode", t)
  return from, exchange.sent - from
end

function Batch:post(exchange)
  local from, n = encode(self, exchange)
  local data, inbox = ffi.cast(bytes, exchange.send.h.data) + from, self.inbox
  C.atomo_flight_note(self.name)
  if exchange.overlap then
    check(C.atomo_engine_allgatherv_bytes(exchange.comm.h, data, n, inbox.slot, inbox.counts, ticket))
    self.ticket = ticket[0]
  else
    messages.allgather(exchange, inbox, data, n)
  end
end

function Batch:wait()
  if self.ticket then check(C.atomo_engine_wait(self.ticket)) end
  self.ticket = nil
end

--- Waits for the batches one by one; each becomes the average over all ranks, added in the order of ranks.
function M.finish(list, exchange)
  M.close(exchange)
  for _, batch in ipairs(list) do
    local t = C.atomo_time()
    batch:wait()
    messages.lap(exchange, "exchange", t)
    messages.decode(exchange, exchange.compressor, messages.open(batch.inbox), batch.first, batch.grads,
      1 / exchange.comm.size)
  end
end

--- Ends the compressor's step; raises what went wrong in encoding.
function M.close(exchange, dropped)
  if exchange.begun then exchange.compressor:end_step() end
  local why = exchange.broken
  exchange.begun, exchange.broken = nil, nil
  if why and not dropped then f.raise(why) end
end

return M
