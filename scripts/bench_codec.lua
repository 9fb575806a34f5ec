#!/usr/bin/env atomo-lua
--- Compressors on real or made-up gradients: bytes, relative variance, time to encode and decode a whole step.
-- A line per compressor that ends in the gradient encoded a second.
local atomo = require "atomo"
local C = require("atomo.ffi").C

local opts = atomo.cli.parse {
  name = "bench_codec.lua",
  about = "Encodes and decodes a whole step of gradients with each compressor, one budget over all tensors; prints " ..
    "message bytes, the ratio to 32-bit floats, E||ghat - g||^2 / ||g||^2 (closed form), and medians of time.",
  examples = {
    "build/atomo-lua scripts/bench_codec.lua",
    "build/atomo-lua scripts/bench_codec.lua --gradients DIR --ratio 64 --compress 'svd svd:bits=4 entry'",
  },
  options = {
    {"gradients", "string", "", "a folder of .npy files, one a tensor; none: made-up ones of ResNet-20's shapes"},
    {"compress", "string", "none entry svd:bits=32,fold=paper svd:bits=32 svd:bits=16 svd:bits=8 svd:bits=4 " ..
      "qsgd:bits=2 qsgd qsgd:bits=8 terngrad natural fp16 bf16 signsgd topk randk powersgd atomo-published",
      "compressors, separated by spaces"},
    {"ratio", "string", "16,64,256", "dense bytes over message bytes, for those that name no budget"},
    {"repeat", "int", 5, "times each is run, the median counts", min = 1},
    {"threads", "int", 1, "threads", min = 1},
  },
}

local function usage(text) error("bench_codec: " .. text, 0) end

--- Gradients out of a folder, tensors of two dimensions and more: what is compressed in training.
local function read_folder(folder)
  local list, names = {}, {}
  local listing = io.popen("ls -- '" .. folder:gsub("'", "'\\''") .. "'")
  for file in listing:lines() do
    local g = file:match "%.npy$" and atomo.from_npy(folder .. "/" .. file)
    if g and g:dim() >= 2 then
      list[#list + 1] = g
      names[#names + 1] = file:match "^(.*)%.npy$"
    end
  end
  listing:close()
  if #list == 0 then usage(("no .npy files of two dimensions and more in %s"):format(folder)) end
  return list, names
end

--- ResNet-20's convolutions, low rank plus heavy-tailed noise.
local function made_up()
  local list, names = {}, {}
  atomo.manual_seed(1)
  local width = 3
  for stage = 0, 2 do
    for block = 1, 6 do
      local out = 16 * 2 ^ stage
      local g = atomo.randn(out, 9 * width):mul_(0.05)
      local p = g:data()
      for i = 0, g:numel() - 1 do p[i] = p[i] ^ 3 * 100 end
      for r = 1, 8 do g:add_(atomo.randn(out, 1):matmul(atomo.randn(1, 9 * width)):mul_(0.5 ^ r)) end
      list[#list + 1] = g:view(out, 3, 3, width)
      names[#names + 1] = ("stage%d.conv%d"):format(stage + 1, block)
      width = out
    end
  end
  return list, names
end

local function median(times)
  table.sort(times)
  return times[math.ceil(#times / 2)]
end

--- Medians of encode and decode in seconds, mean bytes, relative variance.
local function measure(text, grads, names, repeats)
  local c = atomo.compressor(text)
  local shapes, accs = {}, {}
  for i, g in ipairs(grads) do shapes[i], accs[i] = g:shape(), atomo.zeros(g:shape()) end
  c:prepare(shapes, names)
  local out = atomo.zeros(c:wire_max(), "u8")
  local encode, decode, bytes = {}, {}, 0
  for k = 1, repeats + 1 do -- the first warms up
    local t0 = C.atomo_time()
    local n = c:encode_step(grads, {step = k, out = out})
    local t1 = C.atomo_time()
    c:decode_step(out, 0, n, 1, accs)
    encode[k], decode[k] = t1 - t0, C.atomo_time() - t1
    bytes = bytes + n / (repeats + 1)
  end
  table.remove(encode, 1)
  table.remove(decode, 1)
  local s = c:stats()
  return median(encode), median(decode), bytes, s.variance / s.square
end

atomo.set_num_threads(opts.threads)
local grads, names
if opts.gradients ~= "" then grads, names = read_folder(opts.gradients) else grads, names = made_up() end
local dense = 0
for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
print(("%d tensors, %.3f MB of gradient from %s, %d thread%s, median of %d"):format(#grads, dense / 1e6,
  opts.gradients ~= "" and opts.gradients or "made-up ResNet-20 shapes", opts.threads, opts.threads == 1 and "" or "s",
  opts["repeat"]))

local function line(text)
  local encode, decode, bytes, variance = measure(text, grads, names, opts["repeat"])
  local row = "%-30s %9.0f bytes %6.1fx  variance %-9.4g encode %8.2f ms  decode %6.2f GB/s  encode %6.2f GB/s"
  print(row:format(text, bytes, dense / bytes, variance, 1e3 * encode, dense / decode / 1e9, dense / encode / 1e9))
end
local takes_ratio = {}
for _, entry in ipairs(atomo.compressors()) do takes_ratio[entry.name] = entry.options.ratio ~= nil end
for text in opts.compress:gmatch "%S+" do
  local given = text:match "[:,]ratio=" or text:match "[:,]bytes=" or text:match "[:,]atoms=" or text:match "[:,]k="
  if given or takes_ratio[text:match "^[%w_-]+"] == false then
    line(text)
  else
    for ratio in opts.ratio:gmatch "[^,]+" do
      line(text .. (text:find(":", 1, true) and "," or ":") .. "ratio=" .. ratio)
    end
  end
end
