local brief = require "atomo.core.brief"
--- JSON for logs, one line per value. The encoder keeps all digits and writes NaN as null; the decoder is strict.
local M = {}

--- Stands for null inside decoded arrays (in objects a null is an absent key).
M.null = setmetatable({}, {__tostring = function() return "null" end})

local array_mark = {}
--- Marks a table as an array, so that an empty one is written as [].
---@param t table
---@return table t
---@usage atomo.log.encode(atomo.log.array {}) --> []
function M.array(t) return setmetatable(t, array_mark) end

-- ---- encoding ----------------------------------------------------------------------------------------------------

local escapes = {['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b",
  ["\f"] = "\\f"}

--- Length in bytes of the UTF-8 sequence at byte i of s, nil if it is invalid.
local function sequence(s, i)
  local a, b = s:byte(i, i + 1)
  if a < 0x80 then return 1 end
  local n = a >= 0xC2 and a < 0xE0 and 2 or a >= 0xE0 and a < 0xF0 and 3 or a >= 0xF0 and a < 0xF5 and 4
  if not n or i + n - 1 > #s then return nil end
  for k = i + 1, i + n - 1 do
    local c = s:byte(k)
    if c < 0x80 or c > 0xBF then return nil end
  end
  local bad = (a == 0xE0 and b < 0xA0) or (a == 0xED and b > 0x9F) -- overlong; surrogates
    or (a == 0xF0 and b < 0x90) or (a == 0xF4 and b > 0x8F)        -- overlong; above U+10FFFF
  return not bad and n or nil
end

--- Index of the first byte of s that is not valid UTF-8, nil if s is valid.
local function not_utf8(s)
  local i = s:find "[\128-\255]"
  while i do
    local n = sequence(s, i)
    if not n then return i end
    i = s:find("[\128-\255]", i + n)
  end
  return nil
end

--- Is s valid UTF-8?
function M.is_utf8(s) return not_utf8(s) == nil end

--- Replaces invalid UTF-8 by U+FFFD, so that every JSON reader can read the log.
local function clean(s)
  local parts, i, from = {}, 1, 1
  while i <= #s do
    local n = sequence(s, i)
    if not n then
      parts[#parts + 1] = s:sub(from, i - 1) .. "\239\191\189"
      from = i + 1
    end
    i = i + (n or 1)
  end
  return table.concat(parts) .. s:sub(from)
end

local function encode_string(s)
  if s:find "[\128-\255]" then s = clean(s) end
  return '"' .. s:gsub('[%z\1-\31"\\\127]', function(c)
    return escapes[c] or ("\\u%04x"):format(c:byte())
  end) .. '"'
end

local function encode_number(v)
  if v ~= v or v == math.huge or v == -math.huge then return "null" end
  if v % 1 == 0 and math.abs(v) < 1e17 then return ("%.0f"):format(v) end
  return ("%.17g"):format(v)
end

--- These keys come first, in this order; the others follow in alphabetical order.
local first_keys = {event = 1, step = 2, epoch = 3, time = 4}

local function key_order(a, b)
  local x, y = first_keys[a] or 99, first_keys[b] or 99
  if x ~= y then return x < y end
  return a < b
end

local encode

local function encode_table(t, path, depth)
  if depth > 32 then error(("json: %s is nested deeper than 32, or contains itself"):format(path), 0) end
  local parts, n = {}, #t
  if n > 0 or getmetatable(t) == array_mark then
    for key in pairs(t) do
      if type(key) ~= "number" or key % 1 ~= 0 or key < 1 or key > n then
        error(("json: %s is an array of %d entries that also has the key %s"):format(path, n, brief(key)), 0)
      end
    end
    for i = 1, n do parts[i] = encode(t[i], path .. "[" .. i .. "]", depth + 1) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  local keys = {}
  for key in pairs(t) do
    if type(key) ~= "string" then error(("json: %s has the key %s, expected text"):format(path, brief(key)), 0) end
    keys[#keys + 1] = key
  end
  table.sort(keys, key_order)
  for i, key in ipairs(keys) do
    parts[i] = encode_string(key) .. ":" .. encode(t[key], path .. "." .. key, depth + 1)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

function encode(v, path, depth)
  local kind = type(v)
  if kind == "number" then return encode_number(v) end
  if kind == "string" then return encode_string(v) end
  if kind == "boolean" then return tostring(v) end
  if v == nil or v == M.null then return "null" end
  if kind == "table" then return encode_table(v, path, depth) end
  if kind == "cdata" then
    local digits = tostring(v):match "^(%-?%d+)U?LL$"
    if digits then return digits end
  end
  error(("json: %s is a %s, expected a number, text, boolean or table"):format(path, kind), 0)
end

--- Returns v as one line of JSON. Integers have no decimal point, other numbers 17 digits, NaN and Inf become null. The
--- keys event, step, epoch, time come first. Raises for functions and other types that JSON does not have.
---@param v any
---@return string
---@usage atomo.log.encode {step = 1} --> {"step":1}
function M.encode(v) return encode(v, "value", 0) end

-- ---- decoding ----------------------------------------------------------------------------------------------------

local function fail(s, i, expected)
  local found = i > #s and "the end" or ("'%s'"):format(s:sub(i, i + 9))
  error(("json: offset %d: found %s, expected %s"):format(i - 1, found, expected), 0)
end

local function skip(s, i) return s:find("[^ \t\r\n]", i) or #s + 1 end

local function utf8_of(c)
  if c < 0x80 then return string.char(c) end
  if c < 0x800 then return string.char(0xC0 + math.floor(c / 64), 0x80 + c % 64) end
  if c < 0x10000 then
    return string.char(0xE0 + math.floor(c / 4096), 0x80 + math.floor(c / 64) % 64, 0x80 + c % 64)
  end
  return string.char(0xF0 + math.floor(c / 262144), 0x80 + math.floor(c / 4096) % 64, 0x80 + math.floor(c / 64) % 64,
    0x80 + c % 64)
end

local unescapes = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

--- The escape whose backslash is at i: its text and the index after it.
local function decode_escape(s, i)
  local c = s:sub(i + 1, i + 1)
  if unescapes[c] then return unescapes[c], i + 2 end
  local hex = s:match("^u(%x%x%x%x)", i + 1)
  if not hex then fail(s, i, "an escape") end
  local code = tonumber(hex, 16)
  if code >= 0xD800 and code < 0xDC00 then
    local low = s:match("^\\u([dD][c-fC-F]%x%x)", i + 6)
    if not low then fail(s, i, "a surrogate pair") end
    return utf8_of(0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00), i + 12
  end
  if code >= 0xDC00 and code < 0xE000 then fail(s, i, "a surrogate pair") end
  return utf8_of(code), i + 6
end

local function decode_string(s, i)
  local parts, at = {}, i + 1
  while true do
    local stop = s:find('[%z\1-\31"\\]', at)
    if not stop then fail(s, #s + 1, "the end of the text that began at offset " .. i - 1) end
    local part = s:sub(at, stop - 1)
    local bad = not_utf8(part)
    if bad then fail(s, at + bad - 1, "UTF-8") end
    parts[#parts + 1] = part
    local c = s:sub(stop, stop)
    if c == '"' then return table.concat(parts), stop + 1 end
    if c ~= "\\" then fail(s, stop, "no control character in a text") end
    parts[#parts + 1], at = decode_escape(s, stop)
  end
end

local function decode_number(s, i, how)
  local digits = s:match("^-?0", i) or s:match("^-?[1-9]%d*", i)
  if not digits then fail(s, i, "a value") end
  local stop = i + #digits
  local tail = s:match("^%.%d+", stop) or ""
  tail = tail .. (s:match("^[eE][+-]?%d+", stop + #tail) or "")
  stop = stop + #tail
  if s:find("^[%w%.+-]", stop) then fail(s, stop, "the end of a number") end
  if how.integers and tail ~= "" then fail(s, i, "an integer") end
  local v = tonumber(digits .. tail)
  if v - v ~= 0 then fail(s, i, "a number that a double holds") end
  return v, stop
end

local decode_value

local function decode_array(s, i, depth, how)
  local t = M.array {}
  i = skip(s, i + 1)
  if s:sub(i, i) == "]" then return t, i + 1 end
  while true do
    local v
    v, i = decode_value(s, i, depth, how)
    t[#t + 1] = v
    i = skip(s, i)
    local c = s:sub(i, i)
    if c == "]" then return t, i + 1 end
    if c ~= "," then fail(s, i, "',' or ']'") end
    i = skip(s, i + 1)
  end
end

local function decode_object(s, i, depth, how)
  local t, seen = {}, {}
  i = skip(s, i + 1)
  if s:sub(i, i) == "}" then return t, i + 1 end
  while true do
    if s:sub(i, i) ~= '"' then fail(s, i, "a key in quotes") end
    local key, after = decode_string(s, i)
    if seen[key] then fail(s, i, "no key twice") end
    seen[key] = true
    i = skip(s, after)
    if s:sub(i, i) ~= ":" then fail(s, i, "':'") end
    local v
    v, i = decode_value(s, skip(s, i + 1), depth, how)
    if v ~= M.null or how.nulls then t[key] = v end
    i = skip(s, i)
    local c = s:sub(i, i)
    if c == "}" then return t, i + 1 end
    if c ~= "," then fail(s, i, "',' or '}'") end
    i = skip(s, i + 1)
  end
end

local words = {{"true", true}, {"false", false}, {"null", M.null}}

function decode_value(s, i, depth, how)
  if depth > 64 then fail(s, i, "no deeper nesting than 64") end
  local c = s:sub(i, i)
  if c == "{" then return decode_object(s, i, depth + 1, how) end
  if c == "[" then return decode_array(s, i, depth + 1, how) end
  if c == '"' then return decode_string(s, i) end
  for _, w in ipairs(words) do
    if s:sub(i, i + #w[1] - 1) == w[1] then return w[2], i + #w[1] end
  end
  return decode_number(s, i, how)
end

local plain = {}

--- Is t marked as an array, by the decoder or by M.array?
function M.is_array(t) return getmetatable(t) == array_mark end

--- The value of a JSON text (strict: UTF-8, no key twice, at most 64 levels, numbers that a double holds), in linear
--- time; raises "json: offset 12: found 'x', expected ...". A null in an object is an absent key, in an array it is
--- json.null. how: nulls = true keeps json.null in objects too; integers = true refuses points and exponents.
---@param how {nulls: boolean?, integers: boolean?}?
---@param text string
---@return any
---@usage atomo.log.decode('{"loss":0.5}').loss --> 0.5
function M.decode(text, how)
  if type(text) ~= "string" then error(("json: got a %s, expected text"):format(type(text)), 0) end
  local v, i = decode_value(text, skip(text, 1), 0, how or plain)
  i = skip(text, i)
  if i <= #text then fail(text, i, "the end") end
  return v
end

return M
