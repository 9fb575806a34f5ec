-- Mistakes that end a program or meet other ranks, one a row. Each ends with an exit code above 0, within seconds, on
-- all ranks. The error's first two lines name place, cause, and the remedy: what to do, or what was expected; one rank
-- prints it, once. mistakes_calls_spec.lua has mistakes that a script may catch; checkpoint_foreign_spec.lua and
-- resume_ranks_spec.lua checkpoints of other models, programs and numbers of ranks.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)
local train = root .. "scripts/train_cifar.lua --model lenet --train-images 64 --max-steps 1 --eval-every 0 "

local LIMIT = 5 -- seconds on an idle machine

local function on_two(arguments)
  return ("mpirun --oversubscribe -n 2 %s %s"):format(spawn.quote(spawn.exe), arguments)
end

--- Returns the first two lines of an error output, without the rule that frames a rank's, and without the words of Open
--- MPI about MPI_Abort, which may come first.
local function first_lines(out)
  local lines = {}
  out = out:gsub("%-+\nMPI_ABORT was invoked.-\n%-%-%-%-+\n", "")
  for line in out:gmatch "[^\n]+" do
    if not line:find "^%-%-%-%-" and #lines < 2 then lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

--- Runs a command; returns its error output, exit code and seconds.
local function errors_of(command)
  return spawn.run("sh -c " .. spawn.quote(command .. " 2>&1 >/dev/null"), {timeout = 40})
end

