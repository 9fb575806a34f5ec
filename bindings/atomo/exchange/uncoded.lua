--- A batch (batches.lua) of a compressor written in Lua, encoded on this thread: as its gradients arrive, and for the
-- answer at the end of the step. The communication thread sends it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local batches = require "atomo.exchange.batches"
local carry = require "atomo.exchange.carry"
local messages = require "atomo.exchange.messages"
local ffi, C = f.ffi, f.C

local Uncoded = {late = true} -- answers and decoding wait for the end of the step
Uncoded.__index = Uncoded

function Uncoded:plan(exchange)
  exchange.send = exchange.send or T.empty({exchange.compressor:wire_max()}, "u8")
  self.lengths, self.sizes = {}, ffi.new("double[?]", exchange.comm.size)
end

function Uncoded:plan_answer(exchange, again)
  if again then exchange.back = exchange.back or T.empty({exchange.second:wire_max()}, "u8") end
end

Uncoded.post, Uncoded.wait = batches.post, batches.wait

--- Encodes the batch's gradients behind the step's earlier batches. A gradient that cannot be encoded (NaN) leaves the
--- batch empty: this rank says why at the end of the step, if it is not given up before.
function Uncoded:encode(exchange)
  local c, t, from = exchange.compressor, C.atomo_time(), exchange.sent
  for j, g in ipairs(self.grads) do
    local ok, n = pcall(c.push, c, self.first + j - 1, g, exchange.send, exchange.sent)
    if not ok then
      exchange.broken, exchange.sent = exchange.broken or n, from
      for i = 1, #self.grads do self.lengths[i] = 0 end
      break
    end
    self.lengths[j], exchange.sent = n, exchange.sent + n
  end
  self.data, self.at, self.n = exchange.send.h, from, exchange.sent - from
  messages.lap(exchange, "encode", t)
end

function Uncoded:out(exchange, how)
  if how == "allgather" then return carry.out(exchange, how, nil, self.data, self.at, self.n, self.inbox) end
  for r = 0, exchange.comm.size - 1 do self.sizes[r] = 0 end
  for j, rank in ipairs(self.to) do self.sizes[rank] = self.sizes[rank] + self.lengths[j] end
  return carry.out(exchange, how, nil, self.data, self.at, self.sizes, self.inbox)
end

function Uncoded:reply_with(exchange)
  local first, last, second = self.mine, self.mine_last, exchange.second
  messages.decode(exchange, exchange.compressor, messages.open(self.inbox), first, last, self.averages)
  self.data, self.at, self.n = nil, 0, 0
  if not second then return end
  local t, from = C.atomo_time(), exchange.sent_back
  for k = first, last do
    local n = second:push(k, self.averages[k - first + 1], exchange.back, exchange.sent_back)
    exchange.sent_back = exchange.sent_back + n
  end
  self.data, self.at, self.n = exchange.back.h, from, exchange.sent_back - from
  messages.lap(exchange, "encode", t)
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
  messages.decode(exchange, o.codec, sources, self.first, self.last, self.grads, o.block)
end

return Uncoded
