--- Checks numbers that a script passes: sizes, indices, counts and elements of tensors.
-- The FFI converts to integers silently: 2.5 is truncated, 300 wraps in a uint8_t, NaN becomes -2^31. So a script's
-- number is checked here before C gets it. int64_t and uint64_t (2LL, 2ULL) are accepted if a double holds the value.
local ffi = require "ffi"
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"

local M = {}

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

--- Returns v as a Lua number; nil if v is no number, or a 64-bit integer that a double cannot hold.
---@return number?
local function of(v)
  if type(v) == "number" then return v end
  if type(v) ~= "cdata" then return nil end
  local n = tonumber(v)
  if n and (ffi.istype(int64, v) or ffi.istype(uint64, v)) and not (n < 2 ^ 63 and ffi.cast(int64, n) == v) then
    return nil
  end
  return n
end
M.of = of

--- Returns v as a Lua number if it is a whole number from `least` (default -2^53) to `most` (2^53), else nil.
---@return integer?
function M.whole(v, least, most)
  local n = of(v)
  if n and n % 1 == 0 and n >= (least or -2 ^ 53) and n <= (most or 2 ^ 53) then return n + 0 end
  return nil
end

--- Describes v for error texts: "2.5", "'x', a string", "a table", "missing".
function M.text(v)
  local kind = type(v)
  if v == nil then return "missing" end
  if kind == "number" or kind == "cdata" or kind == "boolean" then return tostring(v) end
  if kind == "string" then return ("'%s', a string"):format(brief(v)) end
  return brief(v)
end

--- M.whole(v, least, most); raises "WHAT is 2.5, expected a whole number of at least 1".
function M.expect_whole(v, what, least, most)
  local n = M.whole(v, least, most)
  if n then return n end
  local range = ""
  if most and most < 2 ^ 31 - 1 then
    range = (" from %d to %d"):format(least, most)
  elseif least and least > -2 ^ 31 then
    range = (" of at least %d"):format(least)
  end
  raise(("%s is %s, expected a whole number%s"):format(what, M.text(v), range))
end

--- Returns v as a Lua number; raises "WHAT is 'x', a string, expected a number". (The FFI would convert true to 1.)
---@return number
function M.expect(v, what)
  return of(v) or raise(("%s is %s, expected a number"):format(what, M.text(v)))
end

local limits = {i32 = {-2 ^ 31, 2 ^ 31 - 1}, u8 = {0, 255}}
-- the smallest number that rounds to Inf
local float_end = {f32 = 2 ^ 128 - 2 ^ 103, bf16 = 2 ^ 128 - 2 ^ 119, f16 = 65520}

--- Returns v as an element of a tensor of that dtype; raises if it does not fit: "WHAT: 300 does not fit u8".
---@return number
function M.element(v, dtype, what)
  local n = of(v)
  if not n and type(v) ~= "cdata" then
    raise(("%s is %s, expected a number"):format(what, M.text(v)))
  end
  local limit = limits[dtype]
  local fits = n
  if n and limit then
    fits = n % 1 == 0 and n >= limit[1] and n <= limit[2]
  elseif n then
    local over = float_end[dtype]
    fits = n ~= n or (n < over and n > -over) or n == math.huge or n == -math.huge
  end
  if not fits then raise(("%s: %s does not fit %s"):format(what, brief(v), dtype)) end
  return n
end

return M
