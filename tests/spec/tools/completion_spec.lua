-- `atomo-lua --completion bash`: what bash then offers.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

--- Calls fn with a function of a command line ("atomo-lua --he"; a last space begins an empty word) that returns what
--- bash offers for the last word, sorted, in a folder that holds the given files.
local function with_completion(files, fn)
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. folder)
  for _, name in ipairs(files) do assert(io.open(folder .. "/" .. name, "w")):close() end
  local ok, why = pcall(fn, function(line)
    local script = ([[cd %s && source <("%s" --completion bash) || exit 1
      COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _atomo_lua
      printf "%%s\n" "${COMPREPLY[@]}"]]):format(folder, spawn.exe, (line:gsub(" $", " ''")))
    local out, code = spawn.run("bash -c " .. spawn.quote(script))
    assert(code == 0, out)
    local words = {}
    for word in out:gmatch "[^\n]+" do words[#words + 1] = word end
    table.sort(words)
    return words
  end)
  os.execute("rm -r " .. folder)
  if not ok then error(why, 0) end
end

local function bash_spec(name, fn)
  spec(name, function()
    if not spawn.have "bash" then return pending "bash is missing" end
    fn()
  end)
end

describe("completion for bash", function()
  bash_spec("offers options, choices, compressors, models and files", function()
    with_completion({"two words.lua", "run.jsonl"}, function(offered)
      for line, want in pairs {
        ["atomo-lua --he"] = {"--help"},
        ["atomo-lua doc"] = {"doctor"},
        ["atomo-lua new "] = {"basis", "model", "train"},
        ["atomo-lua tw"] = {"two words.lua"},
        ["atomo-lua --completion "] = {"bash"},
        ["atomo-lua doctor --no"] = {"--no-mpi"},
        ["atomo-lua test --s"] = {"--slowest"},
        ["atomo-lua -e x a/train_cifar.lua --mo"] = {"--model", "--momentum"},
        ["atomo-lua a/train_cifar.lua --no-a"] = {"--no-augment"},
        ["atomo-lua train_cifar.lua --model resnet18"] = {"resnet18"},
        ["atomo-lua train_cifar.lua --model = vgg1"] = {"vgg11", "vgg13", "vgg16", "vgg19"},
        ["atomo-lua train_cifar.lua --compress terngr"] = {"terngrad"},
        ["atomo-lua train_lm.lua --model "] = {"gpt2", "lstm", "transformer"},
        ["atomo-lua train_lm.lua --repeat r"] = {"run.jsonl"},
        ["atomo-lua train_lm.lua --epochs "] = {},
        ["atomo-lua other.lua --op"] = {},
      } do
        assert.same(want, offered(line), line)
      end
    end)
  end)

  bash_spec("knows every script that declares options", function()
    local out, code = spawn.host "--completion bash"
    assert.equal(0, code)
    local count = 0
    local pipe = io.popen(("grep -l cli.parse %sscripts/*.lua"):format(require "support.root"))
    for path in pipe:lines() do
      local name = path:match "[^/]*$"
      if name ~= "check_house.lua" then
        assert(out:find("\n  " .. name .. ")\n", 1, true), name .. " is not completed")
        count = count + 1
      end
    end
    pipe:close()
    assert(count > 10)
    assert.is_nil(out:find "left out")
  end)

  spec("is refused for other shells", function()
    local out, code = spawn.host "--completion fish"
    assert.equal(2, code)
    assert(out:find("--completion knows bash only, not 'fish'", 1, true), out)
    out, code = spawn.host "--completion"
    assert.equal(2, code)
    assert(out:find("an argument is missing after '--completion'", 1, true), out)
  end)

  spec("and --help name compressors and models", function()
    local out = spawn.host(require "support.root" .. "scripts/train_cifar.lua --help")
    for _, name in ipairs {"wide_resnet28_10", "terngrad", "rotated"} do
      assert(out:find(name, 1, true), out)
    end
  end)
end)
