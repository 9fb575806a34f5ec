-- A disk that is too small or fills up ends a run with an error at once, before the training if it can be known: for
-- checkpoints, which stay complete, and for logs. On a small tmpfs; skipped where none can be mounted.
-- test: slow
require "atomo"
local root = require "support.root"
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"
local disk = require "atomo.train.checkpoint.disk"
local manifest = require "atomo.train.checkpoint.manifest"

if not spawn.possible() then return pending "full_disk_spec: starts jobs of its own, not under mpirun" end

describe("a full disk", function()
  local dir
  before_each(function()
    dir = checkpoints.path()
    disk.make(dir)
  end)
  after_each(function()
    spawn.run("umount " .. dir)
    checkpoints.remove(dir)
  end)

  local function mounted(kilobytes)
    local _, code = spawn.run(("mount -t tmpfs -o size=%dk atomo-test %s"):format(kilobytes, dir))
    return code == 0
  end

  --- Trains LeNet, of which a checkpoint has 5.3 MB, for two epochs of five steps.
  local function train(options)
    return spawn.host(("%sscripts/train_cifar.lua --model lenet --train-images 80 --batch 16 --epochs 2 " ..
      "--eval-every 0 --compress none %s"):format(root, options), {timeout = 60})
  end

  it("that has no room for one checkpoint is refused before the training", function()
    if not mounted(1024) then return pending "this machine does not allow mounting a tmpfs" end
    local out, code = train("--save " .. dir .. "/run")
    assert.equal(1, code, out)
    assert.matches("cannot write [^\n]*/run, where this rank's part of a checkpoint takes 5%.26 MB or more: no room " ..
      "for %d+ bytes in [^\n]*: No space left on device", out)
    assert.is_nil(out:find("epoch 1/2", 1, true))
    assert.same({}, disk.names(dir .. "/run"))
  end)

  it("that fills up ends the run, and the checkpoints before stay complete", function()
    if not mounted(8192) then return pending "this machine does not allow mounting a tmpfs" end
    local out, code = train(("--save %s/run --save-every 3"):format(dir))
    assert.equal(1, code, out)
    assert.matches("step%-6%.partial/[^\n]*: No space left on device", out)
    assert.same({"latest", "step-3"}, disk.names(dir .. "/run"))
    local body = assert(manifest.read(dir .. "/run/step-3"))
    for _, entry in ipairs(body.files) do assert.is_nil(manifest.problem(dir .. "/run/step-3", entry)) end
  end)

  it("under the log ends the run", function()
    if not mounted(64) then return pending "this machine does not allow mounting a tmpfs" end
    spawn.run(("dd if=/dev/zero of=%s/rest bs=1k count=60"):format(dir))
    local out, code = train(("--log %s/run.jsonl"):format(dir))
    assert.equal(1, code, out)
    assert.matches("log: writing [^\n]*run%.jsonl: No space left on device", out)
  end)
end)
