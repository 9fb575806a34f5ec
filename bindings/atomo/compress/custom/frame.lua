--- The frame around a free compressor's result (stage 6). A message:
--   0  4  bytes, with this header      4  4  tensor      8  4  step      12  4  rank (3 bytes), form (1)
--  16  2  hash of compressor, options and shape          18 2  not used, 0     20  4  CRC-32 of all but itself
--  24     with error feedback: the factor, f32; then the body: form 0 the values (values.lua), form 1 the entries in
--         f32 that decode makes of them
local f = require "atomo.ffi"
local ffi, C, raise = f.ffi, f.C, f.raise

local M = {HEADER = 24}

local HEADER = M.HEADER
ffi.cdef [[
struct atomo_free_header { uint32_t bytes, tensor, step, rank_form; uint16_t hash, unused; uint32_t crc; };
]]
local header_of = ffi.typeof "struct atomo_free_header"
local header_at = ffi.typeof "const struct atomo_free_header *"
local f32_at = ffi.typeof "const float *"

--- Returns a message's bytes. h: {tensor=, step=, rank=, form=, hash=}; payload: what follows the header.
---@return string
function M.write(h, payload)
  local out = header_of()
  out.bytes, out.tensor, out.step, out.hash = HEADER + #payload, h.tensor, h.step, h.hash
  out.rank_form = h.rank + h.form * 2 ^ 24
  local front = ffi.string(out, HEADER - 4)
  local sum = front .. payload
  out.crc = C.atomo_crc32(sum, #sum)
  return ffi.string(out, HEADER) .. payload
end

--- Reads the message that begins at data; raises unless it is whole, undamaged, and of this compressor. Returns
--- {bytes=, tensor=, form=, factor=, body=}.
---@param self atomo.FreeCompressor
---@param what string  the method, for errors
---@param left integer  bytes at data
---@param i integer?  the tensor; nil: any
---@param step integer  -1: any
---@param rank integer?  the sender; nil: any
function M.read(self, what, data, left, i, step, rank)
  local function refuse(why) raise(("%s: %s: %s"):format(self.name, what, why)) end
  if left < HEADER then refuse(("a message of %d bytes, its header alone has %d"):format(left, HEADER)) end
  local h = ffi.cast(header_at, data)
  local bytes, front = h.bytes, HEADER + (self.ef and 4 or 0)
  if bytes < front or bytes > left then refuse(("the message has %d bytes, %d came"):format(bytes, left)) end
  local sum = ffi.string(data, HEADER - 4) .. ffi.string(data + HEADER, bytes - HEADER)
  if C.atomo_crc32(sum, #sum) ~= h.crc then refuse "the message is damaged: its checksum is wrong" end
  local tensor, form = h.tensor, math.floor(h.rank_form / 2 ^ 24)
  if not self.shapes[tensor] then refuse(("the message is for tensor %d, which is not planned"):format(tensor)) end
  if i and tensor ~= i then refuse(("the message is for tensor %d, expected tensor %d"):format(tensor, i)) end
  if h.hash ~= self.hash[tensor] then refuse "the message is of another compressor (codec), option or shape" end
  if step >= 0 and h.step ~= step then refuse(("the message is of step %d, expected %d"):format(h.step, step)) end
  if rank and h.rank_form % 2 ^ 24 ~= rank then
    refuse(("the message is of rank %d, expected %d"):format(h.rank_form % 2 ^ 24, rank))
  end
  local factor = self.ef and ffi.cast(f32_at, data + HEADER)[0] or 1
  if factor - factor ~= 0 or form > 1 then refuse "the message has an unknown form" end
  return {bytes = bytes, tensor = tensor, form = form, factor = factor, body = ffi.string(data + front, bytes - front)}
end

return M
