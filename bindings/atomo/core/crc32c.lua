--- CRC-32C (Castagnoli), which TFRecord files carry. For short texts: a byte at a time.
local bit = require "bit"
local bxor, band, rshift = bit.bxor, bit.band, bit.rshift

local POLYNOMIAL = 0x82F63B78 -- 0x1EDC6F41 with its bits in reverse order

local of_byte = {}
for byte = 0, 255 do
  local crc = byte
  for _ = 1, 8 do crc = bxor(rshift(crc, 1), band(crc, 1) == 1 and POLYNOMIAL or 0) end
  of_byte[byte] = crc
end

--- Returns the CRC-32C of text, 0 to 2^32 - 1.
---@param text string
---@return number
return function(text)
  local crc = -1
  for i = 1, #text do crc = bxor(rshift(crc, 8), of_byte[band(bxor(crc, text:byte(i)), 255)]) end
  return bxor(crc, -1) % 2 ^ 32
end
