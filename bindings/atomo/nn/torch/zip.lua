--- Zip archives as PyTorch writes them: entries stored without compression. Read from the central directory; written
-- with every entry's bytes at a multiple of 64.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local little_endian = require "atomo.core.little_endian"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local encode, decode = little_endian.encode, little_endian.decode

local M = {}

local UNKNOWN = 0xFFFFFFFF -- stands for a number that is in the zip64 record

function M.refuse(path, text, ...) raise(("torch: %s: " .. text):format(path, ...)) end
local refuse = M.refuse

-- ---- reading -----------------------------------------------------------------------------------------------------

local function read_at(file, path, at, n)
  if at < 0 or n < 0 or not file:seek("set", at) then refuse(path, "a record of the archive lies outside the file") end
  local text = n == 0 and "" or file:read(n)
  if not text or #text < n then refuse(path, "the file ends within a record of the archive: it was cut off") end
  return text
end

--- Returns the position after the last `mark` in text; nil if it has none.
local function last(text, mark)
  for at = #text - #mark + 1, 1, -1 do
    if text:sub(at, at + #mark - 1) == mark then return at end
  end
end

--- Returns offset, bytes and number of entries of the central directory.
local function find_directory(file, path, size)
  local from = math.max(0, size - 65557)
  local tail = read_at(file, path, from, size - from)
  local at = last(tail, "PK\5\6")
  if not at or #tail - at + 1 < 22 then refuse(path, "the archive has no directory: it was cut off") end
  local count, bytes, offset = decode(tail, at + 10, 2), decode(tail, at + 12, 4), decode(tail, at + 16, 4)
  if offset == UNKNOWN or bytes == UNKNOWN or count == 0xFFFF then
    local locator = at > 20 and tail:sub(at - 20, at - 17) == "PK\6\7" and decode(tail, at - 12, 8)
    local record = locator and read_at(file, path, locator, 56)
    if not record or record:sub(1, 4) ~= "PK\6\6" then refuse(path, "its zip64 directory is damaged") end
    count, bytes, offset = decode(record, 33, 8), decode(record, 41, 8), decode(record, 49, 8)
  end
  return offset, bytes, count
end

--- Returns size and offset of an entry, from its zip64 field if the directory does not hold them.
local function zip64_of(extra, size, packed, offset)
  local at = 1
  while at + 3 <= #extra do
    local id, n = decode(extra, at, 2), decode(extra, at + 2, 2)
    if id == 1 then
      local from = at + 4
      if size == UNKNOWN then size, from = decode(extra, from, 8), from + 8 end
      if packed == UNKNOWN then from = from + 8 end
      if offset == UNKNOWN then offset = decode(extra, from, 8) end
    end
    at = at + 4 + n
  end
  return size, offset
end

--- Returns the entries of an archive by name, {offset= of the data, size= in bytes, crc=}.
---@param path string
---@return table<string, {offset: number, size: number, crc: number}>
function M.entries(path)
  local file, why = io.open(path, "rb")
  if not file then raise("torch: " .. why) end
  local ok, result = pcall(function()
    local size = file:seek "end"
    local from, bytes, count = find_directory(file, path, size)
    local directory, at, list = read_at(file, path, from, bytes), 1, {}
    for _ = 1, count do
      if directory:sub(at, at + 3) ~= "PK\1\2" then refuse(path, "the directory of the archive is damaged") end
      local method, crc = decode(directory, at + 10, 2), decode(directory, at + 16, 4)
      local n, e, c = decode(directory, at + 28, 2), decode(directory, at + 30, 2), decode(directory, at + 32, 2)
      local name = directory:sub(at + 46, at + 45 + n)
      local stored, offset = zip64_of(directory:sub(at + 46 + n, at + 45 + n + e), decode(directory, at + 24, 4),
        decode(directory, at + 20, 4), decode(directory, at + 42, 4))
      if method ~= 0 then refuse(path, "'%s' is compressed, which PyTorch never does", name) end
      local head = read_at(file, path, offset, 30)
      if head:sub(1, 4) ~= "PK\3\4" then refuse(path, "'%s' has a damaged header", name) end
      local data = offset + 30 + decode(head, 27, 2) + decode(head, 29, 2)
      if data + stored > size then refuse(path, "'%s' ends beyond the file: it was cut off", name) end
      list[name] = {offset = data, size = stored, crc = crc}
      at = at + 46 + n + e + c
    end
    return list
  end)
  file:close()
  if not ok then error(result, 0) end
  return result
end

--- Returns the bytes of an entry as u8 [n]; raises if its checksum is wrong.
---@param path string
---@param name string
---@param entry {offset: number, size: number, crc: number}
---@return atomo.Tensor
function M.read(path, name, entry)
  local raw, crc = T.out(), ffi.new "double[1]"
  check(C.atomo_raw_read(path, entry.offset, entry.size, raw))
  local bytes = T.wrap(raw[0])
  check(C.atomo_tensor_crc(bytes.h, crc))
  if f.number(crc) ~= entry.crc then
    refuse(path, "'%s' is damaged: its checksum is %08x, the archive says %08x", name, f.number(crc), entry.crc)
  end
  return bytes
end

-- ---- writing -----------------------------------------------------------------------------------------------------

--- Returns text as u8 [n].
local function tensor_of(text)
  local t = T.empty({#text}, "u8")
  ffi.copy(t:data(), text, #text)
  return t
end

local function crc_of(t)
  local crc = ffi.new "double[1]"
  check(C.atomo_tensor_crc(t.h, crc))
  return f.number(crc)
end

--- Writes an archive. contents: text, or a contiguous tensor.
---@param path string
---@param entries {name: string, contents: string|atomo.Tensor}[]
function M.write(path, entries)
  local list, directory, at, hold = {}, {}, 0, {}
  local function add(t)
    hold[#hold + 1] = t
    list[#list + 1] = t.h
  end
  for _, e in ipairs(entries) do
    local t = type(e.contents) == "string" and tensor_of(e.contents) or e.contents
    local size = t:numel() * t:element_size()
    local fields = encode(2, 0) .. encode(2, 0) .. encode(2, 0) .. encode(2, 33) .. encode(4, crc_of(t)) ..
      encode(4, size) .. encode(4, size) .. encode(2, #e.name) -- flags, method, time, date (1 January 1980), crc, sizes
    local pad = -(at + 30 + #e.name + 4) % 64
    local extra = "FB" .. encode(2, pad) .. ("Z"):rep(pad) -- as PyTorch's: padding that a reader skips
    add(tensor_of("PK\3\4" .. encode(2, 20) .. fields .. encode(2, #extra) .. e.name .. extra))
    if size > 0 then add(t) end
    directory[#directory + 1] = "PK\1\2" .. encode(2, 20) .. encode(2, 20) .. fields .. encode(2, 0) .. encode(2, 0) ..
      encode(2, 0) .. encode(2, 0) .. encode(4, 0) .. encode(4, at) .. e.name
    at = at + 30 + #e.name + #extra + size
    if at >= UNKNOWN then raise(("torch: %s: more than 4 GB, which is not written"):format(path)) end
  end
  local text = table.concat(directory)
  add(tensor_of(text .. "PK\5\6" .. encode(4, 0) .. encode(2, #entries) .. encode(2, #entries) .. encode(4, #text) ..
    encode(4, at) .. encode(2, 0)))
  check(C.atomo_raw_write(path, "", 0, ffi.new("const atomo_tensor *[?]", #list, list), #list))
end

return M
