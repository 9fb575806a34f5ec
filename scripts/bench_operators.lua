--- Times user-defined operators, in plain Lua (atomo.func over t:data()) and compiled from an expression
-- (atomo.elementwise), beside the built-in ones; also counts the built-in operators.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local F = atomo.F

local opts = atomo.cli.parse {
  name = "bench_operators.lua",
  about = "Times elementwise operators written in Lua (atomo.func over t:data()) and compiled from an expression " ..
    "(atomo.elementwise) beside the built-in operators that compute the same, forward and forward + backward, on " ..
    "one thread. They alternate; the smallest time of --repeat runs is printed.",
  examples = {
    "build/atomo-lua scripts/bench_operators.lua",
    "build/atomo-lua scripts/bench_operators.lua --sizes 4096,1048576",
  },
  options = {
    {"sizes", "list", {4096, 65536, 4194304}, "numbers of elements", of = "number"},
    {"repeat", "int", 100, "runs of each operator", min = 1},
  },
}

--- Makes an elementwise operator in plain Lua. value, slope: Lua expressions of v, inserted into its loops.
local function plain_operator(name, value, slope)
  local text = ([[
    local atomo, min, max = require "atomo", math.min, math.max
    return atomo.func {
      name = "%s",
      forward = function(ctx, x)
        x = x:contiguous()
        ctx:save(x)
        local y = atomo.empty_like(x)
        local from, to = x:data(), y:data()
        for i = 0, x:numel() - 1 do
          local v = from[i]
          to[i] = %s
        end
        return y
      end,
      backward = function(ctx, gy)
        local x = ctx:saved()
        local gx = atomo.empty_like(x)
        local from, g, to = x:data(), gy:contiguous():data(), gx:data()
        for i = 0, x:numel() - 1 do
          local v = from[i]
          to[i] = g[i] * (%s)
        end
        return gx
      end,
    }]]):format(name, value, slope)
  return assert(loadstring(text, "=own " .. name))()
end

-- Slopes have no branches: a branch on the sign of random numbers is mispredicted half of the time, at 10 ns each. min
-- and max compile to one instruction.
local function step(v) return ("min(max((%s) * 1e300, 0), 1)"):format(v) end

-- {name, value, slope (for plain Lua), function of built-in operations, expression for atomo.elementwise if different:
-- there is no leaky_relu for symbols}
local operators = {
  {"square", "v * v", "2 * v", function(x) return x:square() end},
  {"clamp", "min(max(v, -1), 1)", step "v + 1" .. " * " .. step "1 - v", function(x) return x:clamp(-1, 1) end},
  {"leaky_relu", "max(v, 0.01 * v)", "0.01 + 0.99 * " .. step "v", F.leaky_relu,
    function(x) return x:maximum(x * 0.01) end},
  {"hard_swish", "v * min(max(v + 3, 0), 6) / 6",
    "(2 * v + 3) / 6 * " .. step "v + 3" .. " * " .. step "3 - v" .. " + " .. step "v - 3",
    function(x) return x * (x + 3):clamp(0, 6) / 6 end},
}

--- Returns the least microseconds of each function; they run in turn.
local function race(fns)
  local best = {}
  for _ = 1, opts["repeat"] do
    for i, fn in ipairs(fns) do
      local start = C.atomo_time()
      atomo.scope(fn)
      best[i] = math.min(best[i] or math.huge, 1e6 * (C.atomo_time() - start))
    end
  end
  return best
end

atomo.set_num_threads(1)
print(atomo.cli.echo(opts))
print(("%-30s %-33s %s"):format("microseconds", "forward", "with backward"))
local heading = "%10s %10s %10s"
print(("%-30s %s  %s"):format("", heading:format("built-in", "Lua", "expression"), heading:format("built-in", "Lua",
  "expression")))
local row = "%-11s %9d elements %10.1f %10.1f %10.1f  %10.1f %10.1f %10.1f"
for _, operator in ipairs(operators) do
  local name, value, slope, built_in, expression = unpack(operator, 1, 5)
  local in_lua, compiled = plain_operator(name, value, slope), atomo.elementwise(name, expression or built_in)
  for _, n in ipairs(opts.sizes) do
    local x, g = atomo.param(atomo.randn(n)), atomo.randn(n)
    local function both(fn)
      return function() fn(x):backward(g) end
    end
    local function forward(fn)
      return function() atomo.no_grad(fn, x) end
    end
    print(row:format(name, n, unpack(race {forward(built_in), forward(in_lua), forward(compiled), both(built_in),
      both(in_lua), both(compiled)})))
  end
end
local names, distinct = atomo.operators(), {}
for _, name in ipairs(names) do distinct[name] = true end
local count = 0
for _ in pairs(distinct) do count = count + 1 end
print(("built-in differentiable operators: %d under %d names, each with a gradcheck " ..
  "(tests/spec/autograd/operators_spec.lua)"):format(#names, count))
