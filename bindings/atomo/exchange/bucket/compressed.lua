--- Buckets of messages: encoded by the compressor's streaming form when the bucket is full, sent by the topology's
-- program. If averages are sent back, a bucket's answer is sent after the next bucket's messages. A rank decodes the
-- last operation's messages: those of all ranks, or the owners' answers. Two kinds share this file: native compressors
-- encode and decode on the coding thread (native.lua), scripted ones on the main thread (scripted.lua).
local T = require "atomo.tensor"
local Bucket = require "atomo.exchange.bucket"
local messages = require "atomo.exchange.messages"

local MIN_BYTES, MOST = 2 ^ 18, 6 -- least bytes of gradients in a bucket; largest number of buckets
local MIN_MESSAGES = 600 -- least bytes of a bucket's messages: its frame and its fingerprint take 60 to 100

local Coded = Bucket.kind(Bucket)

--- Returns the largest number of buckets for a step of messages of `bytes`; nil: unknown.
---@param bytes number?
---@param most integer?  if there is no reason for fewer; default 6
function Coded.most(bytes, most)
  most = most or MOST
  return bytes and math.max(1, math.min(most, math.floor(bytes / MIN_MESSAGES))) or most
end

--- Divides messages into ranges of neighbours, {first=, last=, tensors=, name=}. The result is in backward's order, the
-- last tensors first. All pieces of a tensor are in one range.
---@param list table[]  the plan's messages
---@param most integer  largest number of ranges, about
function Coded.cut(list, most)
  local total, ranges = 0, {}
  for _, m in ipairs(list) do total = total + 4 * m.n end
  local enough, range, before = math.max(MIN_BYTES, total / most), nil, nil
  for k = #list, 1, -1 do
    local m = list[k]
    if not range or range.bytes >= enough and before.index ~= m.index then
      range = {tensors = {}, bytes = 0, last = k}
      ranges[#ranges + 1] = range
      before = nil
    end
    if not before or before.index ~= m.index then table.insert(range.tensors, 1, {index = m.index}) end
    range.first, range.bytes, before = k, range.bytes + 4 * m.n, m
  end
  for k, each in ipairs(ranges) do each.name = ("messages %d of %d"):format(k, #ranges) end
  return ranges
end

--- Returns first and last of the range's messages that this rank averages; last < first means none.
local function mine_of(plan, range)
  if not plan.second then return range.first, range.last end -- averages are sent dense
  local first, last = range.first, range.first - 1
  for k = range.first, range.last do
    if plan.owner(plan.messages[k]) == plan.comm.rank then
      if last < first then first = k end
      last = k
    end
  end
  return first, last
end

--- Allocates one flat tensor for the averages of messages first .. last; returns it and its views, one per message.
local function averages_of(plan, first, last)
  local total, at, views = 0, 1, {}
  for k = first, last do total = total + plan.messages[k].n end
  local flat = T.empty {math.max(1, total)}
  for k = first, last do
    local m = plan.messages[k]
    views[#views + 1] = flat:narrow(1, at, m.n):view(m.shape)
    at = at + m.n
  end
  return flat, views
end

--- Returns the fields that both kinds have. `to` lists the rank that each message is sent to; empty: all to every rank.
function Coded.fields(plan, range)
  local self = {plan = plan, name = range.name, tensors = range.tensors, first = range.first, last = range.last,
    to = {}, inbox = messages.inbox(plan.comm), answers = plan.back ~= false, answer_inbox = false, mine = 0,
    mine_last = 0, average = false, averages = {}}
  for k = range.first, plan.owner and range.last or 0 do self.to[#self.to + 1] = plan.owner(plan.messages[k]) end
  if self.answers then
    self.answer_inbox = plan.second and messages.inbox(plan.comm)
    self.mine, self.mine_last = mine_of(plan, range)
    self.average, self.averages = averages_of(plan, self.mine, self.mine_last)
  end
  return self
end

--- Returns this step's gradients, one per message of the bucket.
function Coded:gradients(step)
  local grads = {}
  for k = self.first, self.last do grads[#grads + 1] = self:tensor(step, self.plan.messages[k]) end
  step.of[self].grads = grads
  return grads
end

return Coded
