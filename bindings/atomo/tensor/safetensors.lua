--- The safetensors format: named tensors and text metadata in one file that other programs read.
-- Layout: length of the header (u64), the header (JSON, padded with spaces so that data starts at a multiple of 64),
-- the tensors' bytes without gaps. Files are written completely or not at all. A file that breaks the format's rules
-- raises; a valid tensor that fits no dtype here is reported.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local json = require "atomo.core.json"
local header_of = require "atomo.tensor.safetensors_header"
local little_endian = require "atomo.core.little_endian"
local named = require "atomo.tensor.named_tensors"
local O = require "atomo.tensor.check_options"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}
local ELIMIT = -9 -- status code of atomo.h: a value does not fit

local names = {f32 = "F32", i32 = "I32", u8 = "U8", f16 = "F16", bf16 = "BF16"}
local halves = {F16 = "f16", BF16 = "bf16"}

-- ---- writing -----------------------------------------------------------------------------------------------------

local function check_text(v, what)
  if type(v) ~= "string" then raise(("safetensors: %s is a %s, expected a string"):format(what, type(v))) end
  if not json.is_utf8(v) then raise(("safetensors: %s is no UTF-8: %q"):format(what, v)) end
end

--- Returns the tensors' names in the order of the file: larger elements before smaller ones, so that all are aligned,
--- then by name.
local function write_order(tensors)
  local order = {}
  for name, t in pairs(tensors) do
    check_text(name, "the name of a tensor")
    T.expect(t, ("safetensors: '%s'"):format(name))
    if name == "__metadata__" then raise "safetensors: a tensor cannot be called __metadata__" end
    order[#order + 1] = name
  end
  table.sort(order, function(a, b)
    local size_a, size_b = tensors[a]:element_size(), tensors[b]:element_size()
    if size_a ~= size_b then return size_a > size_b end
    return a < b
  end)
  return order
end

--- Writes named tensors. metadata: text by key.
---@param path string
---@param tensors table<string, atomo.Tensor>
---@param metadata table<string, string>?
function M.save(path, tensors, metadata)
  if type(path) ~= "string" or path == "" then raise "safetensors: path is missing" end
  local order = write_order(tensors)
  local header, list, hold, at = {}, ffi.new("const atomo_tensor *[?]", math.max(#order, 1)), {}, 0
  for i, name in ipairs(order) do
    local t = tensors[name]
    hold[i] = t:is_contiguous() and t or t:detach():contiguous()
    list[i - 1] = hold[i].h
    local bytes = t:numel() * t:element_size()
    header[name] = {dtype = names[t:dtype()], shape = json.array(t:shape()), data_offsets = {at, at + bytes}}
    at = at + bytes
  end
  for key, value in pairs(metadata or {}) do
    check_text(key, "a key of the metadata")
    check_text(value, ("metadata '%s'"):format(key))
    header.__metadata__ = metadata
  end
  local text = json.encode(header)
  text = text .. (" "):rep(-(#text + 8) % 64)
  if #text > header_of.most then
    raise(("safetensors: %s: a header of %d bytes, at most %d"):format(path, #text, header_of.most))
  end
  check(C.atomo_raw_write(path, little_endian.encode(8, #text) .. text, #text + 8, list, #order))
end

-- ---- reading -----------------------------------------------------------------------------------------------------

--- Returns the tensor of an entry, or nil and the reason why it cannot be one.
local function read_tensor(path, start, e, keep_dtype)
  if e.why then return nil, e.why end
  local raw, made, dims = T.out(), T.out(), ffi.new "double[8]"
  check(C.atomo_raw_read(path, start + e.from, e.to - e.from, raw))
  local bytes = T.wrap(raw[0])
  if keep_dtype and halves[e.dtype] then
    local t = T.empty(e.shape, halves[e.dtype])
    check(C.atomo_fill_bytes(t.h, bytes.h.data, bytes.h.numel))
    bytes:free()
    return t
  end
  for i, d in ipairs(e.shape) do dims[i - 1] = d end
  local status = C.atomo_raw_convert(e.kind, bytes.h, #e.shape, dims, made)
  bytes:free()
  if status == ELIMIT then
    return nil, ("of dtype %s: %s"):format(e.dtype, (ffi.string(C.atomo_last_error()):gsub("^raw_convert: ", "")))
  end
  check(status)
  return T.wrap(made[0])
end

--- Reads the tensors of a file by name, and its metadata. Floats of other widths become f32, other integers i32,
--- booleans u8; with keep_dtype = true, F16 and BF16 stay f16 and bf16. A tensor whose values do not fit (an I64 beyond
--- i32) or that is complex is left out: `unread` has the reason, and indexing `tensors` with its name raises it. Raises
--- if opts.only names such a tensor, or if no tensor can be read.
---@param path string
---@param opts {only: string[]|string, keep_dtype: boolean?}?   only: only these tensors are read
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> metadata
---@return table<string, string> unread  name -> reason
function M.load(path, opts)
  if type(path) ~= "string" then raise(("safetensors: path is a %s, expected a string"):format(type(path))) end
  local entries, metadata, start = header_of.read(path)
  local tensors, unread = named.read("safetensors", path, entries, opts, function(e)
    return read_tensor(path, start, e, type(opts) == "table" and opts.keep_dtype)
  end, {keep_dtype = O.flag})
  return tensors, metadata, unread
end

return M
