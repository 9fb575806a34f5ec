-- `atomo-lua new KIND NAME`: what it writes runs at once.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)
local scripts = require "support.root" .. "scripts/"

--- Calls fn(run) in a new folder; run(command) returns output and exit code of a shell command in it, in which ATOMO
--- stands for the program.
local function in_folder(fn)
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. folder)
  local root = spawn.run("sh -c " .. spawn.quote("cd " .. scripts .. " && pwd")):gsub("\n", "")
  local ok, why = pcall(fn, function(command)
    command = command:gsub("ATOMO", function() return spawn.exe end):gsub("SCRIPTS", function() return root end)
    return spawn.run("sh -c " .. spawn.quote(("cd %s && %s"):format(folder, command)), {timeout = 60})
  end)
  os.execute("rm -r " .. folder)
  if not ok then error(why, 0) end
end

--- Runs a command that must succeed and print the text.
local function prints(run, command, text)
  local out, code = run(command)
  assert.equal(0, code, out)
  assert(out:find(text), ("expected %q in:\n%s"):format(text, out))
end

describe("atomo-lua new", function()
  spec("train: trains on the synthetic set", function()
    in_folder(function(run)
      prints(run, "ATOMO new train first", "first.lua is written. Next:\n  atomo%-lua first.lua\n")
      prints(run, "sed -i 's/train = 2000, test = 500/train = 100, test = 50/; s/, 3$/, 1/' first.lua && " ..
        "ATOMO first.lua",
        "test accuracy 0%.%d+ after 2 steps")
    end)
  end)

  spec("basis: passes its proof, and trains", function()
    in_folder(function(run)
      prints(run, "ATOMO new basis mine", "%-%-load mine.lua %-%-compress mine:ratio=32")
      prints(run, "ATOMO mine.lua", "all passed.*bytes for 16384, relative variance %d")
      prints(run, "ATOMO SCRIPTS/train_cifar.lua --load mine.lua --compress mine:ratio=32 --model lenet " ..
        "--train-images 64 --max-steps 1 --eval-every 0 --threads 1", "compressor mine")
    end)
  end)

  spec("model: runs, and trains with train_cifar.lua", function()
    in_folder(function(run)
      prints(run, "ATOMO new model net.lua", "train_cifar.lua %-%-model net.lua")
      prints(run, "ATOMO net.lua", "logits %[2,10%]")
      prints(run, "ATOMO SCRIPTS/train_cifar.lua --model net.lua --train-images 64 --max-steps 1 --eval-every 0 " ..
        "--threads 1", "model: net.lua")
    end)
  end)

  spec("names scripts that are there, as what to run next", function()
    in_folder(function(run)
      local count = 0
      for kind in ("train basis model"):gmatch "%S+" do
        local out, code = run(("ATOMO new %s my_%s"):format(kind, kind))
        assert.equal(0, code, out)
        assert.is_nil(out:find("cd:", 1, true), out)
        for path in out:gmatch "(/[^ ]+%.lua)" do
          count = count + 1
          assert(io.open(path), path):close()
        end
      end
      assert.equal(3, count)
    end)
  end)

  spec("refuses to overwrite, and names what is wrong", function()
    in_folder(function(run)
      for command, want in pairs {
        ["echo mine > a.lua && ATOMO new train a; code=$?; cat a.lua; exit $code"] =
          {1, "a.lua is there already.*mine\n"},
        ["ATOMO new trian a"] = {2, "unknown kind 'trian', did you mean train%?"},
        ["ATOMO new train"] = {2, "NAME is missing"},
        ["ATOMO new"] = {2, "the kind is missing"},
        ["ATOMO new train ../b"] = {2, "NAME is '../b', expected a letter"},
        ["ATOMO new train a b"] = {2, "unexpected argument 'b'"},
        ["ATOMO new --help"] = {0, "basis NAME"},
      } do
        local out, code = run(command)
        assert.equal(want[1], code, command .. "\n" .. out)
        assert(out:find(want[2]), out)
      end
    end)
  end)
end)
