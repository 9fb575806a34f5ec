--- Batches: the messages of neighbouring tensors, which travel together while backward goes on. A batch is encoded, by
-- the compressor's streaming form, when its last gradient is ready, and the communication thread sends it as the
-- topology says (its `send`). Where averages are sent back (`answer`), the answers to a batch follow behind the next
-- one: decoding, encoding again and travel go on in the background too. What a batch ends with, every rank's messages
-- or the owners' answers, is decoded when it has come. Compressors in C do all that on the coding thread (native.lua),
-- those in Lua on this one, where answers and decoding wait for the end of the step (scripted.lua). The bits are the
-- same without overlap.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local buckets = require "atomo.exchange.bucket.dense"
local carry = require "atomo.exchange.transport"
local messages = require "atomo.exchange.messages"

local MIN_BYTES, MOST = 2 ^ 18, 6 -- of gradient in a batch; batches a step

local M = {}

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
  for k, each in ipairs(list) do each.name = ("messages %d of %d"):format(k, #list) end
  return list
end

--- Plans the exchange's batches, of a class (class.lua). to(k): the rank that message k is for, ascending within a
--- batch; nil: every rank.
---@param to (fun(k: integer): integer)?
---@param most integer?
function M.plan(self, class, to, most)
  self.batches = {of = {}}
  if #self.messages == 0 then return end
  messages.prepare(self, self.compressor)
  self.batches = M.group(self, class, most)
  for _, batch in ipairs(self.batches) do
    batch.inbox, batch.grads, batch.to = messages.inbox(self), {}, {}
    for k = batch.first, batch.last do batch.to[k - batch.first + 1] = to and to(k) end
    batch:plan(self)
  end
  messages.enqueue(self, self.batches)
end

--- Plans the answers: this rank averages messages first .. last of batch k, which range(batch) gives, and where `again`
--- encodes the averages with a compressor like the exchange's, in the second way's seed space and with the streams of
--- rank `size`, which nobody is.
--- The averages lie back to back in batch.average; batch.averages are views of it, by message.
---@param range fun(batch: table): integer, integer
---@param again boolean
function M.plan_answers(self, range, again)
  if #self.messages == 0 then return end
  if again then
    self.second = messages.compressor(self, "down")
    messages.prepare(self, self.second)
  end
  for _, batch in ipairs(self.batches) do
    batch.answer, batch.averages = messages.inbox(self), {}
    batch.mine, batch.mine_last = range(batch)
    local total, at = 0, 1
    for k = batch.mine, batch.mine_last do total = total + self.messages[k].n end
    batch.average = T.empty {math.max(1, total)}
    for k = batch.mine, batch.mine_last do
      local m = self.messages[k]
      batch.averages[#batch.averages + 1] = batch.average:narrow(1, at, m.n):view(m.shape)
      at = at + m.n
    end
    batch:plan_answer(self, again)
  end
end

--- Plans how the step's averages come out of batch[o.from] ("inbox", "answer"), what travelled last: message k is in
--- block o.block(k) of o.blocks (from 0), of rank o.rank's random streams; without o.block in those of all ranks, each
--- rank's own, which are averaged.
---@param o {from: string, block: (fun(k: integer): integer)?, blocks: integer?, rank: integer?}
function M.plan_results(self, o)
  self.results = o
  o.codec = o.from == "answer" and self.second or self.compressor
  for _, batch in ipairs(self.batches) do batch:plan_result(self) end
end

--- Sends a batch that is ready (empty where the step is given up), and the answer to the one before, where there are
--- answers.
function M.post(batch, exchange, void)
  messages.begin(exchange)
  if void then
    batch:encode_nothing(exchange)
  else
    for k = batch.first, batch.last do batch.grads[k - batch.first + 1] = messages.gradient(exchange, k) end
    batch:encode(exchange)
  end
  f.C.atomo_flight_note(batch.name)
  batch.ticket = exchange.engine.send(exchange, batch)
  if not exchange.engine.answer then return batch:open(exchange) end
  if batch.late then return end
  if exchange.unanswered then M.answer(exchange, exchange.unanswered) end
  exchange.unanswered = batch
end

--- Averages a batch and sends it back.
function M.answer(exchange, batch)
  if exchange.second and not exchange.begun_again then
    exchange.second:begin_step(exchange.step, exchange.comm.size)
    exchange.begun_again, exchange.sent_back = true, 0
  end
  exchange.unanswered = nil
  f.C.atomo_flight_note(batch.name)
  batch.ticket = exchange.engine.answer(exchange, batch)
  batch:open(exchange)
end

--- The answers that are still to be sent when backward is over: the last one, or those of compressors in Lua.
function M.answer_rest(exchange)
  if exchange.unanswered then return M.answer(exchange, exchange.unanswered) end
  for _, batch in ipairs(exchange.batches) do
    M.wait(batch, exchange)
    M.answer(exchange, batch)
  end
end

function M.wait(batch, exchange)
  carry.wait(exchange, batch.ticket)
  batch.ticket = nil
end

--- What topologies with batches do with a gradient that is ready.
function M.ready(self, i, grad)
  local batch = self.batches.of[i]
  if batch then messages.complete(self, batch) else messages.ready(self, i, grad) end
end

--- Waits until all is coded, has travelled and is decoded; what went wrong is noted.
function M.settle(exchange)
  if exchange.engine.answer then M.answer_rest(exchange) end
  local t = f.C.atomo_time()
  for _, batch in ipairs(exchange.batches) do batch:coded(exchange) end
  messages.lap(exchange, "exchange", t) -- it was waited for
  for _, batch in ipairs(exchange.batches) do
    batch:wait(exchange)
    batch:opened(exchange)
  end
  buckets.settle(exchange.buckets, exchange)
end

--- The gradients become the averages.
function M.give(exchange)
  for _, batch in ipairs(exchange.batches) do batch:give(exchange) end
  buckets.give(exchange.buckets, exchange)
end

return M
