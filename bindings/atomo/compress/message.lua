--- Messages (stage 6): results of encode, arguments of decode. A message owns its bytes.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local strict_fields = require "atomo.core.fields"
local ffi, raise = f.ffi, f.raise

local const_bytes = ffi.typeof "const uint8_t *"
local M = {}

---@class atomo.Message
---@field nbytes integer  length
---@field tensor integer  number of the tensor
local Message = strict_fields({}, "message", "nbytes tensor")
Message.__index = Message
Message.__tostring = function(self) return ("message of %d bytes for tensor %d"):format(self.nbytes, self.tensor) end

--- Returns the bytes that are sent, as a Lua string.
function Message:bytes() return ffi.string(self.data, self.nbytes) end

--- Makes a message for tensor i by copying n bytes from data, a pointer or a string.
function M.new(i, data, n)
  local own = ffi.new("uint8_t[?]", math.max(n, 1))
  ffi.copy(own, data, n)
  return setmetatable({nbytes = n, tensor = i, data = own}, Message)
end

--- Returns pointer and length of msg: a message, a Lua string or a contiguous u8 tensor; raises for anything else.
--- name, what: the compressor and its method, for the error text.
function M.bytes_of(name, msg, what)
  if type(msg) == "string" then return ffi.cast(const_bytes, msg), #msg end
  if getmetatable(msg) == Message then return ffi.cast(const_bytes, msg.data), msg.nbytes end
  if T.is_tensor(msg) and msg:dtype() == "u8" and msg:is_contiguous() then
    return ffi.cast(const_bytes, msg.h.data), msg:numel()
  end
  raise(("%s: %s: message is %s, expected a message, a string or a u8 tensor"):format(name, what,
    msg == nil and "missing" or "a " .. type(msg)))
end

--- Raises if bytes follow the message: it used `used` of `size` bytes.
function M.whole(name, what, used, size)
  if used ~= size then
    raise(("%s: %s: %d bytes follow the message of %d bytes"):format(name, what, size - used, used))
  end
end

--- Returns gradient g of tensor i, made contiguous; raises unless it is an f32 tensor without NaN or Inf. compressor:
--- has name and names.
function M.finite(compressor, g, i)
  T.expect(g, ("%s: gradient %d"):format(compressor.name, i), "f32")
  local bad, first = g:count_nonfinite()
  if bad > 0 then
    local name = compressor.names[i] or tostring(i)
    raise(("%s: gradient of tensor %s %s: %d entries are NaN or Inf, the first is number %d, expected none"):format(
      compressor.name, name, T.shape_text(g), bad, first))
  end
  return g:is_contiguous() and g or g:contiguous()
end

return M
