--- Checksums of messages of fixed gradients with fixed seeds. message_bits_spec.lua compares them with
-- tests/golden/message_bits.lua, which tests/golden/make_message_bits.lua writes.
--
-- Gradients come from a linear congruential generator in whole numbers, so they are bit-identical on every machine. A
-- case is a compressor's text, or a name with a table. It encodes two steps of all tensors under one budget, then four
-- streamed steps from the last tensor to the first, with gradients that grow and shrink. All messages are decoded.
local atomo = require "atomo"
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

local M = {}

local SHAPES = {{8, 3, 3, 6}, {33}, {24, 20}, {12, 5, 5, 4}, {96, 100}} -- the last is large enough for probing of sizes
local NAMES = {"conv1.weight", "conv1.bias", "fc.weight", "conv2.weight", "embedding"}
local SCALES = {1, 1, 1 / 8, 64} -- factors of the gradients in the streamed steps
local SEED, RANK = 20181203, 3

--- Makes gradients with heavy tails: cubes of numbers in [-0.5, 0.5). The fourth tensor has ranges of zeros; the last
--- is the product of two vectors plus noise, so that spectral atoms suit it.
local function gradients(step, scale)
  local list, x = {}, (step * 7919 + 17) % 65537
  local function draw()
    x = (x * 75 + 74) % 65537
    return x / 65536 - 0.5
  end
  for i, shape in ipairs(SHAPES) do
    local g = atomo.empty(shape)
    local p, columns, rows = g:data(), shape[#shape], {}
    for j = 0, g:numel() - 1 do
      local v = draw()
      v = v * v * v
      if i == 4 and j % 60 < 20 then v = 0 end
      if i == 5 then
        local row, column = math.floor(j / columns), j % columns
        rows[row] = rows[row] or draw()
        v = v / 8 + rows[row] * (column * 37 % 64 - 32) / 256
      end
      p[j] = v * scale
    end
    list[i] = g
  end
  return list
end

--- Returns the checksum continued over n bytes at data.
local function checksum(crc, data, n)
  local whole = ffi.new("uint32_t[2]", crc, C.atomo_crc32(data, n))
  return C.atomo_crc32(whole, 8)
end

local function of_tensors(crc, list)
  for _, t in ipairs(list) do crc = checksum(crc, t:data(), 4 * t:numel()) end
  return crc
end

local function zeros()
  local list = {}
  for i, shape in ipairs(SHAPES) do list[i] = atomo.zeros(shape) end
  return list
end

--- Returns the checksum of a message without its last 4 bytes, its own CRC-32: with them it would be a constant.
local function of_message(crc, data, n) return checksum(crc, data, n - 4) end

--- Returns length and checksum of the messages of two steps, and the checksum of the decoded gradients.
local function exact(what)
  local c, sent, read, size = atomo.compressor(what, {seed = SEED}), 0, 0, 0
  c:prepare(SHAPES, NAMES)
  for step = 0, 1 do
    local accs = zeros()
    for i, m in ipairs(c:encode_all(gradients(step, 1), {step = step, rank = RANK})) do
      local bytes = m:bytes()
      sent, size = of_message(sent, bytes, #bytes), size + #bytes
      c:decode_add(m, 0.5, accs[i])
    end
    read = of_tensors(read, accs)
  end
  return size, sent, read
end

--- The same for the streamed steps; each message is decoded twice, as if from two ranks.
local function streamed(what)
  local c, sent, read, size = atomo.compressor(what, {seed = SEED}), 0, 0, 0
  c:prepare(SHAPES, NAMES)
  local out = atomo.empty({c:wire_max()}, "u8")
  for step, scale in ipairs(SCALES) do
    local grads, accs = gradients(step, scale), zeros()
    c:begin_step(step, RANK)
    for i = #grads, 1, -1 do
      local n = c:push(i, grads[i], out, 0)
      sent, size = of_message(sent, out:data(), n), size + n
      c:decode_tensor(i, step, {{data = out:data(), left = n}, {data = out:data(), left = n}}, 0.5, accs[i])
    end
    c:end_step()
    read = of_tensors(read, accs)
  end
  return size, sent, read
end

--- Returns "bytes checksum checksum / bytes checksum checksum": of the exact form, of the streamed form.
function M.of(what)
  local a, b, c = exact(what)
  local d, e, g = streamed(what)
  return ("%d %08x %08x / %d %08x %08x"):format(a, b, c, d, e, g)
end

-- Scripted compressors, which test the codecs entry and _list in their lanes.
atomo.basis("doubled", {
  summary = "twice the entries",
  analyze = function(g) return g:reshape(-1) * 2 end,
  synthesize = function(c, shape) return (c * 0.5):reshape(shape) end,
})
local function unit_vectors(n)
  local t = atomo.zeros(n, n)
  for i = 1, n do t:set(i, i, 1) end
  return t
end
atomo.decomposition("rows_by_largest", {
  summary = "rows over their largest entry, each with the unit vector of its place",
  bits = 8,
  decompose = function(g)
    local rows = g:reshape(g:size(1), -1)
    local largest = rows:abs():max(2) + 2 ^ -20
    return largest, {unit_vectors(rows:size(1)), rows / largest:view(-1, 1)}
  end,
  reconstruct = function(lambda, factors, shape) -- no entry is a sum of two numbers other than 0: exact in any order
    return ((factors[1]:t() * lambda):matmul(factors[2]) + 0):view(shape)
  end,
})

local function overridden(name, with) return {name = name, ratio = 12, overrides = with} end

--- Cases whose bits are the same on every CPU: C without BLAS and FFTW.
M.portable = {
  "entry", "entry:ratio=4", "entry:ratio=64", "entry:ratio=16,step=0", "entry:ratio=2,step=1", "entry:atoms=20",
  "entry:bytes=3000", "entry:ratio=16,sampling=systematic", "entry:ratio=16,ef=true",
  "rows:ratio=4", "rows:ratio=16,bits=4", "rows:ratio=2,bits=32", "rows:atoms=3", "rows:ratio=8,sampling=bernoulli",
  "rows:ratio=8,bits=2,ef=true",
  "taps:ratio=4", "taps:ratio=16", "taps:ratio=64,step=1", "taps:bytes=3000,step=0",
  "haar:ratio=4", "haar:ratio=16", "haar:ratio=64,step=0", "haar:atoms=30", "haar:ratio=16,ef=true",
  "hadamard:ratio=4", "hadamard:ratio=16", "hadamard:ratio=64,step=1", "hadamard:bytes=2500,sampling=systematic",
  "rotated", "rotated:ratio=2", "rotated:ratio=64", "rotated:ratio=16,base=none", "rotated:ratio=16,classes=1",
  "rotated:atoms=40", "rotated:bytes=3000", "rotated:ratio=256,sampling=bernoulli", "rotated:ratio=16,ef=true",
  "eden", "eden:bits=1", "eden:bits=6", "eden:bits=3,ef=true",
  "none", "bf16", "bf16:ef=true", "fp16", "fp16:ef=true", "natural", "natural:ef=true",
  "qsgd", "qsgd:bits=2", "qsgd:bits=8,bucket=64", "qsgd:bits=3,norm=max", "qsgd:coding=elias", "qsgd:ef=true",
  "randk:ratio=10", "randk:k=7", "randk:ratio=10,ef=true", "topk:ratio=10", "topk:k=7", "topk:ratio=10,ef=true",
  "signsgd", "signsgd:vote=true", "signsgd:ef=true", "terngrad", "terngrad:clip=2.5", "terngrad:ef=true",
  "doubled:ratio=16", "rows_by_largest:ratio=6", "rows_by_largest:ratio=6,sampling=bernoulli",
  {"entry with overrides", overridden("entry", {{"fc", "rows:bits=4"}, {"bias$", "none"}, {"conv", "taps:step=1"}})},
}

--- Cases whose bits depend on BLAS, LAPACK and FFTW: valid for the same M.machine() only.
M.local_ones = {
  "svd", "svd:ratio=2,bits=32", "svd:ratio=8,bits=16", "svd:ratio=8,bits=6", "svd:ratio=8,bits=4",
  "svd:ratio=8,bits=3", "svd:ratio=4,bits=2", "svd:atoms=2", "svd:bytes=4000", "svd:ratio=8,every=3",
  "svd:ratio=8,every=2,bits=4", "svd:ratio=8,bits=0", "svd:ratio=64,bits=0",
  "svd:ratio=8,bits=0,every=2,fold=paper",
  "svd:ratio=8,sampling=bernoulli", "svd:ratio=4,fold=paper", "svd:ratio=8,ef=true",
  "fourier:ratio=4", "fourier:ratio=16", "fourier:ratio=64,step=1", "fourier:ratio=16,dims=2",
  "fourier:ratio=16,rows=2", "fourier:ratio=16,rows=1,step=0", "dct:ratio=4", "dct:ratio=16,chunk=8", "dct:ratio=64",
  "auto", "auto:ratio=4", "auto:ratio=64", "auto:bytes=3000", "auto:ratio=16,prefer=accuracy",
  "auto:ratio=8,every=2,keep=2", "auto:ratio=16,every=1", "auto:ratio=16,ef=true",
  "auto:ratio=6,prefer=accuracy,every=3",
  "atomo-published", "atomo-published:atoms=1", "atomo-published:ef=true",
  "powersgd", "powersgd:rank=1", "powersgd:rank=4,warm=false", "powersgd:ef=true",
  {"svd with overrides", overridden("svd", {{"fc", {bits = 4}}, {"bias$", "none"}, {"conv", "fourier"}})},
}

--- Returns a text of CPU and libraries on which the bits of local_ones depend.
function M.machine()
  local v = require("atomo.core.version").versions()
  return ("%s, %s, %s"):format(v.blas:match "^%S+ %S+" or v.blas, v.cpu, v.fftw)
end

--- Returns a case's name and its compressor.
function M.case(item)
  if type(item) == "table" then return item[1], item[2] end
  return item, item
end

return M
