--- mutate.lua - mutation testing: plants one-line faults (tests/support/mutants.lua), one at a time, in a copy of the
-- tree, and runs test units (tests/support/test_units.lua) until one fails. A mutant that no test detects survives: a
-- test is missing, or the line does not matter.
--   build/atomo-lua tests/mutate.lua --cover                        which lines each unit runs (once a tree)
--   build/atomo-lua tests/mutate.lua --seed 1 --count 200 --jobs 2
-- With coverage, only the units that run a mutant's line are tried, the likeliest and cheapest first: those that killed
-- other mutants of its file. A mutant in a line that no unit runs survives at once. Units whose coverage has not been
-- measured yet are tried last.
-- A fault that does not compile, or compiles to the same program, is not counted and is replaced by the next one.
-- Verdicts are kept: the same command resumes where it was stopped, unless the tree has changed.
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/?.lua;" .. package.path
local mutants = require "support.mutants"
local shell = require "support.shell"
local test_units = require "support.test_units"
local line_coverage = require "support.line_coverage"
local unit_order = require "support.unit_order"
local clock = require "atomo.ffi".C.atomo_time
local quote, read, write, run, lines_of = shell.quote, shell.read, shell.write, shell.run, shell.lines_of

local usage = [[
usage: atomo-lua tests/mutate.lua [--cover] [--seed N] [--count N] [--jobs N] [--dir DIR] [--only TEXT] [--budget N]
                                  [--list] [--report]
  --cover      measures which lines each test unit runs, and plants nothing
  --seed N     which faults are planted (1)          --count N    how many are judged (200)
  --jobs N     mutants judged side by side (1)       --dir DIR    copies of the tree and verdicts (build/mutate)
  --only TEXT  files whose name contains TEXT        --budget N   seconds of tests per mutant (no limit); a mutant that
  --list       shows the faults, and plants none                  survives is judged again under a larger budget
  --report     shows the verdicts so far
]]

local opts = {seed = 1, count = 200, jobs = 1, dir = "build/mutate", only = "", budget = math.huge, worker = false}
do
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(%a+)$"
    if name == "cover" or name == "list" or name == "report" then
      opts[name] = true
    elseif name and opts[name] ~= nil and arg[i + 1] then
      i = i + 1
      opts[name] = type(opts[name]) == "number" and assert(tonumber(arg[i]), usage) or arg[i]
    else
      io.stderr:write(usage)
      os.exit(arg[i] == "--help" and 0 or 2)
    end
    i = i + 1
  end
end

local rooms = {"runtime/sampling", "runtime/coding", "runtime/codec", "runtime/atoms", "runtime/compress",
  "runtime/comm", "runtime/watchdog", "runtime/exchange", "bindings/atomo/autograd", "bindings/atomo/exchange",
  "bindings/atomo/compress", "bindings/atomo/train"}
local root = lines_of(("cd %s/.. && pwd"):format(quote(here)))[1]
local dir = opts.dir:find "^/" and opts.dir or root .. "/" .. opts.dir

-- ---- the mutants, and the copy of the tree that they are planted in -----------------------------------------------

