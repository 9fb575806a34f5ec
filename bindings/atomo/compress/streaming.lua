--- Compressor methods for the training loop, without allocation: whole steps in one u8 buffer, and the streaming form,
-- one tensor at a time. Call prepare first.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local arguments = require "atomo.compress.arguments"
local schedule = require "atomo.compress.budget_schedule"
local ffi, C, check = f.ffi, f.C, f.check

local u8_pointer = ffi.typeof "uint8_t *"
local const_bytes = ffi.typeof "const uint8_t *"
local M = {}

local FIRST_TENSORS, BLOCKS = 64, 8 -- the least lengths of the arrays below
local numbers, accs_of_c, numbers_room -- {1, 2, ...} and tensors, for a call of C
local blocks, blocks_room
local one_number = ffi.new "int32_t[1]"

--- Makes numbers and accs_of_c long enough for n tensors.
local function reserve_tensors(n)
  if numbers and n <= numbers_room then return end
  numbers_room = math.max(n, FIRST_TENSORS, 2 * (numbers_room or 0))
  numbers = ffi.new("int32_t[?]", numbers_room)
  accs_of_c = ffi.new("atomo_tensor *[?]", numbers_room)
  for i = 1, numbers_room do numbers[i - 1] = i end
end

--- Makes `blocks` long enough for n blocks of messages.
local function reserve_blocks(n)
  if blocks and n <= blocks_room then return end
  blocks_room = math.max(n, BLOCKS, 2 * (blocks_room or 0))
  blocks = ffi.new("atomo_codec_block[?]", blocks_room)
end

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
  reserve_tensors(#accs)
  reserve_blocks(1)
  local block = blocks[0]
  block.at, block.left, block.rank = ffi.cast(const_bytes, bytes.h.data) + offset, nbytes, -1
  for i, acc in ipairs(accs) do accs_of_c[i - 1] = acc.h end
  local status = C.atomo_codec_decode_add_step(self.h, #accs, numbers, step or self.at_step or -1, 1, blocks, scale,
    C.ATOMO_DECODE_ALL, accs_of_c)
  for _, acc in ipairs(accs) do C.atomo_tensor_touch(acc.h) end
  check(status)
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
  step, rank = arguments.step_key(self.name, step, rank)
  schedule.apply(self, step)
  check(C.atomo_codec_begin(self.h, step, rank))
end

--- Writes tensor i's message to out (u8) at offset (0-based); returns its length in bytes.
function M:push(i, g, out, offset)
  T.expect(out, self.name .. ": push: out", "u8")
  T.expect(g, self.name .. ": push: gradient", "f32")
  arguments.offset(self.name, offset, out)
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
  T.expect(acc, self.name .. ": decode_tensor: acc", "f32")
  reserve_tensors(1)
  reserve_blocks(#sources)
  for r, s in ipairs(sources) do
    local block = blocks[r - 1]
    block.at, block.left, block.rank = s.data, s.left, s.rank or -1
  end
  one_number[0], accs_of_c[0] = i, acc.h
  local status = C.atomo_codec_decode_add_step(self.h, 1, one_number, step, #sources, blocks, scale,
    C.ATOMO_DECODE_LAST, accs_of_c)
  C.atomo_tensor_touch(acc.h)
  check(status)
  for r, s in ipairs(sources) do s.data, s.left = blocks[r - 1].at, f.number(blocks[r - 1], "left") end
end

return M
