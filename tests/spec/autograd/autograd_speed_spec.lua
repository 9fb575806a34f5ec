-- The JIT compiles the tape: traces start in bindings/atomo/autograd, and after some rounds nothing new is compiled.
-- (scripts/bench_nn.lua prints the microseconds per operator; no time is measured here.) It runs in a process of its
-- own: LuaJIT gives up for good loops and functions that could not be compiled some times, jit.flush does not forgive
-- them, and the specs that ran before decide which of the tape's these are.
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

describe("autograd under the JIT", function()
  spec("compiles, and settles", function()
    local out, code = spawn.host {root .. "tests/support/tape_traces_job.lua"}
    assert.equal(0, code, out)
    local compiled, loop, rounds = out:match "compiled (%d+), loop (%a+), rounds (%d+), traces %d+"
    assert.is_true(tonumber(compiled) > 0, "no trace starts in atomo/autograd: " .. out)
    assert.equal("true", loop, "the loop over an operator's calls is not compiled: " .. out)
    assert.is_true(tonumber(rounds) < 60, "still compiling: " .. out)
  end)
end)
