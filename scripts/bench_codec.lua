#!/usr/bin/env atomo-lua
--- Compressors on real or made-up gradients: bytes, relative variance, time to encode and decode a whole step.
-- A line per compressor that ends in the gradient encoded a second.
local atomo = require "atomo"
local compare = require "atomo.compare"
local gradients = require "atomo.gradients"

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
    {"ratio", "list", {16, 64, 256}, "dense bytes over message bytes, for those that name no budget", of = "number"},
    {"repeat", "int", 5, "times each is run, the median counts", min = 1},
    {"threads", "int", 1, "threads", min = 1},
  },
}

atomo.set_num_threads(opts.threads)
local grads, names
if opts.gradients ~= "" then grads, names = gradients.folder(opts.gradients) else grads, names = gradients.made_up() end
local dense = 0
for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
print(("%d tensors, %.3f MB of gradient from %s, %d thread%s, median of %d"):format(#grads, dense / 1e6,
  opts.gradients ~= "" and opts.gradients or "made-up ResNet-20 shapes", opts.threads, opts.threads == 1 and "" or "s",
  opts["repeat"]))

local specs = {}
for text in opts.compress:gmatch "%S+" do specs[#specs + 1] = text end
local row = "%-30s %9.0f bytes %6.1fx  variance %-9.4g encode %8.2f ms  decode %6.2f GB/s  encode %6.2f GB/s"
for _, item in ipairs(compare.expand(specs, opts.ratio)) do
  local r = compare.measure(item.text, grads, names, opts["repeat"])
  print(row:format(item.text, r.bytes, r.ratio, r.predicted, r.encode_ms, r.decode_gb_s, r.encode_gb_s))
end
