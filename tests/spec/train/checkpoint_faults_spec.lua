-- Faults during a save: a job that is killed at any change that a save makes on the disk, or whose disk is then full,
-- leaves a complete checkpoint, the previous or the new one. A resumed run is bit-identical to an uninterrupted one.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"
local job = root .. "tests/support/checkpoint_job.lua"

if not spawn.possible() then
  return pending "checkpoint_faults_spec: starts jobs of its own, not under mpirun"
end

describe("a save", function()
  local dir, digest
  setup(function() dir = checkpoints.path() end)
  before_each(function() checkpoints.remove(dir) end)
  teardown(function() checkpoints.remove(dir) end)

  local function run(resume, fault, rank, n, where)
    return spawn.ranks(2, ("%s %s '%s' %s %d %d %s"):format(spawn.quote(job), dir, resume or "", fault or "none",
      rank or 0, n or 0, where or ""), {timeout = 60})
  end

  --- Asserts that a complete checkpoint is left, and that a run resumed from it ends like an uninterrupted one.
  local function check_left(what, steps)
    local out, code = run "auto"
    assert.equal(0, code, what .. "\n" .. out)
    assert.matches(("resuming after epoch [01], step %s, from "):format(steps or "[36]"), out, what)
    for rank = 0, 1 do
      assert.truthy(out:find(("END rank %d step 14 %s"):format(rank, digest), 1, true), what .. "\n" .. out)
    end
    for _, name in ipairs(require("atomo.train.checkpoint.disk").names(dir)) do
      assert.truthy(name:match "^step%-%d+$" or name == "latest", what .. ": left " .. name)
    end
    return out
  end

  local function whole()
    if digest then return end
    local out, code = run()
    assert.equal(0, code, out)
    digest = assert(out:match "END rank 0 step 14 (%x+)", out)
    assert.truthy(out:find("END rank 1 step 14 " .. digest, 1, true), out)
    checkpoints.remove(dir)
  end

  it("that is killed at any change it makes on the disk leaves a whole checkpoint", function()
    whole()
    local killed = 0
    for _, case in ipairs {{"kill", 1}, {"cut", 1}, {"kill", 0}, {"cut", 0}} do
      local fault, rank = case[1], case[2]
      for n = 1, 40, spawn.sanitized and 3 or 1 do -- a sanitized job takes long to start
        if fault == "kill" or n % 2 == 0 then
          local out, code = run("", fault, rank, n)
          if code == 0 then -- a save makes fewer than n changes
            checkpoints.remove(dir)
            break
          end
          assert.equal(137, code, out)
          killed = killed + 1
          check_left(("%s at change %d of rank %d"):format(fault, n, rank))
          checkpoints.remove(dir)
        end
      end
    end
    assert.is_true(killed >= (spawn.sanitized and 4 or 12), killed)
  end)

  it("that SIGTERM comes in ends the job with 75 and leaves a whole checkpoint", function()
    whole()
    for _, case in ipairs {{0, 2}, {0, 7}, {1, 1}} do
      local rank, n = unpack(case)
      local out, code = run("", "term", rank, n)
      assert.equal(75, code, out)
      assert.truthy(out:find(dir .. "/step-7 is saved, and the run stops, as SIGTERM asks", 1, true), out)
      check_left(("SIGTERM at change %d of rank %d"):format(n, rank), "7") -- the signal came while step 6 was saved
      checkpoints.remove(dir)
    end
  end)

  it("that SIGINT comes in ends the job with 130 and leaves a whole checkpoint", function()
    whole()
    for _, case in ipairs {{0, 2}, {0, 7}, {1, 1}} do
      local rank, n = unpack(case)
      local out, code = run("", "int", rank, n)
      assert.equal(130, code, out)
      check_left(("SIGINT at change %d of rank %d"):format(n, rank))
      checkpoints.remove(dir)
    end
  end)

  it("that SIGUSR1 comes in is followed by another one, and the run continues", function()
    whole()
    for _, case in ipairs {{0, 2}, {1, 1}} do
      local rank, n = unpack(case)
      local out, code = run("", "usr1", rank, n)
      assert.equal(0, code, out)
      assert.truthy(out:find(dir .. "/step-7 is saved, as SIGUSR1 asks", 1, true), out)
      assert.truthy(out:find("END rank 0 step 14 " .. digest, 1, true), out)
      checkpoints.remove(dir)
    end
  end)

  it("is left as it is by a signal to a run that resumes from it, while it loads or sends the weights", function()
    whole()
    assert.equal(137, (select(2, run("", "kill", 0, 1)))) -- leaves step 3
    local ends = {term = 143, usr2 = 143, int = 130, usr1 = 0}
    for _, case in ipairs {{"term", 0, 1, "load"}, {"int", 1, 2, "load"}, {"usr2", 1, 3, "load"}, {"int", 0, 3, "load"},
      {"term", 1, 1, "start"}, {"int", 0, 3, "start"}, {"usr1", 1, 2, "load"}} do
      local signal, rank, n, where = unpack(case)
      local out, code = run("auto", signal, rank, n, where)
      assert.equal(ends[signal], code, table.concat(case, " ") .. "\n" .. out)
      if code ~= 0 then assert.same({"step-3"}, checkpoints.names(dir)) end
      if signal == "usr1" then assert.truthy(out:find("END rank 0 step 14 " .. digest, 1, true), out) end
    end
    checkpoints.remove(dir)
  end)

  it("on a full disk ends the job on all ranks, and the checkpoint before stays", function()
    whole()
    for _, case in ipairs {{0, 2}, {0, 5}, {1, 1}} do
      local rank, n = unpack(case)
      local out, code = run("", "full", rank, n)
      assert.equal(1, code, out)
      assert.matches(("checkpoint: rank %d: [^\n]*File too large"):format(rank), out)
      local what = ("full at change %d of rank %d"):format(n, rank)
      assert.same({"step-3"}, checkpoints.names(dir), what)
      check_left(what)
      checkpoints.remove(dir)
    end
  end)
end)
