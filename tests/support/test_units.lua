--- Test units: what tests/mutate.lua runs and stops singly. One is a C program, a spec file, or a spec file on N ranks.
local shell = dofile(debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" .. "/shell.lua")
local M = {}

local host = "build/atomo-lua test --no-keep-going "

--- All units of the tree at ROOT: {name=, kind=, file=, ranks=}.
function M.list(root)
  local list = {}
  local function add(kind, ranks, pattern)
    for _, file in ipairs(shell.lines_of(("cd %s && git ls-files '%s'"):format(shell.quote(root), pattern))) do
      local name = file:match "([^/]*)%.%a+$"
      if ranks then name = ("%s on %d"):format(name, ranks) end
      list[#list + 1] = {name = name, kind = kind, file = file, ranks = ranks}
    end
  end
  add("program", nil, "tests/c/test_*.c")
  add("spec", nil, "tests/spec/*_spec.lua")
  for _, ranks in ipairs {3, 2, 4, 1} do add("mpi", ranks, "tests/mpi/*_spec.lua") end
  return list
end

--- The command that runs units of one kind (and one number of ranks) in one process, up to the first failure.
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

-- The units likeliest to notice a fault in a file, before anything is known: patterns of files and of units' names.
local codecs = {"^test_coding", "^test_alloc", "^codec", "^atoms", "^budget", "^peers", "^quantiser", "^decode_sum",
  "^price", "^feedback", "^group_rate", "^exchange_matrix.*3"}
local near = {
  {"^runtime/comm", {"^test_flight", "on [234]$", "^leave", "^watchdog", "^left_alone"}},
  {"^runtime", codecs},
  {"autograd", {"^autograd", "^own_operator", "^operators", "^training_golden", "gradient", "^saved"}},
  {"/exchange", {"^exchange.* on [23]$", "^bytes", "^auto", "^choose", "^cost", "^simulate", "^exchange_topology.*4"}},
  {"/compress", {"^codec", "^custom", "^peers", "^verify", "^options", "^exchange_matrix.*3"}},
  {"train", {"^train", "checkpoint", "^local_steps", "^group_rate", "^freeze", "^skipped_step"}},
}

--- Whether a unit's name suggests that it tests this file.
function M.near(file, unit)
  for _, room in ipairs(near) do
    if file:find(room[1]) then
      for _, pattern in ipairs(room[2]) do
        if unit.name:find(pattern) then return true end
      end
      return false
    end
  end
  return false
end

--- Units whose coverage cannot be measured: what lets allocations fail lets gcov's fail too.
M.blind = {test_alloc_failure = "^runtime/"}

return M
