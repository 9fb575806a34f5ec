--- Repeats forward and backward through a chain of operators until the JIT compiles nothing new. For
-- autograd_speed_spec.lua. Prints one line: traces that start in bindings/atomo/autograd, whether the loop over the
-- calls of an operator is compiled, rounds (60: it has not settled), and all traces.
local atomo = require "atomo"
local jit = require "jit"
local jutil = require "jit.util"

atomo.set_num_threads(1)
local x = atomo.param(atomo.randn(2, 4))
local function chain()
  local y = x
  for _ = 1, 50 do y = atomo.F.relu(y) end
  y:sum():backward()
end

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
print(("compiled %d, loop %s, rounds %d, traces %d"):format(compiled, inlined, rounds, traces))
