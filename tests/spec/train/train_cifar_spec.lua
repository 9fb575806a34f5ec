-- scripts/train_cifar.lua as a user runs it: what it prints and logs, and every kind of bad input: a clear message, all
-- ranks gone in seconds, a non-zero exit.
-- test: slow
local root = require "support.root"
local checkpoints = require "support.checkpoints"
local spawn = require "support.spawn"
local with_file = require "support.with_file"
local log = require("atomo").log
local script = root .. "scripts/train_cifar.lua "

--- The script with options, and a short run for what they leave open.
local function job(options)
  for _, default in ipairs {"--model lenet", "--train-images 200", "--batch 20", "--epochs 1", "--eval-every 0",
    "--lr 0.01"} do
    if not options:find(default:match "^%S+", 1, true) then options = options .. " " .. default end
  end
  return script .. options
end

local function has(text, what)
  assert(text:find(what, 1, true), ("expected %q in:\n%s"):format(what, text))
end

describe("train_cifar.lua", function()
  if not spawn.exe then return pending "runs in the host program only" end

  it("trains on two ranks, prints its summary and logs every step", function()
    with_file("", ".jsonl", function(path)
      local out, code = spawn.ranks(2, job("--eval-every 1 --check-replicas --log " .. path),
        {timeout = 120})
      assert(code == 0, out)
      for _, text in ipairs {"synthetic, 200 training", "auto:ratio=64", "ranks: 2", "versions:", "less than dense",
        "final test accuracy 0.", "sent by a rank", "peak memory"} do has(out, text) end
      local sum = 0 -- of the percentages of a step's time in the progress line
      for share in assert(out:match "lr [%d.]+  (%b[])", out):gmatch "(%d+)%%" do sum = sum + tonumber(share) end
      assert.equal(100, sum, out)
      local events, bad = log.read(path)
      assert.same({}, bad)
      assert.equal("run", events[1].event)
      assert.equal(2, events[1].ranks)
      assert.equal("lenet", events[1].settings.model)
      local step = events[2]
      assert.equal("step", step.event)
      for _, key in ipairs {"step", "epoch", "time", "loss", "accuracy", "lr", "images_per_s", "bytes_out", "bytes_in",
        "dense_bytes", "variance", "relative_variance"} do assert.equal("number", type(step[key]), key) end
      for _, key in ipairs {"data", "forward", "backward", "encode", "exchange", "decode", "update", "step"} do
        assert.equal("number", type(step.ms[key]), key)
      end
      assert.equal(4 * 657080, step.dense_bytes)
      assert.equal("epoch", events[#events - 1].event)
      assert.equal("end", events[#events].event)
      assert.equal(8, #events)
    end)
  end)

  it("stops after some steps of a longer run, with its bits", function()
    local function steps(options)
      local list = {}
      with_file("", ".jsonl", function(path)
        local out, code = spawn.host(job(options .. " --log " .. path), {timeout = 60})
        assert.equal(0, code, out)
        for _, e in ipairs((log.read(path))) do
          if e.event == "step" then list[#list + 1] = {e.loss, e.lr} end
        end
      end)
      return list
    end
    local whole, part = steps "--epochs 1", steps "--epochs 1 --stop-after 4"
    assert.same({10, 4}, {#whole, #part})
    for k = 1, 4 do assert.same(whole[k], part[k]) end
  end)

  it("saves a checkpoint where it stops, at an epoch's end or within one, and continues from it", function()
    local path = checkpoints.path()
    local function run(options)
      options = ("--train-images 100 --epochs 2 --save %s %s"):format(path, options) -- 5 steps an epoch
      local out, code = spawn.host(job(options), {timeout = 60})
      assert.equal(0, code, out)
      return out
    end
    local function loss(out) return (assert(out:match "training loss +[%d.]+", out)) end
    local whole = loss(run "")
    for _, stop in ipairs {5, 3, 8} do
      checkpoints.remove(path)
      has(run("--resume auto --stop-after " .. stop), ("nothing to resume in %s: a fresh start"):format(path))
      assert.equal(path .. "/step-" .. stop, checkpoints.named(path))
      has(run(("--stop-after %d --resume %s"):format(stop, path)), stop .. ", 0 skipped") -- has nothing left to do
      assert.equal(whole, loss(run(("--resume %s/step-%d"):format(path, stop))))
    end
    checkpoints.remove(path)
  end)

  it("chooses by measured times if asked to, and prints why", function()
    for _, options in ipairs {"--compress adaptive", "--compress entry:ratio=8 --topology auto"} do
      with_file("", ".jsonl", function(path)
        local out, code = spawn.ranks(2, job(options .. " --check-replicas --log " .. path), {timeout = 120})
        assert.equal(0, code, out)
        for _, text in ipairs {"chosen by measured times", "first choice, by prediction; 2 ranks on 1 host", "->",
          "transfer"} do has(out, text) end
        local said
        for _, e in ipairs((log.read(path))) do said = said or e.event == "exchange" and e end
        assert.equal("first choice, by prediction", said.why)
        assert.equal(1, said.network.hosts)
        has(said.choice, options:find "entry" and "entry:ratio=8 over " or " over ")
      end)
    end
  end)

  it("helps", function()
    local out, code = spawn.host(script .. "--help")
    assert.equal(0, code)
    for _, text in ipairs {"--compress", "mpirun", "--weight-decay", "images"} do has(out, text) end
  end)

  -- arguments, exit code, what the message must hold
  local refusals = {
    {"--bacth 3", 2, "did you mean --batch"},
    {"--lr nan", 2, "--lr is 'nan'"},
    {"--epochs 0", 2, "--epochs is '0'"},
    {"--topology ring", 2, "one of auto, allreduce, allgather"},
    {"--model resnet2", 1, "did you mean 'resnet20'"},
    {"--compress svd:rnak=3", 1, "unknown option 'rnak'"},
    {"--compress sdv", 1, "unknown compressor 'sdv'"},
    {"--compress svd:ratio=0", 1, "ratio is '0'"},
    {"--compress entry:ratio=-2", 1, "ratio is '-2'"},
    {"--compress entry:ratio=nan", 1, "ratio is 'nan'"},
    {"--compress svd:ratio=4 --topology allreduce", 1, "can go by topology allgather"},
    {"--data /no/such/folder", 1, "/no/such/folder: No such file"},
  }
  for _, case in ipairs(refusals) do
    it("refuses " .. case[1], function()
      local out, code = spawn.host(job(case[1]))
      assert.equal(case[2], code, out)
      has(out, case[3])
    end)
  end

  it("refuses data files that are short or hold wrong labels, on every rank", function()
    local record = "\3" .. ("x"):rep(3072)
    local cases = {
      {record:rep(3) .. "cut", "data_batch_1.bin"},
      {record .. "\200" .. ("x"):rep(3072), "label"},
    }
    for _, case in ipairs(cases) do
      local folder = os.tmpname()
      os.remove(folder)
      os.execute("mkdir " .. folder)
      for _, name in ipairs {"data_batch_1.bin", "test_batch.bin"} do
        local file = assert(io.open(folder .. "/" .. name, "wb"))
        file:write(case[1])
        file:close()
      end
      local out, code = spawn.ranks(2, job("--data " .. folder), {timeout = 60})
      os.execute("rm -r " .. folder)
      assert.equal(1, code, out)
      has(out, case[2])
      has(out, "data_batch_1.bin")
    end
  end)

  it("names the line of a model file with an error in it", function()
    with_file("return function(opts)\n  local x = = 1\nend", ".lua", function(path)
      local out, code = spawn.ranks(2, job("--model " .. path), {timeout = 60})
      assert.equal(1, code, out)
      has(out, ".lua:2: unexpected symbol near '='")
    end)
  end)

  it("names the layer whose shapes do not fit", function()
    with_file([[local nn = require("atomo").nn
      return function(opts)
        return nn.Sequential {nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(10, opts.classes)}
      end]], ".lua", function(path)
      local out, code = spawn.ranks(2, job("--model " .. path), {timeout = 60})
      assert.equal(1, code, out)
      has(out, "expected 10")
      has(out, "layer 3: Linear")
    end)
  end)

  it("ends on all ranks when one of them fails in its third forward pass", function()
    with_file([[local atomo = require "atomo"
      return function(opts)
        local net, calls = require("models.lenet").lenet(opts), 0
        local forward = net.forward
        function net:forward(x)
          calls = calls + 1
          if calls == 3 and atomo.mpi.world.rank == 1 then error "cosmic ray" end
          return forward(self, x)
        end
        return net
      end]], ".lua", function(path)
      local out, code = spawn.ranks(3, job("--model " .. path), {timeout = 60})
      assert.equal(1, code, out)
      has(out, "cosmic ray")
      has(out, "rank 1 of 3")
      has(out, "step 3")
    end)
  end)

  it("stops at a NaN loss with advice", function()
    local out, code = spawn.ranks(2, job "--lr 1e30 --compress none", {timeout = 60})
    assert.equal(1, code, out)
    has(out, "NaN or Inf in the loss or the gradient")
    has(out, "Lower the learning rate")
  end)

  it("exchanges less often, and logs the bytes sent", function()
    with_file("", ".jsonl", function(path)
      local out, code = spawn.ranks(2, job("--local-steps 3 --accumulate 2 --outer-lr 1 --outer-momentum 0 " ..
        "--train-images 400 --check-replicas --log " .. path), {timeout = 120})
      assert(code == 0, out)
      local sent = {} -- 10 batches: 5 steps, rounds of 3 and 2
      for _, event in ipairs((log.read(path))) do
        if event.event == "step" then sent[#sent + 1] = event.bytes_out > 0 end
      end
      assert.same({false, false, true, false, true}, sent)
    end)
    local out, code = spawn.ranks(2, job "--stall-warn -1", {timeout = 60})
    assert.equal(2, code)
    has(out, "--stall-warn is '-1'")
  end)
end)
