-- scripts/bench_step.lua as a user runs it: a line a compressor, and the same figures as JSON.
local root = require "support.root"
local spawn = require "support.spawn"
local log = require("atomo").log
local script = spawn.quote(root .. "scripts/bench_step.lua")

describe("bench_step.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("prints and logs a step with and without exchange, and the bare all-reduce", function()
    local base = os.tmpname()
    local out, code = spawn.ranks(2, script .. " --model lenet --batch 4 --steps 2 --compress 'none entry:ratio=8'" ..
      " --json " .. base, {timeout = 60})
    local events = log.read(base)
    os.remove(base)
    assert.equal(0, code, out)
    assert.equal(2, #events)
    for i, setting in ipairs {"none over allreduce", "entry:ratio=8 over allgather"} do
      local e = events[i]
      assert.equal(setting, e.compress .. " over " .. e.topology)
      assert.is_true(e.ranks == 2 and e.batch == 4 and e.steps == 2 and e.checked)
      assert.is_true(e.without_ms > 0 and e.with_ms > 0 and e.allreduce_ms > 0 and e.dense_bytes > 1e5)
      assert.is_true(math.abs(e.adds_percent - 100 * (e.with_ms / (e.without_ms + e.allreduce_ms) - 1)) < 1e-9)
      local line = "lenet batch 4, 2 ranks, %s: step without exchange [%%d.]+ ms"
      assert.matches(line:format((setting:gsub("%p", "%%%0"))), out)
    end
    assert.matches("MPI_Allreduce of [%d.]+ %a+ [%d.]+ ms %([%d.]+%); over both the exchange adds %-?[%d.]+ %%", out)
  end)
end)
