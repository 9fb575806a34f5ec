--- Under mpirun: do all ranks code and decode alike? A basis or a reconstruct that depends on the rank gives every rank
-- another sum, without a word (stages 4 to 8 of the path). [collective]
local T = require "atomo.tensor"
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

local M = {}

local KEYS = 8

local function checksum(text) return C.atomo_crc32(text, #text) end

--- How many ranks bring another text than rank 0.
local function others(comm, text)
  local sum = checksum(text)
  local all = comm:allgather(T.tensor({math.floor(sum / 65536), sum % 65536, #text % 2 ^ 24}, "f32")):view(-1)
  local p, different = all:data(), 0
  for r = 1, comm.size - 1 do
    if p[3 * r] ~= p[0] or p[3 * r + 1] ~= p[1] or p[3 * r + 2] ~= p[2] then different = different + 1 end
  end
  return different
end

--- Rank 0's text, on every rank.
local function of_first(comm, text)
  local size = comm:bcast(T.tensor({#text}, "i32"), 0):item()
  local bytes = T.zeros({size}, "u8")
  if comm.rank == 0 then ffi.copy(bytes.h.data, text, size) end
  return ffi.string(comm:bcast(bytes, 0).h.data, size)
end

--- The same gradient and key must give every rank the same bytes, and rank 0's bytes decode to the same everywhere.
function M.alike(subject, add)
  local mpi = require "atomo.comm.mpi"
  if not mpi.launched() or mpi.world.size == 1 then return end
  local comm, c = mpi.world, subject.make "as is"
  local coded, decoded = 0, 0
  for step = 1, KEYS do -- a message may be empty
    local bytes = c:encode(subject.g, {step = step, rank = 0}):bytes()
    coded = math.max(coded, others(comm, bytes:sub(1, -5))) -- with its own checksum behind every text has the same one
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
