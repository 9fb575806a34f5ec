--- Programs of buckets: the operations that C runs for a bucket in every step. C gets a program once, when the bucket
-- is planned (atomo_bucket_plan in runtime/atomo.h). A step starts a bucket by one call and waits for it by another.
local f = require "atomo.ffi"
local failure = require "atomo.exchange.failure"
local ffi, C, check = f.ffi, f.C, f.check

local figures = ffi.new "double[4]" -- seconds of encoding, decoding, waiting; kind of failure (failure.lua), or 0

local operations = {encode = C.ATOMO_OP_ENCODE, average = C.ATOMO_OP_AVERAGE, encode_again = C.ATOMO_OP_ENCODE_AGAIN,
  decode = C.ATOMO_OP_DECODE, allgather = C.ATOMO_OP_ALLGATHER, alltoall = C.ATOMO_OP_ALLTOALL,
  broadcast = C.ATOMO_OP_BROADCAST, reduce = C.ATOMO_OP_REDUCE, allreduce = C.ATOMO_OP_ALLREDUCE,
  broadcast_tensor = C.ATOMO_OP_BROADCAST_TENSOR, sums = C.ATOMO_OP_SUMS}

local M = {}

--- Makes a C bucket.
---@param name string
---@param program table[]       {{operation, communicator or nil}, ...}
---@param fields table          further fields of atomo_bucket_plan by name
---@param second_way integer?   index of the first operation of the way back, nil for none
function M.bucket(name, program, fields, second_way)
  local plan, out = ffi.new "atomo_bucket_plan", ffi.new "atomo_bucket *[1]"
  plan.name, plan.operations, plan.second_way = name, #program, second_way and second_way - 1 or #program
  for k, operation in ipairs(program) do
    local comm = operation[2]
    plan.what[k - 1], plan.comm[k - 1] = operations[operation[1]], comm and comm.h or nil
  end
  for key, value in pairs(fields) do plan[key] = value end
  check(C.atomo_bucket_new(plan, out))
  return ffi.gc(out[0], C.atomo_bucket_free)
end

--- Tells C the order in which buckets start.
function M.order(buckets)
  local list = ffi.new("atomo_bucket *[?]", math.max(#buckets, 1))
  for k, bucket in ipairs(buckets) do list[k - 1] = bucket.h end
  check(C.atomo_bucket_order(list, #buckets))
end

--- Waits for a C bucket; adds its times to the step's and notes its failure.
function M.wait(h, step)
  local status, ms = C.atomo_bucket_wait(h, figures), step.ms
  local failed = figures[3]
  ms.encode, ms.decode = ms.encode + 1e3 * figures[0], ms.decode + 1e3 * figures[1]
  ms.exchange = ms.exchange + 1e3 * figures[2]
  if failed == 0 then check(status) else failure.note(step, failed, f.text_of(status)) end
end

return M
