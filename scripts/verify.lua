#!/usr/bin/env atomo-lua
--- Proves compressors by test, one's own included: a table of check, figure, bound, pass or fail; exit code 1 where one
-- fails.
local atomo = require "atomo"

local opts = atomo.cli.parse {
  name = "verify.lua",
  about = "Checks that a compressor is what it says: unbiased, of the variance it states, orthonormal atoms, safe " ..
    "to decode. Prints check, figure and bound; exit code 1 where a check fails.",
  examples = {
    "build/atomo-lua scripts/verify.lua --compress svd:ratio=16,bits=4",
    "build/atomo-lua scripts/verify.lua --load scripts/atoms/haar.lua --compress haar_lua:ratio=16",
    "build/atomo-lua scripts/verify.lua",
  },
  options = {
    {"compress", "string", nil, "compressor; none: all there are", repeated = true, metavar = "SPEC"},
    {"load", "string", nil, "Lua file to run first: one's own compressors", repeated = true, metavar = "FILE"},
    {"shape", "list", {24, 3, 3, 8}, "of the gradient", of = "int"},
    {"draws", "int", 1000, "draws that the statistics take", min = 100},
    {"seed", "int", 1, "of gradient and draws", min = 0},
  },
}

for _, file in ipairs(opts.load) do dofile(file) end
local specs = opts.compress
if #specs == 0 then
  for _, c in ipairs(atomo.compressors()) do specs[#specs + 1] = c.name end
end
local failed = 0
for _, spec in ipairs(specs) do
  local report = atomo.verify(spec, {shape = opts.shape, draws = opts.draws, seed = opts.seed})
  print(tostring(report) .. "\n")
  if not report.pass then failed = failed + 1 end
end
if failed > 0 then
  print(("%d of %d compressors failed"):format(failed, #specs))
  os.exit(1)
end
