-- Writes the corpus of fuzz_decode: a valid message for each codec and shape, whole and as a bare body.
-- atomo-lua tests/fuzz/make_decode_corpus.lua tests/fuzz/corpus/decode
local atomo = require "atomo"

local specs = {"none", "entry:ratio=4", "entry:ratio=4,step=0", "svd:ratio=4", "svd:ratio=4,bits=32",
  "svd:ratio=4,bits=4,fold=paper", "svd:ratio=4,bits=2", "svd:ratio=4,bits=16,fold=paper", "qsgd",
  "qsgd:bits=2,bucket=100,coding=elias", "qsgd:bits=7,bucket=5,norm=max", "qsgd:bits=8,bucket=0,coding=elias",
  "terngrad", "terngrad:coding=elias", "natural", "randk:ratio=4", "topk:ratio=4", "auto:ratio=4", "signsgd",
  "signsgd:vote=true", "fp16", "bf16", "powersgd:rank=2", "atomo-published",
  "fourier:ratio=4", "fourier:ratio=4,dims=2,step=0", "dct:ratio=4", "dct:ratio=4,chunk=8", "hadamard:ratio=4",
  "haar:ratio=4", "rows:ratio=4", "rows:ratio=4,bits=32"}
local shapes = {{1, 1, 1, 1}, {5, 3, 3, 3}, {4, 1, 1, 67}, {40, 1, 1, 3}}

--- A message is 8 bytes of header here (magic, version, codec, tensor, rank, step, hash), the body's length, body, crc.
local function body_of(bytes)
  local at = 9
  while bytes:byte(at) >= 128 do at = at + 1 end
  return bytes:sub(at + 1, -5)
end

local function write(name, content)
  local file = assert(io.open(arg[1] .. "/" .. name, "wb"))
  file:write(content)
  file:close()
end

atomo.manual_seed(1)
for i, text in ipairs(specs) do
  for j, shape in ipairs(shapes) do
    local bytes = atomo.compressor(text):encode(atomo.randn(shape), {tensor = j, step = 7, rank = 3}):bytes()
    local pick = (i - 1) % 8 + 8 * (j - 1) + 32 * math.floor((i - 1) / 8)
    write(("message_%d_%d"):format(i, j), string.char(pick) .. bytes)
    write(("body_%d_%d"):format(i, j), string.char(pick + 128) .. body_of(bytes))
  end
end
