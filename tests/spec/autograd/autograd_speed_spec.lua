-- The JIT compiles the tape: traces start in bindings/atomo/autograd, and after some rounds nothing new is compiled.
-- (scripts/bench_nn.lua prints the microseconds per operator; no time is measured here.)
local atomo = require "atomo"
local jit = require "jit"
local jutil = require "jit.util"

describe("autograd under the JIT", function()
  it("compiles, and settles", function()
    local threads = atomo.num_threads()
    atomo.set_num_threads(1)
    local x = atomo.param(atomo.randn(2, 4))
    local function chain()
      local y = x
      for _ = 1, 50 do y = atomo.F.relu(y) end
      y:sum():backward()
    end
    -- The specs that ran before may have filled the trace cache; what is compiled here would then be thrown away.
    jit.flush()
    local compiled, traces, at, loop, inlined = 0, 0, "", false, false
    local function see(what, _, fn, _, other_trace)
      if what == "start" then at, loop = jutil.funcinfo(fn).source or "", fn == chain and not other_trace end
      if what == "stop" then
        traces = traces + 1
        if at:find("atomo/autograd/", 1, true) then compiled = compiled + 1 end
        inlined = inlined or loop
      end
    end
    jit.attach(see, "trace")
    -- When a side exit gets hot is partly chance: settling takes a varying number of rounds, but a quiet one must come.
    local rounds, before = 0, -1
    while traces ~= before and rounds < 60 do
      rounds, before = rounds + 1, traces
      for _ = 1, 100 do atomo.scope(chain) end
    end
    jit.attach(see)
    atomo.set_num_threads(threads)
    assert.is_true(compiled > 0, "no trace starts in atomo/autograd")
    assert.is_true(inlined, "the loop over an operator's calls is not compiled")
    assert.is_true(rounds < 60, ("still compiling after %d rounds, %d traces"):format(rounds, traces))
  end)
end)