local function files()
  local list = {}
  for _, file in ipairs(lines_of(("cd %s && git ls-files %s"):format(quote(root), table.concat(rooms, " ")))) do
    if file:find "%.c$" or file:find "%.lua$" then list[#list + 1] = file end
  end
  return list
end

local function all_mutants()
  local list = {}
  for _, file in ipairs(files()) do
    if file:find(opts.only, 1, true) then
      for _, m in ipairs(mutants.of(file, read(root .. "/" .. file))) do list[#list + 1] = m end
    end
  end
  return mutants.shuffle(list, opts.seed)
end

--- Builds a copy, or one target of it. Paths are the same for ccache in every copy.
local function build(tree, target)
  return (run(tree, ("env CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=%s cmake --build build -j 2 --target %s"):format(
    quote(tree), target or "all"), 900, tree .. "/build.log"))
end

--- Makes a copy of the tree, changes it by `prepare` and builds it, by Ninja if available, which finds changes in a
-- tenth of make's time. An existing copy is only updated.
local function make_copy(tree, prepare)
  local copied = os.execute(("mkdir -p %s && cd %s && git ls-files -z | xargs -0 sh -c 'for file; do " ..
    "cmp -s \"$file\" \"$0/$file\" || cp --parents -t \"$0\" \"$file\" || exit 1; done' %s"):format(
    quote(tree), quote(root), quote(tree)))
  assert(copied == 0, "mutate: the tree cannot be copied to " .. tree)
  if prepare then prepare(tree, rooms, files()) end
  local generator = os.execute "ninja --version > /dev/null 2>&1" == 0 and " -G Ninja" or ""
  assert(run(tree, "cmake --preset release -DATOMO_WERROR=ON" .. generator, 120, tree .. "/build.log") and build(tree),
    "mutate: the copy cannot be built, see " .. tree .. "/build.log")
end

local function program_of(tree)
  return (read(tree .. "/build/libatomo.so") or "") .. (read(tree .. "/build/atomo-lua") or "")
end

-- ---- coverage -----------------------------------------------------------------------------------------------------

local function coverage_path(unit) return ("%s/coverage/%s"):format(dir, unit.name:gsub(" ", "_")) end

--- Measures every unit that has not been measured: fast ones first, and among these the likeliest for some file.
local function cover()
  local tree, all, classes, near = dir .. "/tree-cover", files(), {{}, {}, {}, {}}, {}
  for _, unit in ipairs(test_units.list(root)) do
    local suits = false
    for _, file in ipairs(all) do suits = suits or test_units.near(file, unit) end
    table.insert(classes[(suits and 1 or 2) + (unit.slow and 2 or 0)], unit)
  end
  for _, class in ipairs(classes) do
    for _, unit in ipairs(class) do near[#near + 1] = unit end
  end
  make_copy(tree, line_coverage.prepare)
  local code = {}
  for line in pairs(line_coverage.code_lines(tree)) do code[#code + 1] = line end
  write(dir .. "/code", table.concat(code, "\n") .. "\n")
  for _, unit in ipairs(near) do
    if not read(coverage_path(unit)) then
      line_coverage.measure(tree, unit, coverage_path(unit))
      print(unit.name, read(coverage_path(unit)):match "[^\n]*")
    end
  end
end

-- ---- judging ------------------------------------------------------------------------------------------------------

--- Returns the time limit of a run whose units take `seconds` on an idle machine.
local function limit_of(seconds) return 30 + 4 * seconds end

--- Runs units in the copy; returns whether they pass, the place of the first failure, its unit, whether time ran out.
local function passes(tree, units, seconds)
  local log = tree .. "/test.log"
  if units[1].kind == "program" then build(tree, units[1].name) end
  local passed, _, slow = run(tree, test_units.command(units), limit_of(seconds), log)
  if passed then return true end
  local place = (read(log) or ""):match "%((tests/[%w_/]*%.lua:%d+)%)"
  for _, unit in ipairs(units) do
    if place and place:find(unit.file, 1, true) == 1 then return false, place, unit, slow end
  end
  return false, units[#units].name, units[#units], slow
end

--- Runs the units of a mutant that is planted and built; returns "killed" or "survived", by what, the unit, and whether
-- time ran out.
local function meet(tree, m, order)
  local batches, tried, all = order:batches(m, opts.budget)
  for _, batch in ipairs(batches) do
    local passed, place, unit, slow = passes(tree, batch.units, batch.seconds)
    if not passed then return "killed", slow and "time limit: " .. unit.name or place, unit, slow end
  end
  return "survived", ("%d of %d units"):format(tried, all)
end

--- Judges a mutant; returns "killed", "survived", "refused" (by the compiler) or "same" (program as without it); by
--- what.
local function judge(tree, m, pristine, order)
  local path, text = tree .. "/" .. m.file, read(root .. "/" .. m.file)
  if select(3, order:batches(m, opts.budget)) == 0 then return "survived", "not executed" end
  local verdict, by, unit, slow
  repeat
    write(path, mutants.plant(text, m))
    if m.file:find "%.c$" and not build(tree, "atomo-lua") or m.file:find "%.lua$" and not loadfile(path) then
      verdict, by, unit = "refused", "", nil
    elseif m.file:find "%.c$" and program_of(tree) == pristine or m.file:find "%.lua$" and
      string.dump(loadfile(path), true) == string.dump(loadfile(root .. "/" .. m.file), true) then
      verdict, by, unit = "same", "", nil
    else
      verdict, by, unit, slow = meet(tree, m, order)
    end
    write(path, text) -- the next build makes the program without the fault again
  until not unit or order:is_sound(unit, slow)
  return verdict, by
end

local function verdict_path(k) return ("%s/verdicts/%05d"):format(dir, k) end

local function verdict(k)
  local text = read(verdict_path(k))
  return text and text:match "^%a+", text
end

--- Is a verdict final? A mutant that survived only some of its units is judged again under a larger budget.
local function settled(k)
  local said, text = verdict(k)
  local budget = text and tonumber(text:match "budget (%S+)")
  return said and (said ~= "survived" or not budget or budget >= opts.budget)
end

--- Judges the mutants that no worker has judged or claimed, in order, until enough are counted.
local function work(list, tree)
  make_copy(tree)
  local order = unit_order.new(root, dir, function(units, seconds)
    return build(tree, "atomo-lua") and (passes(tree, units, seconds))
  end)
  local pristine, counted = program_of(tree), 0
  for k, m in ipairs(list) do
    if counted >= opts.count then return end
    if not settled(k) and os.execute(("mkdir %s.claim 2> /dev/null"):format(quote(verdict_path(k)))) == 0 then
      local from = clock()
      order:refresh()
      local said, by = judge(tree, m, pristine, order)
      local partly = said == "survived" and opts.budget < math.huge and (", budget %g"):format(opts.budget) or ""
      write(verdict_path(k), ("%s\t%s:%d\t%s\t%.0f s\t%s%s\n- %s\n+ %s\n"):format(said, m.file, m.line, m.kind,
        clock() - from, by, partly, m.before, m.after))
      print(("%05d %s"):format(k, read(verdict_path(k)):match "[^\n]*"))
    end
    local said = verdict(k)
    if said == "killed" or said == "survived" then counted = counted + 1 end
  end
end

local function report(list)
  local count, survivors = {killed = 0, survived = 0, refused = 0, same = 0}, {}
  for k = 1, #list do
    local said, text = verdict(k)
    if said and count.killed + count.survived < opts.count then
      count[said] = count[said] + 1
      if said == "survived" then survivors[#survivors + 1] = text end
    end
  end
  for _, text in ipairs(survivors) do io.write(text) end
  print(("%d killed, %d survived (seed %d; %d more do not compile, %d compile to the same program)"):format(
    count.killed, count.survived, opts.seed, count.refused, count.same))
end

--- Are the verdicts in DIR of this tree and these options?
local function same_tree()
  local what = (lines_of(("cd %s && git ls-files -z | xargs -0 cat | cksum"):format(quote(root)))[1])
  what = table.concat({opts.seed, opts.only, what}, " ") .. "\n"
  local had = read(dir .. "/tree")
  if had and had ~= what then
    io.stderr:write(("mutate: %s holds verdicts of another tree, seed or choice: remove it, or name another --dir\n")
      :format(dir))
    os.exit(2)
  end
  write(dir .. "/tree", what)
end

io.stdout:setvbuf "line"
local list = all_mutants()
if opts.list then
  for k = 1, math.min(opts.count, #list) do
    local m = list[k]
    print(("%s:%d\t%s\n- %s\n+ %s"):format(m.file, m.line, m.kind, m.before, m.after))
  end
elseif opts.report then
  report(list)
elseif opts.worker then
  work(list, dir .. "/tree-" .. opts.worker)
elseif opts.cover then
  os.execute(("mkdir -p %s/coverage"):format(quote(dir)))
  same_tree()
  cover()
else
  os.execute(("mkdir -p %s/verdicts && rm -rf %s/verdicts/*.claim"):format(quote(dir), quote(dir)))
  same_tree()
  local command = {}
  for j = 1, opts.jobs do
    local again = {quote(root .. "/build/atomo-lua"), quote(here .. "/mutate.lua"), "--worker", j}
    for i = 1, #arg do again[#again + 1] = quote(arg[i]) end
    command[j] = ("TMPDIR=$(mktemp -d) %s & "):format(table.concat(again, " "))
  end
  os.execute(table.concat(command) .. "wait")
  report(list)
end