--- Asserts the answer to a mistake: exit code, time, words in the first two lines (the remedy and
--- others), one message.
local function answers(out, code, seconds, words)
  assert(#words > 1, "no remedy, or no word of the cause")
  assert(code and code > 0 and code < 124, ("exit code %s:\n%s"):format(tostring(code), out))
  assert(spawn.in_time(seconds, LIMIT), ("took %.1f s:\n%s"):format(seconds, out))
  local first = first_lines(out)
  for _, word in ipairs(words) do
    assert(first:find(word, 1, true), ("'%s' is not in the first two lines of the error: %s\nall of it:\n%s"):format(
      word, first, out))
  end
  local _, frames = out:gsub("stack traceback", "")
  assert(frames <= 1, "more than one rank prints its error:\n" .. out)
end

describe("a mistake on the command line:", function()
  local text = os.tmpname()
  local file = assert(io.open(text, "w"))
  file:write "some text, a few lines\nof it\n"
  file:close()
  teardown(function() os.remove(text) end)

  -- {what, arguments of atomo-lua, the remedy, words}
  for _, row in ipairs {
    {"a script that is not there", "nosuch.lua", "expected the path of a script", "nosuch.lua", "No such file"},
    {"an option of the host that there is not", "--nosuch", "usage: atomo-lua", "--nosuch"},
    {"a syntax error", "-e 'local x = = 1'", "near '='", "(command line):1:"}, -- LuaJIT's text
    {"a misspelt option", train .. "--epoch 3", "did you mean --epochs", "--epoch"},
    {"a text for a number", train .. "--epochs many", "expected a whole number", "--epochs is 'many'"},
    {"a missing value", train .. "--lr", "wants a value", "--lr"},
    {"an option given twice", train .. "--lr 1 --lr 2", "expected one value", "--lr", "given twice"},
    {"a network that there is not", train:gsub("lenet", "resnet19"), "did you mean 'resnet18'", "resnet19"},
    {"a topology that there is not", train .. "--topology ring", "expected one of auto, allreduce", "ring"},
    {"five bits", train .. "--compress svd:bits=5", "expected 32, 16, 8", "bits is '5'", "train_cifar.lua:"},
    {"a compressor that there is not", train .. "--compress sdv", "did you mean 'svd'", "sdv", "train_cifar.lua:"},
    {"one byte", train .. "--compress svd:bytes=1", "expected a larger budget", "bytes=1", "train_cifar.lua:"},
    {"data that are not there", train .. "--data no/such", "expected the files of CIFAR-10", "no/such",
      "train_cifar.lua:"},
    {"a file of compressors that is not there", train .. "--load nofile.lua", "expected the path of a Lua file",
      "nofile.lua", "No such file"},
    {"a text file as a checkpoint", train .. "--resume " .. text, "expected a folder", text, "text file"},
    {"a checkpoint that is not there", train .. "--resume no/such", "expected a folder", "no/such"},
    {"a text file as weights", train .. "--init " .. text, "expected a safetensors file", text, "it is a text file"},
    {"a checkpoint below a file", train .. "--save " .. text .. "/run", "choose a path in a folder", text .. "/run",
      "Not a directory"},
    {"a log on a full disk", train .. "--log /dev/full", "free some space", "/dev/full", "No space left",
      "train_cifar.lua:"},
    {"a log in a folder that is not there", train .. "--log no/such/run.jsonl", "folders must exist",
      "no/such/run.jsonl", "No such file"},
    {"settings of a run that is not there", train .. "--repeat nowhere", "expected a log or a folder", "nowhere"},
    {"settings from a text file", train .. "--config " .. text, "expected a file *.lua or *.json", text},
    {"a compressor to verify that there is not", root .. "scripts/verify.lua --compress nosuch",
      "compressors are", "nosuch"},
  } do
    spec(row[1], function()
      local out, code, seconds = errors_of(spawn.quote(spawn.exe) .. " " .. row[2])
      answers(out, code, seconds, {unpack(row, 3)})
    end)
  end
end)

describe("a mistake on two ranks:", function()
  local head = "local atomo = require 'atomo'\nlocal world = atomo.mpi.world\n"
  -- {what, script after the head, so that its first line is line 3, the line of the mistake, the remedy, words}
  for _, row in ipairs {
    {"one rank ends early, without an exchange", "if world.rank == 1 then return end\nworld:barrier()", 4,
      "expected the same operations", "rank 1 is in the end of the program"},
    {"one rank ends early, and another waits for its message", "if world.rank == 1 then os.exit(0) end\n" ..
      "world:recv(atomo.zeros(3), 1, 7)", 4, "expected a send on that rank", "recv: waits for a message of tag 7",
      "from rank 1, which has ended its script"},
    {"one rank ends early, and another sends to it", "if world.rank == 0 then world:send(atomo.zeros(3e6), 1) end", 3,
      "expected a receive on that rank", "for rank 1, which has ended its script"},
    {"one rank of a part ends early", "local part = world:split(0)\nif world.rank == 0 then " ..
      "part:allreduce(atomo.ones(3)) end", 4, "expected the same operations", "allreduce: waits for rank 1"},
    {"allreduce of two sizes", "world:allreduce(atomo.ones(3 + world.rank), 'sum')", 3, "same types and sizes",
      "3 elements", "4 elements"},
    {"two collectives", "if world.rank == 0 then world:barrier() else\nworld:allreduce(atomo.ones(1), 'sum') end", nil,
      "expected the same operations", "_spec.lua:", "barrier", "allreduce"},
    -- An error of the script's own has the script's own remedy.
    {"an error on one rank", "if world.rank == 1 then error 'no data here' end\nworld:barrier()", 3, "no data here"},
    {"an error on both ranks", "error 'no data'", 3, "no data"},
    {"a basis that depends on the rank", "atomo.basis('mine', {analyze = function(g) return g * (1 + world.rank) " ..
      "end, synthesize = function(c) return c / (1 + world.rank) end})\nlocal ex = atomo.exchange {compress = " ..
      "'mine:ratio=4', min_size = 1}\nex:push(1, atomo.randn(8, 9))\nex:finish()", 6,
      "must depend on the shape and the options alone", "mine: tensor gradient 1"},
    {"gradients of two shapes", "local ex = atomo.exchange {}\nex:push(1, atomo.randn(8, 9 + world.rank))\nex:finish()",
      5, "expected the same on all ranks", "[8,9]", "[8,10]"},
    {"two compressors", "atomo.exchange {compress = world.rank == 0 and 'qsgd' or 'terngrad'}", 3,
      "expected the same on all ranks", "compressor = qsgd", "compressor = terngrad"},
    {"other data of one size on each rank", "local set = atomo.data.synthetic {train = 8, test = 8, seed = " ..
      "world.rank}.train\nlocal net = atomo.nn.Linear(2, 2)\natomo.train {model = net, quiet = true, optimizer = " ..
      "atomo.optim.sgd {params = net:parameters(), lr = 1}, data = atomo.data.loader {set = set, batch = 2, " ..
      "rank = world.rank, size = world.size}}", 5, "expected the same on all ranks",
      "data: images", "rank 0 has", "rank 1 has"},
    {"a decoder that depends on the rank", "atomo.codec('mine', {encode = function(g) return g:norm_value(2) end," ..
      " decode = function(p, s) return atomo.full(s, p + world.rank) end})\nlocal ex = atomo.exchange {compress = " ..
      "'mine', min_size = 1}\nex:push(1, atomo.randn(8, 9))\nex:finish()", 6, "must depend on the shape",
      "mine: tensor gradient 1"},
  } do
    spec(row[1], function()
      local path, remove = spawn.file(head .. row[2])
      local out, code, seconds = errors_of(on_two(path))
      remove()
      local words = {unpack(row, 4)}
      if row[3] then words[#words + 1] = ("%s:%d: "):format(path:match "[^/]+$", row[3]) end
      answers(out, code, seconds, words)
    end, true)
  end

  spec("a misspelt option is answered once", function()
    local out, code, seconds = errors_of(on_two(train .. "--epoch 3"))
    answers(out, code, seconds, {"did you mean --epochs", "--epoch"})
    local _, answered = out:gsub("unknown option", "")
    assert.equal(1, answered, out)
    assert.is_nil(out:find("terminated", 1, true), out)
  end, true)

  spec("a script on standard input runs on all ranks, and its error is named", function()
    local out, code = spawn.run(("mpirun --oversubscribe -n 2 %s -"):format(spawn.quote(spawn.exe)),
      {timeout = 40, stdin = "local world = require('atomo').mpi.world\nworld:barrier()\nif world.rank == 0 then " ..
        "error 'no data' end\nworld:barrier()\n"})
    assert.equal(1, code, out)
    assert.truthy(out:find("stdin:3: no data", 1, true), out)
  end, true)
end)
