--- The safetensors format: named tensors and text metadata in one file that other programs read.
-- Layout: u64 length of the header, the header (JSON, padded with spaces so that data starts at a multiple of 64), the
-- tensors' bytes without gaps. Files are written whole or not at all; what breaks the format's rules is refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local json = require "atomo.json"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

local names = {f32 = "F32", i32 = "I32", u8 = "U8"}
local kinds = {F32 = {C.ATOMO_F32, 4}, I32 = {C.ATOMO_I32, 4}, U8 = {C.ATOMO_U8, 1}, F16 = {C.ATOMO_RAW_F16, 2},
  BF16 = {C.ATOMO_RAW_BF16, 2}, F64 = {C.ATOMO_RAW_F64, 8}, I64 = {C.ATOMO_RAW_I64, 8}}
local MAX_HEADER = 100000000

local function u64(n)
  local bytes = {}
  for i = 1, 8 do
    bytes[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

--- Writes tensors by name; metadata is a table of strings.
---@param path string
---@param tensors table<string, atomo.Tensor>
---@param metadata table<string, string>?
function M.save(path, tensors, metadata)
  if type(path) ~= "string" or path == "" then raise "safetensors: path is missing" end
  local order = {}
  for name, t in pairs(tensors) do
    T.expect(t, ("safetensors: '%s'"):format(tostring(name)))
    if name == "__metadata__" then raise "safetensors: a tensor cannot be called __metadata__" end
    order[#order + 1] = name
  end
  table.sort(order)
  local header, list, hold, at = {}, ffi.new("const atomo_tensor *[?]", math.max(#order, 1)), {}, 0
  for i, name in ipairs(order) do
    local t = tensors[name]
    hold[i] = t:is_contiguous() and t or t:detach():contiguous()
    list[i - 1] = hold[i].h
    local bytes = t:numel() * (t:dtype() == "u8" and 1 or 4)
    header[name] = {dtype = names[t:dtype()], shape = json.array(t:shape()), data_offsets = {at, at + bytes}}
    at = at + bytes
  end
  for key, value in pairs(metadata or {}) do
    if type(value) ~= "string" then
      raise(("safetensors: metadata '%s' is a %s, expected a string"):format(key, type(value)))
    end
    header.__metadata__ = metadata
  end
  local text = json.encode(header)
  text = text .. (" "):rep(-(#text + 8) % 64)
  check(C.atomo_raw_write(path, u64(#text) .. text, #text + 8, list, #order))
end

local function refuse(path, text, ...) raise(("safetensors: %s: " .. text):format(path, ...)) end

--- The header's text and where the data begins.
local function read_header(path)
  local file, why = io.open(path, "rb")
  if not file then raise("safetensors: " .. why) end
  local size = file:seek "end"
  file:seek("set", 0)
  local head = file:read(8)
  if not head or #head < 8 then
    file:close()
    refuse(path, "the file has %d bytes, the header's length takes 8", size)
  end
  local n = 0
  for i = 8, 1, -1 do n = n * 256 + head:byte(i) end
  if n > MAX_HEADER or 8 + n > size then
    file:close()
    refuse(path, "a header of %.0f bytes at offset 8, the file has %d", n, size)
  end
  local text = file:read(n) or ""
  file:close()
  if #text < n then refuse(path, "the header ends after %d of %d bytes", #text, n) end
  return text, 8 + n, size
end

local function whole(v) return type(v) == "number" and v >= 0 and v % 1 == 0 and v <= 2 ^ 53 end

--- Checks one tensor's entry; returns its kind, begin and end.
local function read_entry(path, name, entry)
  local kind = type(entry) == "table" and kinds[entry.dtype]
  if not kind then
    refuse(path, "'%s' has dtype %s, expected F32, F16, BF16, F64, I32, I64 or U8", name,
      tostring(type(entry) == "table" and entry.dtype))
  end
  local offsets, shape, n = entry.data_offsets, entry.shape, 1
  if type(shape) ~= "table" or type(offsets) ~= "table" or #shape > 8 then
    refuse(path, "'%s' lacks a shape of at most 8 dimensions or data_offsets", name)
  end
  for _, d in ipairs(shape) do
    if not whole(d) then refuse(path, "'%s' has the size %s", name, tostring(d)) end
    n = n * d
  end
  local from, to = offsets[1], offsets[2]
  if #offsets ~= 2 or not whole(from) or not whole(to) or to - from ~= n * kind[2] then
    refuse(path, "'%s' %s of %s needs %.0f bytes, data_offsets are [%s, %s]", name, T.shape_text(shape), entry.dtype,
      n * kind[2], tostring(from), tostring(to))
  end
  return {name = name, kind = kind[1], shape = shape, from = from, to = to}
end

--- Every tensor of a file by its name, and the metadata. f16, bf16 and f64 become f32, i64 becomes i32.
---@param path string
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> metadata
function M.load(path)
  local text, start, size = read_header(path)
  local ok, header = pcall(json.decode, (text:gsub(" +$", "")))
  if not ok or type(header) ~= "table" or text:byte(1) ~= 123 then
    refuse(path, "the header is no JSON object: %s", tostring(header))
  end
  local metadata, entries = header.__metadata__ or {}, {}
  header.__metadata__ = nil
  for name, entry in pairs(header) do entries[#entries + 1] = read_entry(path, name, entry) end
  table.sort(entries, function(a, b) return a.from < b.from or (a.from == b.from and a.to < b.to) end)
  local at = 0
  for _, e in ipairs(entries) do
    if e.from ~= at then refuse(path, "'%s' begins at %.0f, the tensor before it ends at %.0f", e.name, e.from, at) end
    at = e.to
  end
  if start + at ~= size then refuse(path, "the tensors end at %.0f, the file at %d", start + at, size) end
  return T.outside_scope(function()
    local tensors, dims = {}, ffi.new "double[8]"
    for _, e in ipairs(entries) do
      local raw, made = T.out(), T.out()
      check(C.atomo_raw_read(path, start + e.from, e.to - e.from, raw))
      local bytes = T.wrap(raw[0])
      for i, d in ipairs(e.shape) do dims[i - 1] = d end
      check(C.atomo_raw_convert(e.kind, bytes.h, #e.shape, dims, made))
      bytes:free()
      tensors[e.name] = T.wrap(made[0])
    end
    return tensors, metadata
  end)
end

return M
