--- mutate.lua - do the tests notice? Plants one-line faults (tests/support/mutants.lua), one after the other, in a copy
-- of the tree, and runs the tests until one fails: those of the mutant's own room first, then all others. A mutant that
-- no test notices survives: a hole in the tests, or a line that does not matter.
--   build/atomo-lua tests/mutate.lua --seed 1 --count 200 --jobs 2
-- A fault that does not compile, or compiles to the same program, is not counted: the next one takes its place. What
-- was judged stays judged: the same command goes on where it was stopped, as long as the tree is the same.
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local mutants = dofile(here .. "/support/mutants.lua")
local clock = require "atomo.ffi".C.atomo_time

local usage = [[
usage: atomo-lua tests/mutate.lua [--seed N] [--count N] [--jobs N] [--dir DIR] [--only TEXT] [--quick] [--list]
  --seed N     which faults are planted (1)          --count N    how many are judged (200)
  --jobs N     mutants judged side by side (1)       --dir DIR    copies of the tree and verdicts (build/mutate)
  --only TEXT  files whose name holds TEXT           --quick      the tests of the mutant's own room only
  --list       shows the faults, and plants none
]]

local opts = {seed = 1, count = 200, jobs = 1, dir = "build/mutate", only = "", worker = false}
do
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(%a+)$"
    if name == "quick" or name == "list" then
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
  "runtime/comm", "runtime/watchdog", "runtime/exchange", "bindings/atomo/autograd/init.lua", "bindings/atomo/exchange",
  "bindings/atomo/compress", "bindings/atomo/train/init.lua"}

local host = "build/atomo-lua"
local function specs(pattern) return ("%s test --pattern='%s' tests/spec"):format(host, pattern) end
local function mpi(ranks, pattern)
  return ("sh scripts/mpirun.sh -n %d %s test --pattern='%s' tests/mpi"):format(ranks, host, pattern)
end
local function programs(pattern)
  return ("sh -c 'for t in build/tests/test_%s; do $t || exit 1; done'"):format(pattern)
end

local codecs = {programs "coding", specs "^codec.*_spec", specs "^atoms_spec", specs "^budget_spec",
  specs "^peers.*_spec", specs "^quantiser_spec", specs "^decode_sum_spec", mpi(3, "exchange_matrix_spec")}
local exchanges = {mpi(3, "exchange.*_spec"), mpi(2, "exchange.*_spec"), mpi(4, "exchange_topology_spec"),
  specs "^bytes_spec", specs "^auto_spec", specs "^choose_spec", specs "^cost_spec"}
local between = {programs "flight", mpi(3, "_spec"), mpi(2, "_spec"), specs "^leave_spec", specs "^watchdog"}
local own = {
  {"^runtime/comm/", between},
  {"^runtime/watchdog/", between},
  {"^runtime/exchange/", between},
  {"^runtime", codecs},
  {"autograd", {specs "^autograd_spec", specs "^own_operator_spec", specs "^operators_spec", specs "^training_golden"}},
  {"/exchange", exchanges},
  {"/compress", {specs "^codec.*_spec", specs "^custom_spec", specs "^peers.*_spec", specs "^verify_spec",
    mpi(3, "exchange_matrix_spec")}},
  {"train", {specs "^train.*_spec", mpi(2, "checkpoint_spec"), mpi(3, "local_steps_spec"), specs "^checkpoint"}},
}
local everything = {programs "*", specs "_spec", mpi(1, "_spec"), mpi(2, "_spec"), mpi(3, "_spec"), mpi(4, "_spec")}

