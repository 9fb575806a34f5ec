#!/usr/bin/env atomo-lua
--- Compares compressors on a step of gradients: bytes, error (stated and measured), time; as a table, JSON and a chart.
local atomo = require "atomo"
local compare = require "atomo.tools.compare"
local compare_ranks = require "atomo.tools.compare_ranks"
local gradients = require "atomo.tools.gradients"

local opts = atomo.cli.parse {
  name = "compare_compressors.lua",
  about = "Encodes and decodes a whole step of gradients with each compressor. All tensors share one budget. The " ..
    "error is E||ghat - g||^2 / ||g||^2: the variance of an unbiased compressor, the squared error in one step of a " ..
    "biased one (error feedback returns it in later steps). Column x bound divides the prediction by 1 / (4^R - 1), " ..
    "with R bits per entry. No unbiased code of normally distributed entries has less; gradients with structure " ..
    "can. Column x classes, for rotated, divides it by the same bound for entries with the energies of its classes. " ..
    "--ranks measures the mean of several ranks' messages, each rank with another batch, by draws that cancel " ..
    "(option together) and by independent ones.",
  examples = {
    "build/atomo-lua scripts/compare_compressors.lua --gradients DIR --ratio 16,64,256 --plot compare",
    "build/atomo-lua scripts/compare_compressors.lua --model resnet20 --compress 'svd:bits=4 entry qsgd'",
    "build/atomo-lua scripts/compare_compressors.lua --load scripts/atoms/haar.lua --compress 'entry haar_lua'",
    "build/atomo-lua scripts/compare_compressors.lua --model resnet20 --data DIR --ranks 2,8 --compress 'entry qsgd'",
  },
  options = {
    {"gradients", "string", "", "folder of .npy files, one per tensor", metavar = "DIR"},
    {"model", "string", "", "network of models/, trained for --steps steps; without --gradients and --model: " ..
      "generated gradients",
      metavar = "NAME"},
    {"steps", "int", 20, "with --model: training steps before the gradient is taken", min = 0},
    {"data", "string", "", "with --model: data set; without: synthetic images", metavar = "DIR"},
    {"ranks", "list", {}, "with --model: measure the mean of the messages of P ranks instead", of = "int", min = 2,
      metavar = "P,..."},
    {"ratio", "list", {16, 64, 256}, "dense bytes / message bytes, for compressors that take a ratio", of = "number"},
    {"compress", "string", nil, "compressors, separated by spaces; if absent: every built-in one", repeated = true,
      metavar = "SPECS"},
    {"load", "string", nil, "Lua file that declares compressors; runs first", repeated = true, metavar = "FILE"},
    {"draws", "int", 20, "runs of each compressor: errors are means, times medians", min = 2},
    {"threads", "int", 1, "threads", min = 1},
    {"json", "string", "", "write the figures to FILE", metavar = "FILE"},
    {"plot", "string", "", "draw FILE.svg (and FILE.png if a converter is installed)",
      metavar = "FILE"},
  },
}

--- Returns every compressor, and the most useful variants of svd.
local function all_compressors()
  local list = {}
  for _, c in ipairs(atomo.compressors()) do
    list[#list + 1] = c.name
    if c.name == "svd" then
      for _, more in ipairs {"svd:bits=4", "svd:bits=32", "svd:bits=32,fold=paper"} do list[#list + 1] = more end
    end
  end
  return list
end

local function read_gradients()
  if opts.gradients ~= "" and opts.model ~= "" then error("give one of --gradients and --model", 0) end
  if opts.gradients ~= "" then return opts.gradients, gradients.folder(opts.gradients) end
  if opts.model ~= "" then
    return ("%s after %d steps"):format(opts.model, opts.steps), gradients.model(opts.model, opts.steps, opts.data)
  end
  return "generated ResNet-20 shapes", gradients.made_up()
end

atomo.set_num_threads(opts.threads)
require("atomo.tools.script").load(opts.load)
local specs = {}
for _, text in ipairs(opts.compress) do
  for one in text:gmatch "%S+" do specs[#specs + 1] = one end
end
if #specs == 0 then specs = all_compressors() end

--- Prints the error of the mean over several ranks, one column pair a number of ranks.
local function compare_means()
  if opts.model == "" then error("--ranks takes --model: gradients of several batches", 0) end
  local most = math.max(unpack(opts.ranks))
  local lists, names = gradients.of_ranks(opts.model, opts.steps, opts.data, most)
  print(("%s after %d steps, batches of 64, cosine of two ranks' gradients %.2f; %d draws; relative error of the mean")
    :format(opts.model, opts.steps, compare_ranks.cosine(lists), opts.draws))
  local head, results = ("%-34s"):format "compressor", {}
  for _, ranks in ipairs(opts.ranks) do head = head .. ("  %2d ranks: together apart  gain"):format(ranks) end
  print(head)
  for _, item in ipairs(compare.expand(specs, opts.ratio)) do
    local line = ("%-34s"):format(item.text)
    for _, ranks in ipairs(opts.ranks) do
      local r = compare_ranks.measure(item.text, {unpack(lists, 1, ranks)}, names, opts.draws)
      r.name, r.ranks = item.text, ranks
      results[#results + 1] = r
      line = line .. ("  %10.3g %10.3g %6s"):format(r.together, r.apart, r.together > 0 and
        ("%.2f"):format(r.apart / r.together) or "-")
    end
    print(line)
  end
  return results
end

local function save_json(fields)
  if opts.json == "" then return end
  require("atomo.core.files").save("compare_compressors.lua", opts.json, require("atomo.core.json").encode(fields) ..
    "\n")
  print("written: " .. opts.json)
end

if #opts.ranks > 0 then
  save_json {gradients = opts.model, results = compare_means()}
  return
end

local from, grads, names = read_gradients()
local dense = 0
for _, g in ipairs(grads) do dense = dense + 4 * g:numel() end
print(("%d tensors, %.3f MB of gradient from %s; %d draws, %d thread%s"):format(#grads, dense / 1e6, from, opts.draws,
  opts.threads, opts.threads == 1 and "" or "s"))
print(("%-34s %10s %8s %10s %10s %8s %9s %9s %9s %7s %7s"):format("compressor", "bytes", "ratio", "predicted",
  "measured", "x bound", "x classes", "encode ms", "decode ms", "enc GB/s", "dec GB/s"))

local results = {}
for _, item in ipairs(compare.expand(specs, opts.ratio)) do
  local r = compare.measure(item.text, grads, names, opts.draws)
  r.name, r.asked = item.name, item.ratio
  results[#results + 1] = r
  print(("%-34s %10.0f %7.1fx %10.4g %10.4g %8.3g %9s %9.2f %9.2f %8.2f %8.2f%s"):format(item.text, r.bytes, r.ratio,
    r.predicted, r.measured, r.over_bound, r.over_classes and ("%.3g"):format(r.over_classes) or "-", r.encode_ms,
    r.decode_ms, r.encode_gb_s, r.decode_gb_s, r.unbiased and "" or "  biased"))
end

save_json {gradients = from, tensors = #grads, dense_bytes = dense, threads = opts.threads, results = results}
if opts.plot ~= "" then
  local written = require("atomo.tools.plot").save(opts.plot, compare.chart(results, "Compressors on " .. from))
  print("written: " .. table.concat(written, ", ") ..
    (#written == 1 and " (no PNG: it takes rsvg-convert, Debian's librsvg2-bin, or ImageMagick's convert)" or ""))
end
