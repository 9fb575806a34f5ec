-- The bytes that the log states, against a second witness: Open MPI's own monitoring of what it sent.
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/../support/?.lua;" .. package.path
local spawn = require "spawn"
local log = require("atomo").log

--- Runs so many steps on `ranks` ranks; returns the bytes that rank 0 logged and those that Open MPI sent for it.
local function measure(ranks, compress, steps)
  local base = os.tmpname()
  local command = ("mpirun --oversubscribe -n %d --mca pml_monitoring_enable 2 --mca pml_monitoring_enable_output 3 " ..
    "--mca pml_monitoring_filename %s %s %s --model lenet --train-images 2000 --batch 20 --epochs 1 --eval-every 0 " ..
    "--lr 0.01 --compress %s --max-steps %d --log %s.jsonl"):format(ranks, base, spawn.quote(spawn.exe),
    here .. "/../../scripts/train_cifar.lua", compress, steps, base)
  local out, code = spawn.run(command, {timeout = 120})
  assert.equal(0, code, out)
  local logged, sent = 0, 0
  for _, event in ipairs((log.read(base .. ".jsonl"))) do
    if event.event == "step" then logged = logged + event.bytes_out end
  end
  for line in assert(io.open(base .. ".0.prof")):lines() do
    local bytes = line:match "^[IE]\t0\t%d+\t(%d+) bytes"
    sent = sent + (tonumber(bytes) or 0)
  end
  os.remove(base)
  os.remove(base .. ".jsonl")
  for r = 0, ranks - 1 do os.remove(("%s.%d.prof"):format(base, r)) end
  return logged, sent
end

describe("bytes a step", function()
  if not spawn.exe then return pending "runs in the host program only" end

  -- Two runs of other lengths: their difference has the steps alone, without what start and end send.
  for _, case in ipairs {{2, "none"}, {2, "entry:ratio=16"}, {2, "svd:ratio=16,bits=8"}, {3, "svd:ratio=16,bits=8"}} do
    it(("agree with Open MPI's within 2 %%: %d ranks, %s"):format(case[1], case[2]), function()
      local logged_10, sent_10 = measure(case[1], case[2], 10)
      local logged_20, sent_20 = measure(case[1], case[2], 20)
      local logged, sent = logged_20 - logged_10, sent_20 - sent_10
      assert.is_true(sent > 0)
      assert.is_true(math.abs(logged / sent - 1) < 0.02,
        ("logged %d, Open MPI sent %d in 10 steps"):format(logged, sent))
    end)
  end
end)
