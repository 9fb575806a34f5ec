#!/usr/bin/env atomo-lua
--- Measures compressors on real or generated gradients: bytes, relative variance, time to encode and decode a step.
-- Prints a line per compressor, at whose end is the gradient encoded per second, and one for Algorithm 1 alone.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local median = require "atomo.core.median"
local compare = require "atomo.tools.compare"
local gradients = require "atomo.tools.gradients"

local opts = atomo.cli.parse {
  name = "bench_codec.lua",
  about = "Times encoding and decoding of a whole step of gradients with each compressor. All tensors share one " ..
    "budget. Prints message bytes, their ratio to 32-bit floats, E||ghat - g||^2 / ||g||^2 (closed form) and median " ..
    "times.",
  examples = {
    "build/atomo-lua scripts/bench_codec.lua",
    "build/atomo-lua scripts/bench_codec.lua --gradients DIR --ratio 64 --compress 'svd svd:bits=4 entry'",
    "build/atomo-lua scripts/bench_codec.lua --model resnet18 --ratio 64 --compress 'svd svd:every=8'",
  },
  options = {
    {"gradients", "string", "", "folder of .npy files, one per tensor", metavar = "DIR"},
    {"model", "string", "", "network of models/: its gradient after three steps of training on the synthetic set; " ..
      "without --gradients and --model: generated gradients of ResNet-20", metavar = "NAME"},
    {"compress", "string", "none entry taps svd:bits=32,fold=paper svd:bits=32 svd:bits=16 svd:bits=8 svd:bits=4 " ..
      "qsgd:bits=2 qsgd qsgd:bits=8 terngrad natural fp16 bf16 signsgd topk randk powersgd atomo-published",
      "compressors, separated by spaces"},
    {"ratio", "list", {16, 64, 256}, "dense bytes / message bytes, for compressors that name no budget", of = "number"},
    {"form", "choice", "step", "step: all tensors meet the budget exactly; stream: tensor by tensor as in training, " ..
      "at the price of the previous step", choices = {"step", "stream"}},
    {"repeat", "int", 5, "timed runs of each compressor; the median counts", min = 1},
    {"threads", "int", 1, "threads", min = 1},
    {"coefficients", "int", 1e7, "number of coefficients on which Algorithm 1 is timed; 0: it is not timed", min = 0},
  },
}

atomo.set_num_threads(opts.threads)
local grads, names
local source = opts.gradients ~= "" and opts.gradients or opts.model ~= "" and opts.model or "generated ResNet-20"
if opts.gradients ~= "" then
  grads, names = gradients.folder(opts.gradients)
elseif opts.model ~= "" then
  grads, names = gradients.model(opts.model, 3)
else
  grads, names = gradients.made_up()
end
local dense = 0
for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
print(("%d tensors, %.3f MB of gradient from %s, %d thread%s, median of %d"):format(#grads, dense / 1e6,
  source, opts.threads, opts.threads == 1 and "" or "s", opts["repeat"]))

local specs = {}
for text in opts.compress:gmatch "%S+" do specs[#specs + 1] = text end
local row = "%-30s %9.0f bytes %6.1fx  variance %-9.4g encode %8.3f ms  decode %6.2f GB/s  encode %6.2f GB/s  " ..
  "decode %8.3f ms"
for _, item in ipairs(compare.expand(specs, opts.ratio)) do
  local r = compare.measure(item.text, grads, names, opts["repeat"], opts.form == "stream")
  print(row:format(item.text, r.bytes, r.ratio, r.predicted, r.encode_ms, r.decode_gb_s, r.encode_gb_s,
    dense / r.decode_gb_s / 1e6))
end

--- Returns the median time of fn in milliseconds.
local function time(fn)
  local times = {}
  for i = 1, opts["repeat"] + 1 do
    local start = C.atomo_time()
    atomo.scope(fn)
    times[i] = (C.atomo_time() - start) * 1e3
  end
  table.remove(times, 1) -- the first run includes page faults
  return median(times)
end

if opts.coefficients > 0 then
  local lambda = atomo.randn(opts.coefficients)
  local copy = atomo.zeros(opts.coefficients)
  local pass = time(function() copy:copy_(lambda) end)
  for _, share in ipairs {0.001, 0.1} do
    local s = share * opts.coefficients
    local ms = time(function() atomo.probabilities(lambda, s) end)
    print(("Algorithm 1 over %.0f coefficients, s = %.0f: %.2f ms, %.1f times a copy of them"):format(
      opts.coefficients, s, ms, ms / pass))
  end
end
