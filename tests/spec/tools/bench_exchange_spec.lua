-- scripts/bench_exchange.lua as a user runs it: a row for each case that can work, the reason for the others, JSON.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local log = require("atomo").log
local script = spawn.quote(root .. "scripts/bench_exchange.lua")

describe("bench_exchange.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("prints and logs every case on two ranks", function()
    local base = os.tmpname()
    local out, code = spawn.ranks(2, script ..
      " --sizes 16K --repeat 2 --compress 'none entry:ratio=8' --json " .. base,
      {timeout = 120})
    assert.equal(0, code, out)
    local events = log.read(base)
    os.remove(base)
    local seen = {}
    for _, e in ipairs(events) do
      seen[e.topology .. " " .. e.compress] = true
      assert.is_true(e.seconds > 0 and e.dense_bytes == 16384 and e.ranks == 2 and e.steps == 2)
      assert.is_true(e.bytes_out > 0 and e.bytes_in > 0)
    end
    for _, topology in ipairs {"allgather", "ps", "sharded", "hierarchical"} do
      assert.is_true(seen[topology .. " none"] and seen[topology .. " entry:ratio=8"], topology)
    end
    assert.is_true(seen["allreduce none"])
    assert.matches("left out: allreduce with entry:ratio=8: .*cannot be added", out)
  end)

  it("continues where it was stopped, draws, leaves out cases that take too long", function()
    local base = os.tmpname()
    local args = (" --sizes 16K,1K --repeat 1 --topology sharded --compress none --plot %s --json %s"):format(base,
      base)
    local out, code = spawn.ranks(2, script .. args)
    assert.equal(0, code, out)
    local events = log.read(base)
    assert.equal(2, #events)
    assert.equal(1024, events[1].dense_bytes)
    events[1].seconds, events[1].link_bytes_per_s = 1000, nil
    os.remove(base)
    local file = log.open(base)
    file:write(events[1])
    file:close()
    out, code = spawn.ranks(2, script .. args)
    assert.equal(0, code, out)
    assert.matches("sharded +none +1.02 kB +16m40s", out)
    assert.matches("left out: sharded with none: 16.4 kB: a step would take about 4h26m", out)
    assert.equal(1, #log.read(base))
    local chart = io.open(base .. ".svg")
    assert.truthy(chart and chart:read "*a":find("sharded, none", 1, true))
    chart:close()
    os.remove(base)
    os.remove(base .. ".svg")
  end)

  it("names a size that it cannot read", function()
    local out, code = spawn.host(script .. " --sizes 4X")
    assert.equal(1, code)
    assert.matches("size '4X', expected e.g. 64K", out)
  end)
end)
