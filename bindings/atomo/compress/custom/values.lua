--- Values as bytes (stage 6): tensors, numbers, texts, booleans and tables of these, for messages of atomo.codec and
-- for states in checkpoints (kept.lua). A letter says the kind. Lengths and dimensions take 7 bits a byte, the highest
-- bit set if more bytes follow; tensors are their elements. The bytes of a value are always the same.
local ffi = require "ffi"
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise

local M = {}

local DEEPEST, MOST_DIMENSIONS = 20, 16
local type_of = {F = "f32", I = "i32", U = "u8", H = "f16", B = "bf16"}
local letter_of = {}
for letter, dtype in pairs(type_of) do letter_of[dtype] = letter end

--- Returns the bytes of a length.
local function length_text(n)
  local out = {}
  while n >= 128 do
    out[#out + 1] = string.char(128 + n % 128)
    n = math.floor(n / 128)
  end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end

local write -- of a table calls itself

local function write_table(parts, v)
  local keys, list = {}, true
  for key in pairs(v) do keys[#keys + 1] = key end
  for _, key in ipairs(keys) do list = list and type(key) == "number" and key % 1 == 0 and key >= 1 and key <= #keys end
  if list then -- its keys are 1, 2, ... (#v may count the gaps of other tables)
    parts[#parts + 1] = "[" .. length_text(#keys)
    for i = 1, #keys do write(parts, v[i]) end
    return
  end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) == "number" end
    return a < b
  end)
  parts[#parts + 1] = "{" .. length_text(#keys)
  for _, key in ipairs(keys) do
    write(parts, key)
    write(parts, v[key])
  end
end

function write(parts, v)
  local kind = type(v)
  if T.is_tensor(v) then
    local dtype, shape = v:dtype(), v:shape()
    parts[#parts + 1] = letter_of[dtype] .. length_text(#shape)
    for _, d in ipairs(shape) do parts[#parts + 1] = length_text(d) end
    parts[#parts + 1] = ffi.string(v:contiguous().h.data, v:element_size() * v:numel())
  elseif kind == "table" then
    write_table(parts, v)
  elseif kind == "number" then
    parts[#parts + 1] = "n" .. ffi.string(ffi.new("double[1]", v), 8)
  elseif kind == "string" then
    parts[#parts + 1] = "s" .. length_text(#v) .. v
  elseif kind == "boolean" then
    parts[#parts + 1] = v and "t" or "f"
  else
    raise(("a %s cannot be sent or saved, expected a tensor, number, text, boolean or a table of these"):format(kind))
  end
end

--- Returns the bytes of a value, a string.
function M.write(v)
  local parts = {}
  write(parts, v)
  return table.concat(parts)
end

local Reader = {}
Reader.__index = Reader

--- Returns the next n bytes.
function Reader:bytes(n)
  if self.at + n - 1 > #self.text then error("its bytes end too early", 0) end
  self.at = self.at + n
  return self.text:sub(self.at - n, self.at - 1)
end

function Reader:length()
  local n, unit = 0, 1
  repeat
    local byte = self:bytes(1):byte()
    n, unit = n + byte % 128 * unit, unit * 128
    if n > 2 ^ 47 then error("its bytes have another form", 0) end
  until byte < 128
  return n
end

function Reader:tensor(dtype)
  local shape, numel, count = {}, 1, self:length()
  if count > MOST_DIMENSIONS then error("its bytes have another form", 0) end
  for d = 1, count do
    shape[d] = self:length()
    numel = numel * shape[d]
  end
  local data = self:bytes(T.element_sizes[dtype] * numel)
  local t = T.empty(shape, dtype)
  ffi.copy(t.h.data, data, #data)
  return t
end

function Reader:value(depth)
  local kind = self:bytes(1)
  if type_of[kind] then return self:tensor(type_of[kind]) end
  if kind == "n" then return ffi.cast("const double *", ffi.cast("const char *", self:bytes(8)))[0] end
  if kind == "s" then return self:bytes(self:length()) end
  if kind == "t" or kind == "f" then return kind == "t" end
  if kind ~= "{" and kind ~= "[" or depth > DEEPEST then error("its bytes have another form", 0) end
  local out = {}
  if kind == "[" then
    for i = 1, self:length() do out[i] = self:value(depth + 1) end
    return out
  end
  for _ = 1, self:length() do
    local key = self:value(depth + 1)
    if key ~= key or type(key) ~= "number" and type(key) ~= "string" then error("its bytes have another form", 0) end
    out[key] = self:value(depth + 1)
  end
  return out
end

--- Returns the value of bytes; or nil and why they are not those of a value.
function M.read(text)
  local reader = setmetatable({text = text, at = 1}, Reader)
  local ok, v = pcall(T.outside_scope, reader.value, reader, 0)
  if not ok then return nil, tostring(v) end
  if reader.at ~= #text + 1 then return nil, "other bytes follow it" end
  return v
end

return M
