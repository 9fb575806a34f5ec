--- Methods of a compressor for the training loop: whole steps into and out of one u8 buffer, nothing allocated; and the
-- streaming form, tensor by tensor. Call prepare first.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local arguments = require "atomo.compress.arguments"
local schedule = require "atomo.compress.budget_schedule"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local u8_pointer = ffi.typeof "uint8_t *"
local const_bytes = ffi.typeof "const uint8_t *"
local M = {}

--- For the training loop, after prepare: all gradients back to back into out, under one exact mu. Returns the bytes.
---@param grads atomo.Tensor[]
---@param opts {step: integer, rank: integer, out: atomo.Tensor}
---@return integer nbytes
function M:encode_step(grads, opts)
  local out, n = arguments.step_of(self, grads, opts), #grads
  schedule.apply(self, opts.step)
  for i = 1, n do self.handles[i - 1] = grads[i].h end
  check(C.atomo_codec_encode(self.h, n, self.ids, self.handles, opts.step, opts.rank or 0,
    ffi.cast(u8_pointer, out.h.data), out.h.numel, self.lengths))
  local total = 0
  for i = 0, n - 1 do total = total + self.lengths[i] end
  self.at_step = opts.step
  return total
end

--- Adds scale times a rank's whole step, as encode_step wrote it (bytes offset .. offset + nbytes - 1 of a u8 tensor),
--- to the accumulators. Each message must be for its tensor and for the step (default: the last encode_step's).
function M:decode_step(bytes, offset, nbytes, scale, accs, step)
  arguments.stretch(self.name, bytes, offset, nbytes)
  local data, left = ffi.cast(const_bytes, bytes.h.data) + offset, nbytes
  step = step or self.at_step or -1
  for i = 1, #accs do
    check(C.atomo_codec_decode_add(self.h, i, step, -1, data, left, scale, accs[i].h, self.used))
    data, left = data + self.used[0], left - self.used[0]
    C.atomo_tensor_touch(accs[i].h)
  end
  if left ~= 0 then raise(("%s: decode_step: %d bytes follow the last message"):format(self.name, left)) end
end

--- After all ranks' steps were added, each times scale: makes the averages the updates (majority votes; else nothing).
function M:finish_step(accs, scale)
  for i = 1, #accs do
    check(C.atomo_codec_finish(self.h, i, scale, accs[i].h))
    C.atomo_tensor_touch(accs[i].h)
  end
end

--- Adds scale times every rank's whole step: rank r's counts[r] bytes follow each other in `bytes`, r = 0 .. ranks - 1.
function M:decode_all(bytes, counts, ranks, scale, accs)
  local offset = 0
  for r = 0, ranks - 1 do
    self:decode_step(bytes, offset, counts[r], scale, accs)
    offset = offset + counts[r]
  end
  self:finish_step(accs, scale)
end

--- The streaming form: begin_step, push each gradient when it is ready, end_step. The mu is the one that the last
--- step's coefficients call for, steered to keep the bytes on budget.
function M:begin_step(step, rank)
  schedule.apply(self, step)
  check(C.atomo_codec_begin(self.h, step, rank or 0))
end

--- Writes tensor i's message into out (u8) at offset; returns its length.
function M:push(i, g, out, offset)
  T.expect(out, self.name .. ": push: out", "u8")
  if not (offset >= 0 and offset <= out.h.numel) then
    raise(("%s: push: offset is %g, out has %g bytes"):format(self.name, offset, out.h.numel))
  end
  check(C.atomo_codec_push(self.h, i, g.h, ffi.cast(u8_pointer, out.h.data) + offset, out.h.numel - offset, self.used))
  return f.number(self.used)
end

function M:end_step() check(C.atomo_codec_end(self.h)) end

--- In place of end_step: the step is given up, and leaves no trace.
function M:undo_step() check(C.atomo_codec_undo(self.h)) end

--- acc += scale times the messages for tensor i that come next in each of the sources {data=pointer, left=bytes,
--- rank=whose (nil: anyone's)}, as push wrote them in that step; then makes it the update. The sources move on behind
--- them.
function M:decode_tensor(i, step, sources, scale, acc)
  if #sources > 1 then check(C.atomo_codec_sum(self.h, i)) end
  for _, s in ipairs(sources) do
    check(C.atomo_codec_decode_add(self.h, i, step, s.rank or -1, s.data, s.left, scale, acc.h, self.used))
    s.data, s.left = s.data + self.used[0], s.left - self.used[0]
  end
  self:finish(acc, scale, i)
end

return M
