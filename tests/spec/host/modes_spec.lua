-- Results do not depend on LuaJIT's mode: interpreted, compiled at the first iteration, with a garbage collector that
-- runs all the time, the same job is bit-identical (tests/support/modes_job.lua), and the tape's spec passes.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local job = root .. "tests/support/modes_job.lua"

local busy = "collectgarbage('setpause', 0) collectgarbage('setstepmul', 1000)"
local hook = "debug.sethook(function() collectgarbage() end, '', 10000)"
local modes = {
  {"interpreted", {"-joff"}},
  {"compiled at the first turn", {"-Ohotloop=1", "-Ohotexit=1"}},
  {"compiled, with a collector that never rests", {"-e", busy}},
  {"interpreted, with whole collections in between", {"-joff", "-e", hook}},
}

local function run(options, ...)
  local words = {unpack(options)}
  for i = 1, select("#", ...) do words[#words + 1] = (select(i, ...)) end
  local out, code = spawn.host(words, {timeout = 60, env = "OMP_NUM_THREADS=1"})
  assert.equal(0, code, out)
  return out
end

describe("a job", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local usual
  setup(function() usual = run({}, job) end)

  for _, mode in ipairs(modes) do
    it("makes the same bits " .. mode[1], function()
      assert.truthy(usual:match "training%s+%x+")
      assert.equal(usual, run(mode[2], job))
    end)

    it("leaves the tape's spec passing " .. mode[1], function()
      assert.truthy(run(mode[2], "test", root .. "tests/spec/autograd/autograd_spec.lua"):match "%d+ passed, 0 failed")
    end)
  end
end)
