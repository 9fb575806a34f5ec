--- Sums: the gradients of a linear compressor, added up on the way (runtime/exchange/bucket_linear.c). Batches of
-- neighbouring tensors, as in compressed.lua, but the communication thread does the encoding too, between the
-- all-reduces; it does so without overlap as well, where it is waited for at once: the same work on the same thread, so
-- the same bits.
local f = require "atomo.ffi"
local batches = require "atomo.exchange.bucket.compressed"
local carry = require "atomo.exchange.transport"
local failure = require "atomo.exchange.failure"
local messages = require "atomo.exchange.messages"
local ffi, C, check = f.ffi, f.C, f.check

local const_tensors = ffi.typeof "const atomo_tensor *const *"
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

function Sum:post(exchange, void)
  messages.begin(exchange)
  for j, m in ipairs(self.members) do
    local g = exchange.pushed[m.index]
    self.handles[j - 1] = g and g.h
  end
  exchange:mark()
  local grads = not void and ffi.cast(const_tensors, self.handles) or nil -- nil: zeros
  check(C.atomo_engine_sums(self.h, grads, exchange.step, ticket))
  self.ticket = f.number(ticket)
  if not exchange.overlap then self:wait(exchange) end
end

function Sum:wait(exchange)
  carry.wait(exchange, self.ticket)
  self.ticket = nil
end

--- Waits for the batches; notes what went wrong.
function M.settle(list, exchange)
  for _, sum in ipairs(list) do
    sum:wait(exchange)
    local status = C.atomo_sums_failed(sum.h)
    if status < 0 then failure.note(exchange, failure.ENCODING, f.text_of(status)) end
  end
end

--- Gradients become the averages.
function M.give(list, exchange)
  local t = C.atomo_time()
  for _, sum in ipairs(list) do check(C.atomo_sums_give(sum.h, sum.handles, 1 / exchange.comm.size)) end
  messages.lap(exchange, "decode", t)
end

return M
