--- Dense buckets: tensors are copied one behind the other, summed over the ranks, averaged and copied back. Tensors are
-- in the order in which backward produces them (the last first). With overlap, the communication thread
-- (runtime/exchange/engine.c) sends the first buckets while backward continues; results are bit-identical without.  The
-- order in which an element's summands are added depends only on its grain: neighbouring tensors of together a megabyte
-- or more, always the same ones. A bucket is any number of grains, so bucket_size.lua may choose its size.
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local Bucket = require "atomo.exchange.bucket"
local program = require "atomo.exchange.program"
local C, check = f.C, f.check

local GRAIN, GRAIN_A_RANK = 2 ^ 20, 2 ^ 15 -- least bytes of a grain, and per rank (runtime/comm/ring_allreduce.c)
local BUCKET = 4 * 2 ^ 20 -- default bytes of a bucket

local Dense = Bucket.kind(Bucket)

--- Groups neighbouring tensors to grains of at least `least` bytes; a smaller rest is added to the last grain.
local function grains_of(indices, tensors, least)
  local grains, grain, n = {}, nil, 0
  for _, i in ipairs(indices) do n = n + tensors[i].n end
  for _, i in ipairs(indices) do
    if not grain or 4 * grain.n >= least and 4 * n >= least then
      grain = {n = 0, tensors = {}}
      grains[#grains + 1] = grain
    end
    local size = tensors[i].n
    grain.tensors[#grain.tensors + 1] = {index = i, n = size}
    grain.n, n = grain.n + size, n - size
  end
  return grains
end

--- Lays dense tensors out in one buffer, divided into grains. slices: a tensor's view of the buffer, by its index.
---@param indices integer[]  indices of dense tensors in the plan, in the order in which they become ready
---@param ranks integer
---@return {buffer: table|false, grains: table[], slices: table, bytes: number}
function Dense.layout(indices, tensors, ranks)
  local layout, total = {buffer = false, slices = {}, bytes = 0}, 0
  layout.grains = grains_of(indices, tensors, math.max(GRAIN, GRAIN_A_RANK * ranks))
  for _, grain in ipairs(layout.grains) do
    grain.at, total = total, total + grain.n
  end
  if #layout.grains == 0 then return layout end
  layout.buffer, layout.bytes = T.zeros(total), 4 * total
  for _, grain in ipairs(layout.grains) do
    local at = grain.at
    for _, t in ipairs(grain.tensors) do
      layout.slices[t.index] = layout.buffer:narrow(1, at + 1, t.n):view(tensors[t.index].shape)
      at = at + t.n
    end
  end
  return layout
end

--- Makes the bucket of grains first .. last, number `number` of `count`.
local function bucket_of(plan, first, last, number, count)
  local layout, sizes, tensors, n = plan.dense, f.ffi.new("double[?]", last - first + 1), {}, 0
  for k = first, last do
    local grain = layout.grains[k]
    sizes[k - first], n = grain.n, n + grain.n
    for _, t in ipairs(grain.tensors) do tensors[#tensors + 1] = t end
  end
  local name = ("bucket %d of %d"):format(number, count)
  local buffer = layout.buffer:narrow(1, layout.grains[first].at + 1, n)
  local fields = {tensor = buffer.h, grains = sizes, grain_count = last - first + 1}
  return Bucket.new(Dense, {plan = plan, name = name, tensors = tensors, buffer = buffer,
    h = program.bucket(name, plan.dense_program, fields),
    spread_h = plan.spread_program and program.bucket(name, plan.spread_program, {tensor = buffer.h})})
end

--- Returns the buckets in backward's order, each of at most `bytes` or one grain.
---@param bytes number?  default 4 MiB
function Dense.buckets(plan, bytes)
  local cuts, list, first, n, grains = {}, {}, 1, 0, plan.dense.grains
  for k, grain in ipairs(grains) do
    n = n + 4 * grain.n
    local following = grains[k + 1]
    if not following or n + 4 * following.n > (bytes or BUCKET) then
      cuts[#cuts + 1] = {first, k}
      first, n = k + 1, 0
    end
  end
  for k, cut in ipairs(cuts) do list[k] = bucket_of(plan, cut[1], cut[2], k, #cuts) end
  return list
end

function Dense:add(step, i, grad)
  Bucket.add(self, step, i, grad)
  local index = self.plan.places[i].index
  self.plan.dense.slices[index]:copy_(grad)
end

--- Starts the bucket, which is full.
function Dense:start(step) self:go(step) end

--- Broadcasts the bucket, which has the result of the leaders' exchange, to this node's ranks.
function Dense:spread(step) check(C.atomo_bucket_start(self.spread_h, nil, step.number)) end

function Dense:spread_wait(step) program.wait(self.spread_h, step) end

local target = f.ffi.new "atomo_tensor *[1]"

--- Writes `scale` times a slice of the buffer into a gradient: in one pass over both if the gradient is contiguous.
local function write(gradient, slice, scale)
  if scale ~= 1 and C.atomo_tensor_is_contiguous(gradient.h) ~= 0 then
    target[0] = gradient.h
    check(C.atomo_scalar(C.ATOMO_MUL, slice.h, scale, 0, target))
    return
  end
  if scale ~= 1 then slice:mul_(scale) end
  gradient:copy_(slice)
end

--- Writes the averages into the gradients.
function Dense:write_back(step)
  local plan = self.plan
  for _, t in ipairs(self.tensors) do write(step.tensors[t.index], plan.dense.slices[t.index], plan.scale) end
end

return Dense
