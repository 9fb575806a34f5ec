--- Checks under mpirun that all ranks encode and decode alike (stages 4 to 8). With a basis or a function reconstruct
-- that depends on the rank, ranks would silently get different sums. [collective]
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

local M = {}

local KEYS = 8

local function checksum(text) return C.atomo_crc32(text, #text) end

--- Returns the number of ranks whose text differs from rank 0's. [collective]
local function others(comm, text)
  local sum = checksum(text)
  local all = comm:allgather(T.tensor({math.floor(sum / 65536), sum % 65536, #text % 2 ^ 24}, "f32")):view(-1)
  local p, different = all:data(), 0
  for r = 1, comm.size - 1 do
    if p[3 * r] ~= p[0] or p[3 * r + 1] ~= p[1] or p[3 * r + 2] ~= p[2] then different = different + 1 end
  end
  return different
end

--- Returns rank 0's text on every rank. [collective]
local function of_first(comm, text)
  local size = comm:bcast(T.tensor({#text}, "i32"), 0):item()
  local bytes = T.zeros({size}, "u8")
  if comm.rank == 0 then ffi.copy(bytes.h.data, text, size) end
  return ffi.string(comm:bcast(bytes, 0).h.data, size)
end

--- Checks that the same gradient and key give the same bytes on every rank, and that rank 0's bytes decode to the same
--- gradient on every rank. [collective]
function M.alike(subject, add)
  local mpi = require "atomo.comm.mpi"
  if not mpi.launched() or mpi.world.size == 1 then return end
  local comm, c = mpi.world, subject.make "as is"
  local coded, decoded = 0, 0
  for step = 1, KEYS do -- a message may be empty
    local bytes = c:encode(subject.g, {step = step, rank = 0}):bytes()
    coded = math.max(coded, others(comm, bytes:sub(1, -5))) -- without its CRC, as text + CRC have a fixed CRC
    local ok, ghat = pcall(c.decode, c, of_first(comm, bytes))
    local text = ok and ffi.string(ghat:contiguous().h.data, 4 * ghat:numel()) or "refused"
    decoded = math.max(decoded, others(comm, text))
  end
  add {check = "same message on every rank", figure = coded, bound = 0, pass = coded == 0,
    note = ("ranks of %d whose bytes are not rank 0's"):format(comm.size)}
  add {check = "same gradient from it", figure = decoded, bound = 0, pass = decoded == 0,
    note = ("ranks of %d that decode rank 0's message otherwise"):format(comm.size)}
end

return M
