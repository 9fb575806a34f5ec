--- Sums: the gradients of a linear compressor, added up on the way (runtime/comm/sums.c). Batches of neighbouring
-- tensors, as in batches.lua, but the communication thread does the encoding too, between the all-reduces; it does so
-- without overlap as well, where it is waited for at once: the same work on the same thread, so the same bits.
local f = require "atomo.ffi"
local batches = require "atomo.exchange.batches"
local carry = require "atomo.exchange.carry"
local messages = require "atomo.exchange.messages"
local ffi, C, check = f.ffi, f.C, f.check

local ticket = ffi.new "double[1]"

local M = {}

local Sum = {}
Sum.__index = Sum

--- Batches of self.messages, planned in self.compressor; .of[i] is tensor i's.
function M.plan(self)
  local list = batches.group(self, Sum)
  for _, sum in ipairs(list) do
    local out = ffi.new "atomo_sums *[1]"
    check(C.atomo_sums_new(self.compressor.h, self.comm.h, sum.first, #sum.members, out))
    sum.h = ffi.gc(out[0], C.atomo_sums_free)
    sum.handles = ffi.new("atomo_tensor *[?]", #sum.members)
  end
  return list
end

function Sum:post(exchange)
  for j, m in ipairs(self.members) do self.handles[j - 1] = exchange.pushed[m.index].h end
  exchange:mark()
  check(C.atomo_engine_sums(self.h, ffi.cast("const atomo_tensor *const *", self.handles), exchange.step, ticket))
  self.ticket = f.number(ticket)
  if not exchange.overlap then self:wait(exchange) end
end

function Sum:wait(exchange)
  carry.wait(exchange, self.ticket)
  self.ticket = nil
end

--- Waits for the batches one by one; their gradients become the averages.
function M.finish(list, exchange)
  local codec = exchange.compressor
  codec:begin_step(exchange.step, exchange.comm.rank)
  for _, sum in ipairs(list) do
    sum:wait(exchange)
    local t = C.atomo_time()
    check(C.atomo_sums_give(sum.h, sum.handles, 1 / exchange.comm.size))
    messages.lap(exchange, "decode", t)
  end
  codec:end_step()
end

return M
