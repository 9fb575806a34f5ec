--- Operations of a communicator that a step needs, carried out by the communication thread (with overlap: posted, to be
-- waited for) or here and now: the same operations in the same order, so the same bits. With overlap no other operation
-- of a communicator may come in between: it would wait for all that is posted (runtime/exchange/engine.c).
local f = require "atomo.ffi"
local C, check = f.C, f.check

local ticket = f.ffi.new "double[1]"
local bytes = f.ffi.typeof "uint8_t *"

local function address(t, at)
  if t ~= nil then return f.ffi.cast(bytes, t.data) + at end
end

--- By name: {posted, at once}; both take (communicator, a, b, ...), the first a ticket's place besides.
local operations = {
  allreduce = {
    function(c, t, grains, n) return C.atomo_engine_allreduce_grains(c, t, grains, n, ticket) end,
    function(c, t, grains, n) return C.atomo_comm_allreduce_grains(c, t, grains, n) end,
  },
  reduce = {
    function(c, t, root) return C.atomo_engine_reduce(c, t, root, ticket) end,
    function(c, t, root) return C.atomo_comm_reduce(c, t, C.ATOMO_MPI_SUM, root) end,
  },
  bcast = {
    function(c, t, root) return C.atomo_engine_bcast(c, t, root, ticket) end,
    function(c, t, root) return C.atomo_comm_bcast(c, t, root) end,
  },
  --- (tensor, at, bytes, inbox): what the tensor (nil: nothing) holds from byte `at` on, to all
  allgather = {
    function(c, t, at, n, inbox) return C.atomo_engine_allgatherv_bytes(c, t, at, n, inbox.h, ticket) end,
    function(c, t, at, n, inbox)
      return C.atomo_comm_allgatherv_bytes(c, address(t, at), n, inbox.slot, inbox.counts)
    end,
  },
  --- (tensor, at, bytes by rank, inbox): to each its own
  alltoall = {
    function(c, t, at, sizes, inbox) return C.atomo_engine_alltoallv_bytes(c, t, at, sizes, inbox.h, ticket) end,
    function(c, t, at, sizes, inbox)
      return C.atomo_comm_alltoallv_bytes(c, address(t, at), sizes, inbox.slot, inbox.counts)
    end,
  },
  --- (tensor, at, bytes, root, inbox): the root's to all
  bcast_bytes = {
    function(c, t, at, n, root, inbox) return C.atomo_engine_bcast_bytes(c, t, at, n, root, inbox.h, ticket) end,
    function(c, t, at, n, root, inbox)
      return C.atomo_comm_bcast_bytes(c, address(t, at), n, root, inbox.slot, inbox.counts)
    end,
  },
}

local M = {}

--- Starts operation `name` on `comm`; returns a ticket, or nil where it is over already. The time of what is done here
--- and now counts as waiting.
function M.out(step, name, comm, ...)
  local overlap, from = step.plan.overlap, C.atomo_time()
  check(operations[name][overlap and 1 or 2](comm.h, ...))
  if overlap then return f.number(ticket) end
  step:lap("exchange", from)
end

--- What a parcel (bucket/native.lua) can go by; all take (parcel, communicator, where it arrives).
local parcels = {
  allgather = function(p, c, inbox) return C.atomo_parcel_allgather(p, c, inbox.h, ticket) end,
  alltoall = function(p, c, inbox) return C.atomo_parcel_alltoall(p, c, inbox.h, ticket) end,
  broadcast = function(p, c, inbox) return C.atomo_parcel_bcast(p, c, 0, inbox.h, ticket) end,
  broadcast_tensor = function(p, c, tensor) return C.atomo_parcel_bcast_tensor(p, c, tensor.h, 0, ticket) end,
}

--- Sends a parcel when it is coded; returns a ticket, or nil where it is over already.
function M.parcel(step, name, parcel, target)
  check(parcels[name](parcel, step.plan.comm.h, target))
  if step.plan.overlap then return f.number(ticket) end
  M.wait(step, ticket[0])
end

--- Adds gradients of a linear compressor up; returns a ticket.
function M.sums(sums, grads, number)
  check(C.atomo_engine_sums(sums, grads, number, ticket))
  return f.number(ticket)
end

--- Waits for a ticket (nil: for nothing).
function M.wait(step, number)
  if not number then return end
  local from = C.atomo_time()
  check(C.atomo_engine_wait(number))
  step:lap("exchange", from)
end

return M
