--- Reads and checks the header of a safetensors file (format: huggingface/safetensors).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local json = require "atomo.core.json"
local little_endian = require "atomo.core.little_endian"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise

local M = {most = 100000000} -- the longest header that the format allows, in bytes

-- dtype -> bits per element, element type in C (nil: the dtype is valid but not supported)
local kinds = {
  F32 = {32, C.ATOMO_F32}, I32 = {32, C.ATOMO_I32}, U8 = {8, C.ATOMO_U8}, F16 = {16, C.ATOMO_RAW_F16},
  BF16 = {16, C.ATOMO_RAW_BF16}, F64 = {64, C.ATOMO_RAW_F64}, I64 = {64, C.ATOMO_RAW_I64},
  BOOL = {8, C.ATOMO_RAW_BOOL}, I8 = {8, C.ATOMO_RAW_I8}, I16 = {16, C.ATOMO_RAW_I16}, U16 = {16, C.ATOMO_RAW_U16},
  U32 = {32, C.ATOMO_RAW_U32}, U64 = {64, C.ATOMO_RAW_U64}, F8_E4M3 = {8, C.ATOMO_RAW_F8_E4M3},
  F8_E5M2 = {8, C.ATOMO_RAW_F8_E5M2}, F8_E4M3FNUZ = {8, C.ATOMO_RAW_F8_E4M3FNUZ},
  F8_E5M2FNUZ = {8, C.ATOMO_RAW_F8_E5M2FNUZ}, F8_E8M0 = {8, C.ATOMO_RAW_F8_E8M0},
  C64 = {64}, F4 = {4}, F6_E2M3 = {6}, F6_E3M2 = {6},
}

function M.refuse(path, text, ...) raise(("safetensors: %s: " .. text):format(path, ...)) end
local refuse = M.refuse

--- Returns what a file is that begins with these bytes and is no safetensors file, for errors; nil if it is not
--- known.
local function kind_of(head)
  if head:sub(1, 2) == "PK" then return "a zip archive (.npz, or a file of PyTorch)" end
  if head:sub(1, 6) == "\147NUMPY" then return "an array of NumPy (.npy)" end
  if head:sub(1, 2) == "\31\139" then return "compressed by gzip" end
  if head ~= "" and not head:find "[^%g%s]" then return "a text file" end
end

--- Returns the header's text, the offset of the data and the file's size, in bytes.
local function read_text(path)
  local file, why = io.open(path, "rb")
  if not file then raise("safetensors: " .. why) end
  local size = file:seek "end"
  file:seek("set", 0)
  local head, problem = file:read(8)
  if not head or #head < 8 then
    file:close()
    refuse(path, "%s", problem or ("the file has %d bytes, the header's length takes 8"):format(size))
  end
  local n = little_endian.decode(head, 1, 8)
  if n > M.most or 8 + n > size then
    file:close()
    local kind = kind_of(head)
    if kind then refuse(path, "it is %s, expected a safetensors file", kind) end
    refuse(path, "a header of %.0f bytes at offset 8, the file has %d, a header at most %d", n, size, M.most)
  end
  local text = file:read(n) or ""
  file:close()
  if #text < n then refuse(path, "the header ends after %d of %d bytes", #text, n) end
  return text, 8 + n, size
end

--- Returns entry[key]; raises unless it is an array of whole numbers >= 0. what: description for the error text.
local function counts(path, name, entry, key, what)
  local v = entry[key]
  if type(v) ~= "table" or not json.is_array(v) then refuse(path, "'%s' has no %s: %s", name, key, what) end
  for _, n in ipairs(v) do
    if not number.whole(n, 0) then refuse(path, "'%s' has the size %s in its %s", name, brief(n), key) end
  end
  return v
end

--- Checks one tensor's entry. An entry that is valid but cannot be read gets the field `why`, the reason.
local function read_entry(path, name, entry)
  if type(entry) ~= "table" or entry == json.null or json.is_array(entry) then
    refuse(path, "'%s' is %s, expected an object", name,
      entry == json.null and "null" or type(entry) == "table" and "an array" or "a " .. type(entry))
  end
  local kind = kinds[entry.dtype]
  if not kind then refuse(path, "'%s' has dtype %s, which the format does not know", name, brief(entry.dtype)) end
  local shape = counts(path, name, entry, "shape", "a list of whole numbers")
  local offsets = counts(path, name, entry, "data_offsets", "[begin, end]")
  if #offsets ~= 2 then refuse(path, "'%s' has %d data_offsets, expected [begin, end]", name, #offsets) end
  local bits = kind[1]
  for _, d in ipairs(shape) do
    bits = bits * d
    if bits > 2 ^ 56 then refuse(path, "'%s' has the shape %s, which is too large", name, T.shape_text(shape)) end
  end
  local from, to = offsets[1], offsets[2]
  if (to - from) * 8 ~= bits then
    refuse(path, "'%s' %s of %s needs %.17g bytes, data_offsets are [%.0f, %.0f]", name, T.shape_text(shape),
      entry.dtype, bits / 8, from, to)
  end
  local why
  if not kind[2] then
    why = ("has dtype %s, which is not read"):format(entry.dtype)
  elseif #shape > C.ATOMO_MAX_DIM then
    why = ("has %d dimensions, at most %d"):format(#shape, C.ATOMO_MAX_DIM)
  end
  return {name = name, dtype = entry.dtype, kind = kind[2], shape = shape, from = from, to = to, why = why}
end

local function read_metadata(path, metadata)
  if metadata == nil then return {} end
  if type(metadata) ~= "table" or metadata == json.null or json.is_array(metadata) then
    refuse(path, "__metadata__ is no object of strings")
  end
  for key, value in pairs(metadata) do
    if type(value) ~= "string" then
      refuse(path, "metadata '%s' is %s, expected a string", key, value == json.null and "null" or "a " .. type(value))
    end
  end
  return metadata
end

local function by_offset(a, b)
  if a.from ~= b.from then return a.from < b.from end
  if a.to ~= b.to then return a.to < b.to end
  return a.name < b.name
end

--- Returns the entries {name=, dtype=, kind=, shape=, from=, to=, why=} in the order of their data, the metadata, and
--- the offset of the data. Raises unless the tensors fill the file from there to its end without gaps.
function M.read(path)
  local text, start, size = read_text(path)
  if text:byte(1) ~= 123 then refuse(path, "the header is no JSON object: it begins with '%s'", text:sub(1, 10)) end
  local ok, header = pcall(json.decode, text, {nulls = true, integers = true})
  if not ok then refuse(path, "the header is no JSON object: %s", brief(header)) end
  local metadata, entries, at = read_metadata(path, header.__metadata__), {}, 0
  header.__metadata__ = nil
  for name, entry in pairs(header) do entries[#entries + 1] = read_entry(path, name, entry) end
  table.sort(entries, by_offset)
  for _, e in ipairs(entries) do
    if e.from ~= at then refuse(path, "'%s' begins at %.0f, the tensor before it ends at %.0f", e.name, e.from, at) end
    at = e.to
  end
  if start + at ~= size then refuse(path, "the tensors end at %.0f, the file at %d", start + at, size) end
  return entries, metadata, start
end

return M