--- The commands that judge a mutant in this file, the likeliest to notice first.
local function stages_of(file)
  local list = {}
  for _, room in ipairs(own) do
    if file:find(room[1]) then
      list = {unpack(room[2])}
      break
    end
  end
  for _, stage in ipairs(opts.quick and {} or everything) do list[#list + 1] = stage end
  return list
end

-- ---- files and processes ------------------------------------------------------------------------------------------

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

--- Runs a command in a folder under a time limit: whether it ended well, and its seconds. Its output goes to LOG.
local function run(folder, command, limit, log)
  local from = clock()
  local status = os.execute(("cd %s && ulimit -v 25165824 && timeout -k 10 %.0f %s > %s 2>&1 < /dev/null"):format(
    quote(folder), limit, command, quote(log or "/dev/null")))
  return status == 0, clock() - from
end

local function lines_of(command)
  local pipe, list = io.popen(command), {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

-- ---- the mutants, and the copy of the tree that they are planted in -----------------------------------------------

local root = lines_of(("cd %s/.. && pwd"):format(quote(here)))[1]
local dir = opts.dir:find "^/" and opts.dir or root .. "/" .. opts.dir

local function all_mutants()
  local list = {}
  for _, file in ipairs(lines_of(("cd %s && git ls-files %s"):format(quote(root), table.concat(rooms, " ")))) do
    if file:find "%.c$" or file:find "%.lua$" then
      if file:find(opts.only, 1, true) then
        for _, m in ipairs(mutants.of(file, read(root .. "/" .. file))) do list[#list + 1] = m end
      end
    end
  end
  return mutants.shuffle(list, opts.seed)
end

local function build(tree)
  return (run(tree, "cmake --build build -j 2", 900, tree .. "/build.log"))
end

--- A copy of the tree as it is, built.
local function make_copy(tree)
  local to = quote(tree)
  local copied = os.execute(("rm -rf %s; mkdir -p %s && cd %s && git ls-files -z | xargs -0 cp --parents -t %s"):format(
    to, to, quote(root), to))
  assert(copied == 0, "mutate: the tree cannot be copied to " .. tree)
  assert(run(tree, "cmake --preset release", 120, tree .. "/build.log") and build(tree),
    "mutate: the copy cannot be built, see " .. tree .. "/build.log")
end

local function program_of(tree)
  return (read(tree .. "/build/libatomo.so") or "") .. (read(tree .. "/build/atomo-lua") or "")
end

-- ---- judging ------------------------------------------------------------------------------------------------------

--- Seconds that each command takes on the tree as it is, which must pass; measured once a copy.
local baseline = {}
local function limit_of(tree, stage)
  if not baseline[stage] then
    local passed, seconds = run(tree, stage, 3600, tree .. "/baseline.log")
    if not passed then
      error(("mutate: without a fault, '%s' fails already, see %s/baseline.log"):format(stage, tree), 0)
    end
    baseline[stage] = seconds
  end
  return 60 + 5 * baseline[stage]
end

--- "killed", "survived", "refused" (by the compiler) or "same" (as without the fault), and by what.
local function judge(tree, m, pristine)
  local path, text = tree .. "/" .. m.file, read(root .. "/" .. m.file)
  for _, stage in ipairs(stages_of(m.file)) do limit_of(tree, stage) end
  write(path, mutants.plant(text, m))
  local verdict, by = "survived", ""
  if m.file:find "%.c$" and not build(tree) then
    verdict = "refused"
  elseif m.file:find "%.lua$" and not loadfile(path) then
    verdict = "refused"
  elseif m.file:find "%.c$" and program_of(tree) == pristine then
    verdict = "same"
  else
    for _, stage in ipairs(stages_of(m.file)) do
      if not run(tree, stage, limit_of(tree, stage), tree .. "/test.log") then
        verdict, by = "killed", stage
        break
      end
    end
  end
  write(path, text)
  if m.file:find "%.c$" then assert(build(tree), "mutate: the copy does not build without the fault any more") end
  return verdict, by
end

local function verdict_path(k) return ("%s/verdicts/%05d"):format(dir, k) end

local function verdict(k)
  local text = read(verdict_path(k))
  return text and text:match "^%a+", text
end

--- Judges the first mutant that nobody has judged or claimed, until enough before it are counted.
local function work(list, tree)
  make_copy(tree)
  local pristine, counted = program_of(tree), 0
  for k, m in ipairs(list) do
    if counted >= opts.count then return end
    if not verdict(k) and os.execute(("mkdir %s.claim 2> /dev/null"):format(quote(verdict_path(k)))) == 0 then
      local from = clock()
      local said, by = judge(tree, m, pristine)
      write(verdict_path(k), ("%s\t%s:%d\t%s\t%.0f s\t%s\n- %s\n+ %s\n"):format(said, m.file, m.line, m.kind,
        clock() - from, by, m.before, m.after))
      print(("%05d %s"):format(k, verdict_path(k) and read(verdict_path(k)):match "[^\n]*"))
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

--- The verdicts in DIR are of this tree, these options; others are not mixed with them.
local function same_tree()
  local what = table.concat({opts.seed, opts.only, tostring(opts.quick), (lines_of(("cd %s && git ls-files -z | " ..
    "xargs -0 cat | cksum"):format(quote(root)))[1])}, " ") .. "\n"
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
elseif opts.worker then
  work(list, dir .. "/tree-" .. opts.worker)
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
