-- The watchdog: a rank that keeps the others waiting is named, every rank that answers writes its flight recorder, and
-- the job ends; and cases in which it must not end. Here are faults that need a separate job: a killed rank, another
-- script, a rank that ends early. (Other disagreements between ranks are in tests/mpi/comm/desync_spec.lua.)
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local json = require "atomo.core.json"

local spec = spawn.specs(it, pending, true)

local function has(text, want)
  assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text))
end

local function has_not(text, unwanted)
  assert(not text:find(unwanted, 1, true), ("expected no %q in:\n%s"):format(unwanted, text))
end

--- Runs steps of an exchange on every rank; the last rank runs `fault` in step 5. The watchdog's limits apply from step
--- 4 on, when all ranks have started.
local job = [[
  local atomo = require "atomo"
  local ffi, C, world = require "ffi", require("atomo.ffi").C, atomo.mpi.world
  ffi.cdef "int getpid(void); int kill(int, int); int usleep(unsigned);"
  local folder = ...
  local ex = atomo.exchange {}
  local g = atomo.ones(40, 40)
  for step = 1, 10 do
    C.atomo_note_step(step)
    if step == 4 then ex = atomo.exchange {%s, flight_prefix = folder .. "/flight"} end
    if step == 5 and world.rank == world.size - 1 then
      local file = io.open(folder .. "/pid", "w")
      file:write(tostring(ffi.C.getpid()))
      file:close()
      %s
    end
    ex:push(1, g)
    ex:finish()
  end
  if world.rank == 0 then print(("sum %%.17g"):format(g:sum():item())) end]]

local stop_self = "ffi.C.kill(ffi.C.getpid(), 19)" -- SIGSTOP

--- Returns the limits in seconds, multiplied by the machine's present slowdown.
local function limits(warn, abort)
  local slow = spawn.slowdown()
  return ("stall_warn = %g, stall_abort = %g"):format(slow * warn, slow * abort)
end

--- Runs the job; returns output, exit code, pid of the faulty rank, and the folder with its files (to be removed).
-- wake: a text in the job's output, after which a stopped rank is continued.
local function run(ranks, options, fault, wake)
  local path, remove = spawn.file(job:format(options, fault))
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. folder)
  local command = ("mpirun --oversubscribe -n %d %s %s %s"):format(ranks, spawn.quote(spawn.exe), path, folder)
  if wake then
    -- Again and again, until the job ends: the first time may come before the rank has stopped.
    command = "sh -c " .. spawn.quote((("(until grep -q '%s' DIR/out; do sleep 0.1; done; " ..
      "while kill -CONT $(cat DIR/pid); do sleep 0.1; done) > /dev/null 2>&1 & " ..
      "%s > DIR/out 2>&1; code=$?; cat DIR/out; exit $code"):format(wake, command):gsub("DIR", folder)))
  end
  local out, code = spawn.run(command, {timeout = 40})
  remove()
  local file = io.open(folder .. "/pid")
  local pid = file and file:read "*n"
  if file then file:close() end
  return out, code, pid, folder
end

local function remove_folder(folder) os.execute("rm -rf " .. folder) end

local function is_alive(pid)
  local stat = io.popen(("ps -o stat= -p %d"):format(pid)):read "*a"
  return stat ~= "" and not stat:find "^Z"
end

