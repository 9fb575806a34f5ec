-- `--compress adaptive` on a network of namespaces, with links so slow that dense gradients would take four seconds per
-- step.
-- Skipped where the machine does not allow networks (exit code 77).
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"

describe("auto on netlab", function()
  if spawn.sanitized then return pending "runs in the release build" end
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("sees the slow links, and compresses", function()
    local out, code = spawn.run(("sh %s run 2 5mbit -- %s %s --model lenet --batch 4 --train-images 40 " ..
      "--max-steps 3 --eval-every 0 --threads 1 --compress adaptive"):format(spawn.quote(root .. "scripts/netlab.sh"),
      spawn.quote(spawn.exe), spawn.quote(root .. "scripts/train_cifar.lua")), {timeout = 90})
    if code == 77 then return pending "this machine does not allow networks" end
    assert.equal(0, code, out)
    assert.matches("2 ranks on 2 hosts; link %d+ kB/s", out)
    assert.matches("\n%->  %S*:ratio=", out)
    local kilobytes = tonumber(out:match "2 hosts; link (%d+) kB/s")
    -- 625 kB/s less TCP's share; what a shaper saves up while idle can only be sent once
    assert.is_true(kilobytes > 50 and kilobytes < 1000, out)
  end)
end)
