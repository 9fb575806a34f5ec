--- Test units of tests/mutate.lua: a C program, a spec file, or a spec file on N ranks.
local shell = require "support.shell"
local M = {}

local host = "build/atomo-lua test --no-keep-going "

--- Returns all units of the tree at ROOT: {name=, kind=, file=, ranks=, slow=}.
function M.list(root)
  local list = {}
  local function add(kind, ranks, pattern)
    for _, file in ipairs(shell.lines_of(("cd %s && git ls-files '%s'"):format(shell.quote(root), pattern))) do
      local name = file:match "([^/]*)%.%a+$"
      if ranks then name = ("%s on %d"):format(name, ranks) end
      local slow = shell.read(root .. "/" .. file):find("\n%-%- test: slow\n") or ranks == 1 or ranks == 4
      list[#list + 1] = {name = name, kind = kind, file = file, ranks = ranks, slow = slow and true}
    end
  end
  add("program", nil, "tests/c/test_*.c")
  add("spec", nil, "tests/spec/*_spec.lua")
  for _, ranks in ipairs {3, 2, 4, 1} do add("mpi", ranks, "tests/mpi/*_spec.lua") end
  return list
end

--- Returns the command that runs units of one kind (and number of ranks) in one process, up to the first failure.
function M.command(units)
  local files = {}
  for i, unit in ipairs(units) do files[i] = unit.file end
  local first = units[1]
  if first.kind == "program" then
    return "build/tests/" .. first.name
  elseif first.kind == "spec" then
    return host .. table.concat(files, " ")
  end
  return ("sh scripts/mpirun.sh -n %d %s"):format(first.ranks, host .. table.concat(files, " "))
end

-- Units that are likely to detect a fault in a file, if nothing else is known: patterns of files and of unit names, the
-- likeliest and cheapest first.
local between = {"^test_flight", "^message.* on 3", "^collective.* on 3", "^exchange_engine.* on 3",
  "^exchange_matrix.* on 3", "^agree.* on 2", "^desync.* on 2", "on [23]$", "^watchdog", "^leave", "^left_alone"}
local near = {
  {"^runtime/comm/", between}, {"^runtime/watchdog/", between}, {"^runtime/exchange/", between},
  {"^runtime", {"^test_cod", "^test_alloc", "^message_bits", "^spectral", "^atoms", "^codec_input", "^codec_budget",
    "^quantiser", "^decode_sum", "^restart", "^bad_input", "^price", "^codec_message", "^message_length", "^baselines",
    "^budget", "^auto_spec", "^exchange_matrix.* on 3", "^codec", "^feedback", "^group_rate"}},
  {"autograd", {"^autograd_spec", "^operators", "^own_operator", "^saved", "gradient", "^autograd",
    "^training_golden"}},
  {"/exchange", {"^cost", "^choose", "^exchange_spec on 3", "^exchange_matrix.* on 3", "^exchange_topology.* on 4",
    "^join.* on 3", "^exchange.* on [23]$", "^auto", "^simulate", "^bytes"}},
  {"/compress", {"^codec_input", "^options", "^codec_message", "^exchange_matrix.* on 3", "^baselines", "^custom",
    "^codec", "^verify"}},
  {"/optim", {"^sharded.* on [23]$", "^optim", "^group_rate", "^state_values"}},
  {"train", {"^skipped_step.* on 2", "^local_steps.* on 2", "^counted.* on 2", "^group_rate", "^freeze", "^train",
    "checkpoint"}},
}

--- Returns the rank of a unit among those whose names suggest that they test this file, or nil.
function M.near(file, unit)
  for _, room in ipairs(near) do
    if file:find(room[1]) then
      for i, pattern in ipairs(room[2]) do
        if unit.name:find(pattern) then return i end
      end
      return nil
    end
  end
end

--- Units whose coverage cannot be measured, because they make allocations fail, gcov's included.
M.blind = {test_alloc_failure = "^runtime/"}

return M
