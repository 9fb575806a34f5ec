-- Writes the corpus of fuzz_decode: a valid message for each codec and shape, whole and as a bare body.
-- atomo-lua tests/fuzz/make_decode_corpus.lua tests/fuzz/corpus/decode
local atomo = require "atomo"

local specs = {"none", "entry:ratio=4", "entry:ratio=4,step=0", "svd:ratio=4", "svd:ratio=4,bits=32",
  "svd:ratio=4,bits=4,fold=paper", "svd:ratio=4,bits=2", "svd:ratio=4,bits=16,fold=paper", "qsgd",
  "qsgd:bits=2,bucket=100,coding=elias", "qsgd:bits=7,bucket=5,norm=max", "qsgd:bits=8,bucket=0,coding=elias",
  "terngrad", "terngrad:coding=elias", "natural", "randk:ratio=4", "topk:ratio=4", "signsgd",
  "signsgd:vote=true", "fp16", "bf16", "powersgd:rank=2", "atomo-published",
  "fourier:ratio=4", "fourier:ratio=4,dims=2,step=0", "dct:ratio=4", "dct:ratio=4,chunk=8", "hadamard:ratio=4",
  "haar:ratio=4", "taps:ratio=4", "rows:ratio=4", "rows:ratio=4,bits=32", "auto:ratio=4", "rotated:ratio=4",
  "rotated:ratio=4,base=none,classes=1", "eden:bits=3", "svd:ratio=4,bits=0", "svd:ratio=64,bits=0",
  "qsgd:bits=6,bucket=50,norm=max,coding=dither"}
-- decompositions in Lua: the rows of a matrix are atoms, with one to three factors
local lists = {{1}, {3, 7}, {2, 9, 4}, {65}, {1, 5}}
local list_atoms, list_bits = {1, 5, 40, 3, 2}, {32, 8, 3, 16, 8}
local shapes = {{1, 1, 1, 1}, {5, 3, 3, 3}, {4, 1, 1, 67}, {40, 1, 1, 3}, {6, 1, 1, 300}}

--- Returns the body of a message, which is: header (magic, version, codec, tensor, rank, step, hash), length, body,
--- crc.
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

local function put(i, j, bytes)
  write(("message_%d_%d"):format(i, j), string.char(i - 1, j - 1) .. bytes)
  write(("body_%d_%d"):format(i, j), string.char(i - 1, j - 1 + 128) .. body_of(bytes))
end

atomo.manual_seed(1)
for i, text in ipairs(specs) do
  for j, shape in ipairs(shapes) do
    put(i, j, atomo.compressor(text):encode(atomo.randn(shape), {tensor = j, step = 7, rank = 3}):bytes())
  end
end
for i, bits in ipairs(list_bits) do
  local whole = i == #list_bits -- i32 factors
  for j, widths in ipairs(lists) do
    local columns = 0
    for _, width in ipairs(widths) do columns = columns + width end
    local name = ("list_%d_%d"):format(i, j)
    atomo.decomposition(name, {
      bits = bits,
      decompose = function(g)
        local factors, at = {}, 2
        for k, width in ipairs(widths) do
          local factor = g:narrow(2, at, width):contiguous()
          factors[k], at = whole and (factor * 9):floor():to "i32" or factor, at + width
        end
        return g:narrow(2, 1, 1):contiguous():view(-1), factors
      end,
      reconstruct = function(_, _, shape) return atomo.zeros(shape) end, -- only encoded here
    })
    local c = atomo.compressor(name .. ":ratio=1.2")
    put(#specs + i, j, c:encode(atomo.randn(list_atoms[j], 1 + columns), {tensor = j, step = 7, rank = 3}):bytes())
  end
end
