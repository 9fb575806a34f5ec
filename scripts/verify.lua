#!/usr/bin/env atomo-lua
--- Checks compressors, also user-defined ones (atomo.verify); prints a table of check, figure, bound, pass or fail.
-- Exit code 1 if one fails.
local atomo = require "atomo"

local opts = atomo.cli.parse {
  name = "verify.lua",
  about = "Checks the promises of a compressor: unbiased, the variance that it states, orthonormal atoms, safe " ..
    "decoding. Prints each check with its figure and bound. Exit code 1 if a check fails.",
  examples = {
    "build/atomo-lua scripts/verify.lua --compress svd:ratio=16,bits=4",
    "build/atomo-lua scripts/verify.lua --load scripts/atoms/haar.lua --compress haar_lua:ratio=16",
    "build/atomo-lua scripts/verify.lua",
  },
  options = {
    {"compress", "string", nil, "compressor; if absent: every built-in one", repeated = true, metavar = "SPEC"},
    {"load", "string", nil, "Lua file that declares compressors; runs first", repeated = true, metavar = "FILE"},
    {"shape", "list", {24, 3, 3, 8}, "shape of the gradient", of = "int"},
    {"draws", "int", 1000, "random draws behind each statistical check", min = 100},
    {"seed", "int", 1, "seed of gradient and draws", min = 0},
  },
}

require("atomo.tools.script").load(opts.load)
local specs = opts.compress
if #specs == 0 then
  for _, c in ipairs(atomo.compressors()) do specs[#specs + 1] = c.name end
end
local failed, first = 0, atomo.mpi.world.rank == 0

--- Prints the table's title or a row on rank 0, as soon as it is known.
local function on_row(report, row)
  if not first then return end
  print(row and report:line(row) or report:title())
  io.stdout:flush()
end

for _, spec in ipairs(specs) do
  local report = atomo.verify(spec, {shape = opts.shape, draws = opts.draws, seed = opts.seed, on_row = on_row})
  if first then
    print(report:verdict() .. "\n")
  elseif not report.pass then
    print(("rank %d: %s:%s"):format(atomo.mpi.world.rank, spec, report:verdict()))
  end
  if not report.pass then failed = failed + 1 end
end
if failed > 0 then
  print(("%d of %d compressors failed"):format(failed, #specs))
  os.exit(1)
end
