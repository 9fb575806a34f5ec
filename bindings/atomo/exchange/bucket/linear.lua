--- Buckets of a linear compressor, whose messages are added by an all-reduce (runtime/exchange/bucket_linear.c). The
-- communication thread encodes, too. Without overlap it does the same work and the main thread waits for each bucket,
-- so that results are bit-identical.
local f = require "atomo.ffi"
local Bucket = require "atomo.exchange.bucket"
local program = require "atomo.exchange.program"
local ffi, C, check = f.ffi, f.C, f.check

local const_tensors = ffi.typeof "const atomo_tensor *const *"

local Linear = Bucket.kind(Bucket)

--- Makes the bucket of messages range.first .. range.last.
function Linear.new(plan, range)
  local out = ffi.new "atomo_sums *[1]"
  check(C.atomo_sums_new(plan.compressor.h, plan.comm.h, range.first, #range.tensors, out))
  local sums = ffi.gc(out[0], C.atomo_sums_free)
  return Bucket.new(Linear, {plan = plan, name = range.name, tensors = range.tensors, sums = sums,
    h = program.bucket(range.name, {{"sums", plan.comm}}, {sums = sums}),
    handles = ffi.new("atomo_tensor *[?]", #range.tensors)})
end

--- Starts the bucket; void: with zeros, in a step that is given up.
function Linear:start(step, void)
  void = not step:begin() or void
  for j, t in ipairs(self.tensors) do
    local g = step.tensors[t.index]
    self.handles[j - 1] = g and g.h
  end
  self:go(step, not void and ffi.cast(const_tensors, self.handles) or nil)
end

--- Writes the averages into the gradients.
function Linear:write_back(step)
  local t = C.atomo_time()
  check(C.atomo_sums_write_back(self.sums, self.handles, 1 / self.plan.comm.size))
  step:lap("decode", t)
end

return Linear
