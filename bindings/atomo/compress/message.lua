--- Messages: what encode makes and decode takes (stage 6 of the path), as bytes in memory of their own.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, raise = f.ffi, f.raise

local const_bytes = ffi.typeof "const uint8_t *"
local M = {}

---@class atomo.Message
---@field nbytes integer
---@field tensor integer
local Message = {}
Message.__index = Message
Message.__tostring = function(self) return ("message of %d bytes for tensor %d"):format(self.nbytes, self.tensor) end

--- The message as a Lua string, as it goes on the wire.
function Message:bytes() return ffi.string(self.data, self.nbytes) end

--- A message for tensor i: a copy of n bytes at data (a pointer, or a string).
function M.new(i, data, n)
  local own = ffi.new("uint8_t[?]", math.max(n, 1))
  ffi.copy(own, data, n)
  return setmetatable({nbytes = n, tensor = i, data = own}, Message)
end

--- Pointer and length of a message, a Lua string or a u8 tensor. name, what: of the compressor and its method.
function M.bytes_of(name, msg, what)
  if type(msg) == "string" then return ffi.cast(const_bytes, msg), #msg end
  if getmetatable(msg) == Message then return ffi.cast(const_bytes, msg.data), msg.nbytes end
  if T.is_tensor(msg) and msg:dtype() == "u8" and msg:is_contiguous() then
    return ffi.cast(const_bytes, msg.h.data), msg:numel()
  end
  raise(("%s: %s: message is %s, expected a message, a string or a u8 tensor"):format(name, what,
    msg == nil and "missing" or "a " .. type(msg)))
end

--- Raises unless the message took all of its `size` bytes.
function M.whole(name, what, used, size)
  if used ~= size then
    raise(("%s: %s: %d bytes follow the message of %d bytes"):format(name, what, size - used, used))
  end
end

return M
