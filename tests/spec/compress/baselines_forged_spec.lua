-- Forged bodies in a valid frame with checksum are refused, or decode to finite numbers; bodies that are too short or
-- too long are always refused. (tests/fuzz does the same at random, with sanitizers.)
local atomo = require "atomo"
local C = require("atomo.ffi").C

local all = {"none", "entry:ratio=2", "entry:ratio=2,step=0", "svd:ratio=1", "svd:ratio=1,bits=32",
  "svd:ratio=1,bits=3", "svd:ratio=2,bits=0", "auto:ratio=2", "taps:ratio=2", "rotated:ratio=2", "rotated:ratio=30",
  "dct:ratio=2", "haar:ratio=2,step=0",
  "rows:ratio=2", "rows:ratio=1,bits=32",
  "qsgd", "qsgd:bits=2,coding=elias", "qsgd:bits=7,bucket=5,norm=max",
  "qsgd:bits=3,bucket=9,coding=dither", "eden", "terngrad", "terngrad:coding=elias",
  "natural",
  "randk:k=7", "topk:k=7", "signsgd", "signsgd:vote=true", "fp16", "bf16", "powersgd", "atomo-published:atoms=2"}

--- Does the compressor multiply factors? Then a message with factors of 1e38 decodes to Inf, which is correct.
local function multiplies(text)
  for _, name in ipairs {"svd", "auto", "rows", "powersgd", "atomo"} do
    if text:find("^" .. name) then return true end
  end
  return false
end

--- Header and body of a message.
local function split(bytes)
  local at = 4
  local function skip_number()
    while bytes:byte(at) >= 128 do at = at + 1 end
    at = at + 1
  end
  for _ = 1, 3 do skip_number() end
  at = at + 2
  local length_at = at
  skip_number()
  return bytes:sub(1, length_at - 1), bytes:sub(at, -5)
end

--- The frame put around another body.
local function forge(head, body)
  local n = #body
  local length = n < 128 and string.char(n) or string.char(n % 128 + 128, math.floor(n / 128))
  local text = head .. length .. body
  local crc = C.atomo_crc32(text, #text)
  return text .. string.char(crc % 256, math.floor(crc / 2 ^ 8) % 256, math.floor(crc / 2 ^ 16) % 256,
    math.floor(crc / 2 ^ 24))
end

local function each_byte(body, fn)
  for i = 1, #body do
    local b = body:byte(i)
    for _, v in ipairs {0, 255, 127, 128, bit.bxor(b, 1), bit.bxor(b, 16), 255 - b} do
      fn(body:sub(1, i - 1) .. string.char(v) .. body:sub(i + 1), i, v)
    end
  end
end

describe("a forged body of", function()
  for _, text in ipairs(all) do
    it(text, function()
      atomo.manual_seed(7)
      local c, g = atomo.compressor(text), atomo.randn(5, 1, 1, 4)
      local bytes = c:encode(g, {step = 3}):bytes()
      local head, body = split(bytes)
      assert.equal(bytes, forge(head, body))
      each_byte(body, function(other, i, v)
        local ok, ghat = pcall(c.decode, c, forge(head, other))
        if ok then
          assert.is_true(multiplies(text) or ghat:count_nonfinite() == 0, ("byte %d is %d"):format(i, v))
        else
          assert.matches("its body of %d+ bytes is malformed", ghat)
        end
      end)
      for _, other in ipairs {body:sub(1, -2), body .. "\0", body .. "\255", ""} do
        local ok, message = pcall(c.decode, c, forge(head, other))
        assert.is_false(ok, #other .. " bytes")
        assert.matches("malformed", message)
      end
    end)
  end

  it("more than was agreed on is refused: entries of topk, levels of qsgd, codes of Inf", function()
    local function refused(text, body, g)
      local c = atomo.compressor(text)
      local head = split(c:encode(g or atomo.tensor {1, 2, 3, 4}):bytes())
      local ok, message = pcall(c.decode, c, forge(head, body))
      assert.is_false(ok)
      assert.matches("malformed", message)
    end
    local eight = atomo.arange(1, 9)
    local _, four = split(atomo.compressor("topk:k=4"):encode(eight):bytes())
    refused("topk:k=3", four, eight)
    refused("qsgd:bits=3,bucket=0", "\0\0\128\63" .. "\255\255") -- 7 of 0 .. 6
    refused("fp16", "\0\1" .. "\0\124" .. ("\0\0"):rep(3)) -- 2^0; 0x7C00
    refused("bf16", "\128\127" .. ("\0\0"):rep(3))
    refused("natural", "\255\1\1\1\0")
    refused("terngrad:coding=elias", "\0\0\128\127" .. "\255") -- a scale of Inf
    refused("terngrad", "\0\0\128\127" .. "\0")
    refused("signsgd", "\0\0\128\127" .. "\0")
    refused("none", "\0\0\192\127" .. ("\0\0\0\0"):rep(3)) -- NaN
  end)
end)
