-- scripts/train_lm.lua as a user runs it, and the options that it shares with train_cifar.lua.
-- test: slow
local root = require "support.root"
local checkpoints = require "support.checkpoints"
local spawn = require "support.spawn"
local write = require("support.shell").write
local log = require("atomo").log
local small = root .. "scripts/train_lm.lua --width 16 --layers 1 --heads 2 --length 16 --epochs 2 " ..
  "--sample 5 --eval-every 2 "

--- A folder-less name for files that the runs write; all that begin with it are removed when fn is through.
local function with_name(fn)
  local name = os.tmpname()
  local ok, problem = pcall(fn, name)
  for _, ending in ipairs {"", ".txt", ".lua", ".jsonl", ".a", ".b", ".a.rank0", ".b.rank0", ".svg"} do
    os.remove(name .. ending)
  end
  if not ok then error(problem, 0) end
end

--- A short text with something to learn.
local function verse(path)
  local lines = {}
  for i = 1, 60 do lines[i] = ("%d green bottles hanging on the wall"):format(i) end
  write(path, table.concat(lines, "\n"))
end

describe("train_lm.lua", function()
  if not spawn.exe then return pending "runs in the host program only" end

  it("trains on two ranks with threads of their own, logs, and report.lua draws the curve", function()
    with_name(function(name)
      verse(name .. ".txt")
      local out, code = spawn.ranks(2, small .. ("--text %s.txt --threads 1 --check-replicas --log %s.jsonl")
        :format(name, name), {timeout = 120})
      assert.equal(0, code, out)
      for _, text in ipairs {"ranks: 2, threads a rank: 1", "auto:ratio=64", "versions:", " seq/s", "final test loss",
        "sample:"} do
        assert.truthy(out:find(text, 1, true), ("expected %q in:\n%s"):format(text, out))
      end
      local events, bad = log.read(name .. ".jsonl")
      assert.same({}, bad)
      local first, last = events[2], events[#events - 2]
      assert.same({"step", "step"}, {first.event, last.event})
      assert.is_true(last.loss < first.loss)
      out, code = spawn.host(root .. ("scripts/report.lua %s.jsonl --plot %s"):format(name, name))
      assert.equal(0, code, out)
      local svg = assert(io.open(name .. ".svg"))
      assert.truthy(svg:read("*a"):find("<svg", 1, true))
      svg:close()
    end)
  end)

  it("resumes bit-identically to a run that was not stopped, with compressors of --load", function()
    with_name(function(name)
      verse(name .. ".txt")
      write(name .. ".lua", [[require("atomo").basis("same", {
        analyze = function(g) return g end, synthesize = function(c) return c end})]])
      local common = small .. ("--text %s.txt --load %s.lua --compress same:ratio=4 --model lstm "):format(name, name)
      local function run(options)
        local out, code = spawn.host(common .. options, {timeout = 60})
        assert.equal(0, code, out)
        return out:match "final test loss ([%d.]+)"
      end
      local one, other = checkpoints.path(), checkpoints.path()
      local whole = run(("--save %s --log %s.jsonl"):format(one, name))
      local files, epoch_steps = checkpoints.files(checkpoints.named(one)), 0
      for _, e in ipairs((log.read(name .. ".jsonl"))) do
        if e.event == "step" and e.epoch == 1 then epoch_steps = e.step end
      end
      assert.is_true(epoch_steps > 3)
      for _, stop in ipairs {epoch_steps + 3, epoch_steps} do
        run(("--stop-after %d --save %s"):format(stop, other))
        assert.equal(whole, run(("--resume %s --save %s"):format(other, other)))
        assert.same(files, checkpoints.files(checkpoints.named(other)))
        checkpoints.remove(other)
      end
      checkpoints.remove(one)
    end)
  end)

  it("trains GPT-2 on tokens of a vocabulary, on two ranks with compression, and resumes bit-identically", function()
    with_name(function(name)
      verse(name .. ".txt")
      local merges = name .. ".a"
      local out, code = spawn.host(root .. ("scripts/make_vocab.lua %s.txt --size 280 -o %s"):format(name, merges))
      assert.equal(0, code, out)
      assert.truthy(out:find("280 tokens, 23 merges", 1, true), out)
      local common = small:gsub("epochs 2", "epochs 12") .. ("--text %s.txt --tokens %s --model gpt2 --checkpoint " ..
        "--threads 1 --compress entry:ratio=4 "):format(name, merges)
      local function run(options)
        local printed, status = spawn.ranks(2, common .. options, {timeout = 120})
        assert.equal(0, status, printed)
        assert.truthy(printed:find("280 different", 1, true), printed)
        return printed:match "final test loss ([%d.]+)", printed
      end
      local one, other = checkpoints.path(), checkpoints.path()
      local whole, printed = run("--check-replicas --save " .. one)
      assert.is_true(tonumber(whole) < math.log(280) - 0.3, whole)
      assert.truthy(printed:find("bits a byte", 1, true), printed)
      local files = checkpoints.files(checkpoints.named(one))
      run("--stop-after 3 --save " .. other)
      assert.equal(whole, (run(("--resume %s --save %s"):format(other, other))))
      local resumed = checkpoints.files(checkpoints.named(other))
      for _, file in ipairs {"model.safetensors", "optimizer.safetensors"} do
        assert.is_true(files[file] ~= nil and files[file] == resumed[file], file)
      end
      checkpoints.remove(one)
      checkpoints.remove(other)
    end)
  end)

  it("names a vocabulary that is missing or damaged", function()
    with_name(function(name)
      verse(name .. ".txt")
      for _, case in ipairs {{name .. ".none", "No such file"}, {name .. ".txt", "the last line is not complete"}} do
        local out, code = spawn.host(small .. ("--text %s.txt --tokens %s"):format(name, case[1]))
        assert.equal(1, code, out)
        assert.truthy(out:find("vocabulary: " .. case[1], 1, true) and out:find(case[2], 1, true), out)
      end
      local out, code = spawn.host(root .. ("scripts/make_vocab.lua %s.none -o %s.a"):format(name, name))
      assert.equal(1, code, out)
      assert.truthy(out:find("make_vocab.lua: " .. name .. ".none: No such file", 1, true), out)
    end)
  end)

  it("refuses unknown options", function()
    local out, code = spawn.host(small .. "--thread 2")
    assert.equal(2, code)
    assert.truthy(out:find("did you mean --threads", 1, true))
  end)
end)
