#!/usr/bin/env atomo-lua
-- Compressors on real or made-up gradients: bytes, relative variance, time to encode and decode a whole step.
local atomo = require "atomo"
local spec = require "atomo.compress.spec"

local help = [[
usage: atomo-lua scripts/bench_codec.lua [options]

Encodes and decodes a whole step of gradients with each compressor, one budget over all tensors. A line per compressor:
message bytes, the ratio to 32-bit floats, E||ghat - g||^2 / ||g||^2 (closed form), and the medians of decode and encode
in gigabytes of gradient a second.

  --gradients DIR     a folder of .npy files, one a tensor (default: made-up gradients of ResNet-20's shapes)
  --compress LIST     compressors, separated by spaces (default: none, entry and svd at 32, 16, 8 and 4 bits)
  --ratio LIST        dense bytes over message bytes, separated by commas (default 16,64,256); not for `none`
  --repeat N          times each is run, the median counts (default 5)
  --threads N         threads (default 1)
  --help              this text

example: atomo-lua scripts/bench_codec.lua --ratio 64 --compress "svd svd:bits=4 entry"
]]

local defaults = {gradients = false, ratio = "16,64,256", ["repeat"] = 5, threads = 1,
  compress = "none entry svd:bits=32 svd:bits=16 svd:bits=8 svd:bits=4"}

local function usage(text)
  io.stderr:write("bench_codec: ", text, "\n")
  os.exit(2)
end

local function options(args)
  local o, names = {}, {}
  for name, value in pairs(defaults) do
    o[name] = value
    names[#names + 1] = name
  end
  local i = 1
  while args[i] do
    local name, value = args[i]:match "^%-%-([%w%-]+)=(.*)$"
    name = name or args[i]:match "^%-%-([%w%-]+)$"
    if name == "help" then
      io.write(help)
      os.exit(0)
    elseif not name or defaults[name] == nil then
      usage(("unknown option '%s'%s (--help lists them)"):format(args[i], spec.suggest(name or args[i], names)))
    end
    if not value then
      i = i + 1
      value = args[i] or usage(("--%s needs a value"):format(name))
    end
    if type(defaults[name]) == "number" then
      local n = tonumber(value)
      if not n or n < 1 or n % 1 ~= 0 then usage(("--%s is '%s', expected a positive integer"):format(name, value)) end
      value = n
    end
    o[name], i = value, i + 1
  end
  return o
end

--- Gradients out of a folder, tensors of two dimensions and more: what is compressed in training.
local function read_folder(folder)
  local list, names = {}, {}
  for _, path in ipairs(require("atomo.files").list(folder, "%.npy$")) do
    local g = atomo.from_npy(path)
    if g:dim() >= 2 then
      list[#list + 1] = g
      names[#names + 1] = path:match "([^/]+)%.npy$"
    end
  end
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
    local t0 = atomo.time()
    local n = c:encode_step(grads, {step = k, out = out})
    local t1 = atomo.time()
    c:decode_step(out, 0, n, 1, accs)
    encode[k], decode[k] = t1 - t0, atomo.time() - t1
    bytes = bytes + n / (repeats + 1)
  end
  table.remove(encode, 1)
  table.remove(decode, 1)
  local s = c:stats()
  return median(encode), median(decode), bytes, s.variance / s.square
end

local o = options(arg)
atomo.set_num_threads(o.threads)
local grads, names
if o.gradients then grads, names = read_folder(o.gradients) else grads, names = made_up() end
local dense = 0
for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
print(("%d tensors, %.3f MB of gradient from %s, %d thread%s, median of %d"):format(#grads, dense / 1e6,
  o.gradients or "made-up ResNet-20 shapes", o.threads, o.threads == 1 and "" or "s", o["repeat"]))

local function line(text)
  local encode, decode, bytes, variance = measure(text, grads, names, o["repeat"])
  print(("%-28s %9.0f bytes %7.1fx  variance %-9.4g encode %8.2f ms  decode %6.2f GB/s  encode %7.2f GB/s"):format(text,
    bytes, dense / bytes, variance, 1e3 * encode, dense / decode / 1e9, dense / encode / 1e9))
end
for text in o.compress:gmatch "%S+" do
  if text:match "^none" then
    line(text)
  elseif text:match "ratio=" or text:match "bytes=" or text:match "atoms=" then
    line(text)
  else
    for ratio in o.ratio:gmatch "[^,]+" do
      line(text .. (text:find(":", 1, true) and "," or ":") .. "ratio=" .. ratio)
    end
  end
end
