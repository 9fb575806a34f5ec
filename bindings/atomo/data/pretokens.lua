--- Cuts text into pre-tokens, inside which byte pairs are merged (stage 1): by GPT-2's rule [Radford et al. 2019],
--
--   's | 't | 're | 've | 'm | 'll | 'd | ?letters | ?digits | ?others | white space before white space | white space
--
-- where " ?" is an optional space. Without tables of Unicode: letters are A to Z, a to z and all bytes from 128 on, so
-- text in ASCII is cut exactly as by GPT-2; in other text, punctuation and digits outside ASCII stay with the letters
-- around them. A pre-token has at most MOST bytes.
local M = {}

local MOST = 256
local SPACE, LETTER, DIGIT, OTHER = 1, 2, 3, 4

local class = {}
for b = 0, 255 do
  local c = string.char(b)
  class[b] = c:find "[ \t\n\v\f\r]" and SPACE or (b >= 128 or c:find "[A-Za-z]") and LETTER or c:find "%d" and DIGIT or
    OTHER
end

--- Returns the last byte of the contraction at byte i, nil if there is none.
local function contraction(bytes, i)
  local a, b = bytes:byte(i + 1, i + 2)
  a, b = a and string.char(a) or "", b and string.char(b) or ""
  if a == "s" or a == "t" or a == "m" or a == "d" then return i + 1 end
  local two = a .. b
  return (two == "re" or two == "ve" or two == "ll") and i + 2 or nil
end

--- Returns the last byte of the run of class `kind` from byte i on.
local function run_end(bytes, i, kind)
  local n = #bytes
  while i < n and class[bytes:byte(i + 1)] == kind do i = i + 1 end
  return i
end

--- Returns the last byte of the pre-token that begins at byte i, without the limit of MOST.
local function token_end(bytes, i)
  local n, b = #bytes, bytes:byte(i)
  if b == 39 then
    local last = contraction(bytes, i)
    if last then return last end
  end
  local first = b == 32 and i < n and i + 1 or i -- " ?"
  local kind = class[bytes:byte(first)]
  if kind ~= SPACE then return run_end(bytes, first, kind) end
  local last = run_end(bytes, i, SPACE)
  return last < n and last > i and last - 1 or last -- the last white space is left to what follows
end

--- Iterates over the pre-tokens of a string; joined, they are the string.
---@param bytes string
---@return fun(): string|nil
function M.each(bytes)
  local at, stop, n = 1, 0, #bytes
  return function()
    if at > n then return nil end
    if stop < at then stop = token_end(bytes, at) end
    local last = math.min(stop, at + MOST - 1)
    local token = bytes:sub(at, last)
    at = last + 1
    return token
  end
end

return M