--- Returns the decoded lines of a flight recorder.
local function flight(folder, rank)
  local lines = {}
  for line in io.lines(("%s/flight-rank%d.jsonl"):format(folder, rank)) do lines[#lines + 1] = json.decode(line) end
  return lines
end

describe("a rank that is stopped", function()
  for _, ranks in ipairs {2, 4} do
    spec(("is named, of %d; the others leave their flight recorders, and the job ends"):format(ranks), function()
      local out, code, pid, folder = run(ranks, limits(0.4, 1), stop_self)
      assert.equal(75, code)
      has(out, ("rank %d (pid %d on "):format(ranks - 1, pid))
      has(out, "gives no sign of life: stopped")
      has(out, "rank 0 of " .. ranks)
      has(out, "step 5: stopped by the watchdog")
      has_not(out, "rank 1 of 4 on") -- only one rank reports
      assert.is_true(spawn.await(function() return not is_alive(pid) end)) -- mpirun kills it after its own end
      for rank = 0, ranks - 2 do
        local lines = flight(folder, rank)
        local first, last = lines[1], lines[#lines]
        assert.equal(rank, first.rank)
        assert.equal(5, first.step)
        assert.equal(first.operations, last.sequence)
        assert.equal("allreduce", last.operation)
        assert.equal("bucket 1 of 1", last["for"])
        assert.equal(6400, last.bytes)
        assert.is_true(last["end"] == nil or last["end"] == json.null)
        assert.is_true(type(lines[#lines - 1]["end"]) == "number")
        assert.is_true(lines[#lines - 1].begin <= last.begin)
      end
      remove_folder(folder)
    end)
  end

  spec("and then continues causes only a warning; the result is the same", function()
    local plain, code, _, folder = run(3, "stall_warn = 20, stall_abort = 30", "")
    assert.equal(0, code)
    has_not(plain, "no progress")
    remove_folder(folder)
    local out, pid
    out, code, pid, folder = run(3, "stall_warn = 0.3, stall_abort = 600", stop_self, "rank 2 (pid [0-9]")
    remove_folder(folder)
    assert.equal(0, code)
    has(out, ("rank 2 (pid %d on "):format(pid))
    has(out, "continues after ")
    assert.equal(plain:match "sum %S+", out:match "sum %S+")
    has_not(out, "stopped by the watchdog")
  end)
end)

describe("a rank that is busy", function()
  spec("is named with its last operation", function()
    local out, code, _, folder = run(2, limits(0.4, 1), "while true do end")
    remove_folder(folder)
    assert.equal(75, code)
    has(out, "is in its script for ")
    has(out, ", after allreduce #")
    has(out, "step 5")
  end)

  spec("is waited for in silence where the watchdog is off", function()
    local out, code, _, folder = run(2, "stall_warn = 0, stall_abort = 0", "ffi.C.usleep(1000000)")
    remove_folder(folder)
    assert.equal(0, code)
    assert.matches("^sum %S+%s*$", out)
  end)
end)

describe("a rank that calls another operation", function()
  --- Asserts that the job fails in time, with these texts.
  local function fails(fault, ...)
    local out, code, _, folder = run(3, "stall_warn = 20, stall_abort = 30", fault)
    remove_folder(folder)
    assert.equal(1, code)
    for i = 1, select("#", ...) do has(out, (select(i, ...))) end
    has_not(out, "no progress")
  end

  spec("into another collective is named", function()
    fails("world:allreduce(atomo.ones(3))", "the ranks disagree: rank 0 is in allreduce #",
      "(f32, 1600 elements, sum) for 'bucket 1 of 1', rank 2 is in allreduce #", "(f32, 3 elements, sum)")
  end)

  spec("out of the program is named", function()
    fails("os.exit(0)", "rank 2 is in the end of the program")
  end)

  spec("with an error ends the job", function()
    fails("error 'only here'", "only here", "rank 2 of 3 on ")
  end)

  spec("with NaN ends the job where the policy says so", function()
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      local nn, world = atomo.nn, atomo.mpi.world
      local data, calls = atomo.data.synthetic {train = 30, test = 3}, 0
      local model = nn.Sequential {nn.GlobalAvgPool(), nn.Linear(3, 10)}
      atomo.train {model = model, quiet = true, eval_every = 0,
        optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1},
        loss = function(logits, labels)
          calls = calls + 1
          return atomo.F.cross_entropy(logits, labels) * (calls == 2 and world.rank == 1 and 0 / 0 or 1)
        end,
        data = {train = atomo.data.loader {set = data.train, batch = 2, rank = world.rank, size = world.size}}}]]
    local out, code = spawn.ranks(3, path)
    remove()
    assert.equal(1, code)
    has(out, "step 2: NaN or Inf in the loss or the gradient on 1 of 3 ranks")
    has(out, "rank 1: the loss is ") -- whichever rank is the first to say it
  end)

  spec("into another script is named at the start", function()
    local one, remove_one = spawn.file "require('atomo').exchange {}"
    local two, remove_two = spawn.file "require('atomo').exchange {}  -- edited on one host only"
    local out, code = spawn.run(("mpirun --oversubscribe -n 1 %s %s : -n 1 %s %s"):format(spawn.quote(spawn.exe), one,
      spawn.quote(spawn.exe), two), {timeout = 40})
    remove_one()
    remove_two()
    assert.equal(1, code)
    has(out, "exchange: a setting differs: rank 0 has 'script = " .. one:match "[^/]*$")
    has(out, "rank 1 has 'script = " .. two:match "[^/]*$")
  end)
end)

spec("a rank that is killed takes the job along within five seconds, and no checkpoint is lost", function()
  local out, code = spawn.run(("sh %stests/kill_series.sh --kills 2 --ranks 3 --within 1 --patience %.0f --host %s")
    :format(root, spawn.patience(), spawn.quote(spawn.exe)), {timeout = 60})
  assert.equal(0, code, out)
  has(out, "2 passed, 0 failed")
end)
