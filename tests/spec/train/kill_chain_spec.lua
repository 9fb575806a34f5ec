-- A job that is killed at random moments and resumed each time ends bit-identical to one that was not killed; every
-- kill leaves complete checkpoints (tests/kill_series.sh --chain).
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending, true)

spec("kills at random moments, each followed by a resumption, change no bit", function()
  local out, code = spawn.run(("sh %stests/kill_series.sh --chain --kills 3 --ranks 2 --patience %.0f --host %s")
    :format(root, spawn.patience(), spawn.quote(spawn.exe)), {timeout = 90})
  assert.equal(0, code, out)
  assert.matches("resumed: resuming after epoch %d+, step %d+, from; END rank 0 %x+, as without kills", out)
  assert.matches("3 passed, 0 failed", out)
end)
