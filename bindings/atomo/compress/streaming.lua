--- Compressor methods for the training loop, without allocation: whole steps in one u8 buffer, and the streaming form,
-- one tensor at a time. Call prepare first.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local arguments = require "atomo.compress.arguments"
local schedule = require "atomo.compress.budget_schedule"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local u8_pointer = ffi.typeof "uint8_t *"
local const_bytes = ffi.typeof "const uint8_t *"
local M = {}

--- Encodes all gradients of a step, their messages one behind the other in out; returns their length in bytes. The
--- price mu is exact for these gradients.
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

--- Decodes one rank's step, written by encode_step in elements offset .. offset + nbytes - 1 (0-based) of a u8 tensor,
--- and adds scale times gradient i to accs[i]. Raises unless the messages are for tensors 1, 2, ... and for `step`
--- (default: the step of the last encode_step).
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

--- Begins a streamed step: begin_step, push each gradient when it is ready, end_step. The price mu comes from the last
--- step's coefficients and is corrected so that the bytes stay on budget.
function M:begin_step(step, rank)
  schedule.apply(self, step)
  check(C.atomo_codec_begin(self.h, step, rank or 0))
end

--- Writes tensor i's message to out (u8) at offset (0-based); returns its length in bytes.
function M:push(i, g, out, offset)
  T.expect(out, self.name .. ": push: out", "u8")
  if not (offset >= 0 and offset <= out.h.numel) then
    raise(("%s: push: offset is %g, out has %g bytes"):format(self.name, offset, out.h.numel))
  end
  check(C.atomo_codec_push(self.h, i, g.h, ffi.cast(u8_pointer, out.h.data) + offset, out.h.numel - offset, self.used))
  return f.number(self.used)
end

function M:end_step() check(C.atomo_codec_end(self.h)) end

--- Call it in place of end_step to give up the step: the compressor's state is as before begin_step.
function M:undo_step() check(C.atomo_codec_undo(self.h)) end

--- Adds scale times the next message of each source to acc and calls finish; all must be for tensor i and this step, as
--- push wrote them. sources: {data=pointer, left=bytes, rank=sender (nil: any)}; data and left are advanced past the
--- message.
function M:decode_tensor(i, step, sources, scale, acc)
  if #sources > 1 then check(C.atomo_codec_sum(self.h, i)) end
  for _, s in ipairs(sources) do
    check(C.atomo_codec_decode_add(self.h, i, step, s.rank or -1, s.data, s.left, scale, acc.h, self.used))
    s.data, s.left = s.data + self.used[0], s.left - self.used[0]
  end
  self:finish(acc, scale, i)
end

return M
