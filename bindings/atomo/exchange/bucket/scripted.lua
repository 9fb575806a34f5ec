--- A batch (compressed.lua) of a compressor written in Lua, encoded on this thread: as its gradients arrive, and for
-- the answer at the end of the step. The communication thread sends it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local batches = require "atomo.exchange.bucket.compressed"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local ffi, C = f.ffi, f.C

local Uncoded = {late = true} -- answers and decoding wait for the end of the step
Uncoded.__index = Uncoded

function Uncoded:plan(exchange)
  exchange.send = exchange.send or T.empty({exchange.compressor:wire_max()}, "u8")
  self.lengths, self.sizes = {}, ffi.new("double[?]", exchange.comm.size)
end

function Uncoded:plan_answer(exchange, again)
  self.lengths_back = {}
  if again then exchange.back = exchange.back or T.empty({exchange.second:wire_max()}, "u8") end
end

Uncoded.post, Uncoded.wait = batches.post, batches.wait

--- Gradients of messages first .. last behind what is in `out` from `from` on, their lengths into `lengths`; returns
--- where it ends. One that cannot be encoded (NaN) leaves all of them empty.
local function encode(exchange, codec, first, grads, out, from, lengths)
  local t, at = C.atomo_time(), from
  for j, g in ipairs(grads) do
    local ok, n = pcall(codec.push, codec, first + j - 1, g, out, at)
    if not ok then
      failure.note(exchange, failure.ENCODING, n)
      for i = 1, #grads do lengths[i] = 0 end
      at = from
      break
    end
    lengths[j], at = n, at + n
  end
  messages.lap(exchange, "encode", t)
  return at
end

--- Encodes the batch's gradients behind the step's earlier batches.
function Uncoded:encode(exchange)
  local from = exchange.sent
  exchange.sent = encode(exchange, exchange.compressor, self.first, self.grads, exchange.send, from, self.lengths)
  self.data, self.at, self.n = exchange.send.h, from, exchange.sent - from
end

--- The batch of a step that is given up.
function Uncoded:encode_nothing(exchange)
  for j = 1, self.last - self.first + 1 do self.lengths[j] = 0 end
  self.data, self.at, self.n = nil, 0, 0
end

function Uncoded:out(exchange, how)
  if how == "allgather" then return carry.out(exchange, how, nil, self.data, self.at, self.n, self.inbox) end
  for r = 0, exchange.comm.size - 1 do self.sizes[r] = 0 end
  for j, rank in ipairs(self.to) do self.sizes[rank] = self.sizes[rank] + self.lengths[j] end
  return carry.out(exchange, how, nil, self.data, self.at, self.sizes, self.inbox)
end

--- Decodes messages first .. last; a failure is noted, and what they become is then not to be used.
local function decode(exchange, ...)
  local ok, why = pcall(messages.decode, exchange, ...)
  if not ok then failure.note(exchange, failure.DECODING, why) end
  return ok
end

function Uncoded:reply_with(exchange)
  local second, from = exchange.second, exchange.sent_back
  local ok = decode(exchange, exchange.compressor, messages.open(self.inbox), self.mine, self.mine_last, self.averages)
  self.data, self.at, self.n = nil, 0, 0
  if not second or not ok then return end
  exchange.sent_back = encode(exchange, second, self.mine, self.averages, exchange.back, from, self.lengths_back)
  self.data, self.at, self.n = exchange.back.h, from, exchange.sent_back - from
end

function Uncoded:back(exchange, how)
  if how == "bcast_tensor" then return carry.out(exchange, "bcast", nil, self.average.h, 0) end
  if how == "bcast" then return carry.out(exchange, "bcast_bytes", nil, self.data, self.at, self.n, 0, self.answer) end
  return carry.out(exchange, how, nil, self.data, self.at, self.n, self.answer)
end

--- What came is decoded on this thread, by give.
function Uncoded:plan_result() end
function Uncoded:open() end
function Uncoded:opened() end
function Uncoded:coded() end -- all is

function Uncoded:give(exchange)
  local o = exchange.results
  if not o.from then -- the averages came as they are
    for j, g in ipairs(self.grads) do g:copy_(self.averages[j]) end
    return
  end
  local sources = messages.open(self[o.from], o.blocks, o.rank)
  decode(exchange, o.codec, sources, self.first, self.last, self.grads, o.block)
end

return Uncoded
