-- README, CONTRIBUTING and docs/: every block of code runs or is a command that the program takes; every link, file,
-- option and name is there. The checks find faults that are planted.
-- test: slow
local spawn = require "support.spawn"

-- Blocks marked norun: page and a line that they begin with -> why they cannot run here.
local reasons = {
  ["docs/tour.md: sh scripts/quickstart.sh"] = "installs packages and builds the tree",
}

-- Files that the Lua of a page reads.
local files = {}

describe("documents", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  if spawn.sanitized then return pending "the same texts under a sanitizer" end
  local documents = require "support.documents"
  local commands = require "support.page_commands"
  local markdown = documents.markdown
  local pages = documents.pages()

  local function excused(path)
    return function(block) return reasons[path .. ": " .. (block.lines[1] or "")] ~= nil end
  end

  it("are found", function()
    assert.is_true(#pages >= 9, table.concat(pages, " "))
    local found = table.concat(pages, " ")
    for _, page in ipairs {"README.md", "docs/guide.md", "docs/compressors.md"} do
      assert.truthy(found:find(page, 1, true), page)
    end
  end)

  for _, path in ipairs(pages) do
    local text = documents.read(documents.programs.root .. "/" .. path)

    it(path .. " names what is there: commands, options, files, links, functions", function()
      assert.same({}, documents.faults(path, text, excused(path)))
    end)

    if documents.program(text) then
      it(path .. " has Lua that runs", function()
        local why = documents.run(path, text, files[path])
        assert.is_nil(why, why)
      end)
    end
  end

  it("README's picture is drawn from the figures in docs/results.md", function()
    local folder = documents.programs.root .. "/docs/"
    local drawn = assert(loadfile(folder .. "figures.lua"))("spec").svg(documents.read(folder .. "results.md"))
    assert.equal(documents.read(folder .. "accuracy_vgg11_100mbit.svg"), drawn)
    assert.equal(3, select(2, drawn:gsub("<polyline", "")))
  end)

  it("docs/tour.md: its commands run and print what it says", function()
    local faults, skipped = commands.run("docs/tour.md", documents.read(documents.programs.root .. "/docs/tour.md"))
    assert.same({}, faults)
    if #skipped > 0 then pending("netlab.sh: this machine allows no network namespaces") end
  end)

  it("README.md: a run prints the summary that it shows", function()
    local run = "--model lenet --train-images 64 --batch 16 --epochs 1 --threads 1"
    local out, code = spawn.ranks(2, documents.programs.root .. "/scripts/train_cifar.lua " .. run)
    assert.equal(0, code, out)
    local shown
    for _, block in ipairs(markdown.parse(documents.read(documents.programs.root .. "/README.md")).blocks) do
      if block.lines[1] == "summary" then shown = block.lines end
    end
    assert.is_true(#shown >= 6)
    assert.same({}, commands.missing(shown, out))
  end)

  it("excuse no block that is not there", function()
    local left = {}
    for reason in pairs(reasons) do left[reason] = true end
    for _, path in ipairs(pages) do
      for _, block in ipairs(markdown.parse(documents.read(documents.programs.root .. "/" .. path)).blocks) do
        if block.marks == "norun" then left[path .. ": " .. (block.lines[1] or "")] = nil end
      end
    end
    assert.is_nil(next(left))
  end)

  it("--help names the effect of a --no- flag, and has no empty choice", function()
    local faults, flags = {}, 0
    for _, program in ipairs(documents.programs.all()) do
      local text = documents.programs.help(program)
      if program:find "^scripts/.*%.lua$" then
        for name, words in text:gmatch "\n  (%-%-no%-%S+)%s+([^\n]*)" do
          flags = flags + 1
          if not words:find "^turn off " then faults[#faults + 1] = ("%s: %s %s"):format(program, name, words) end
        end
        for choices in text:gsub("%s+", " "):gmatch "one of ([^;)]*)" do
          if (", " .. choices .. ","):find ", *," then faults[#faults + 1] = program .. ": one of " .. choices end
        end
      end
    end
    assert.same({}, faults)
    assert.is_true(flags >= 3)
  end)

  describe("checks find", function()
    --- The one fault of a page with this text, without page and line.
    local function fault_of(text)
      local faults = documents.faults("docs/planted.md", text)
      assert.equal(1, #faults, table.concat(faults, "\n"))
      return faults[1]
    end

    local function sh(command) return "# Page\n\n```sh\n" .. command .. "\n```\n" end

    for _, case in ipairs {
      {"code without a fence", "text\n\n    local x = 1\n", ":3: indented code"},
      {"a language that nothing runs", "```ruby\n1\n```\n", ":1: a block of language 'ruby'"},
      {"a fence without a language", "```\n1\n```\n", ":1: a block of language ''"},
      {"norun without a reason", "```lua norun\nx = 1\n```\n", ":1: norun without a reason"},
      {"a mark that means nothing", "```lua later\nx = 1\n```\n", ":1: a block is marked 'later'"},
      {"an open fence", "text\n```lua\nx = 1\n", ":2: a fence is not closed"},
      {"a dead link", "see [it](nowhere.md)\n", ":1: docs/nowhere.md is not in the tree"},
      {"a dead anchor", "see [it](guide.md#nothing-of-this-name)\n", ":1: docs/guide.md has no heading"},
      {"a dead anchor of the same page", "# One\n[it](#two)\n", ":2: docs/planted.md has no heading #two"},
      {"a dead picture", "![it](nothing.svg)\n", ":1: docs/nothing.svg is not in the tree"},
      {"a file that went", "in `runtime/coding/nothing.c`\n", "runtime/coding/nothing.c is not in the tree"},
      {"a file without its folder", "in `nothing_at_all.lua`\n", "nothing_at_all.lua is not in the tree"},
      {"a pattern of files that none fits", "in `tests/spec/zzz_*_spec.lua`\n", "is not in the tree"},
      {"an unknown option in a sentence", "give `--no-such-thing 3`\n",
        "no program's %-%-help knows %-%-no%-such%-thing"},
      {"a command in a sentence", "run `build/atomo-lua scripts/verify.lua --draws 1`\n", ":1: .*%-%-draws is '1'"},
      {"an unknown function", "call `atomo.frobnicate(x)`\n", "atomo.frobnicate: there is no frobnicate"},
      {"an unknown function of a topic", "call `atomo.optim.sgdd`\n", "atomo.optim.sgdd: there is no sgdd"},
      {"a module that went", 'see `require "atomo.nothing_here"`\n', ":1: there is no module atomo.nothing_here"},
      {"an unknown layer", "call `nn.Conv7d(1)`\n", "nn.Conv7d: there is no Conv7d"},
      {"an unknown method", "call `t:frobnicate()`\n", "t:frobnicate: there is no such method"},
      {"an unknown C function", "call `atomo_frobnicate`\n", "atomo_frobnicate: no source has this name"},
      {"an unknown option", sh "build/atomo-lua scripts/train_cifar.lua --modell resnet20",
        "unknown option %-%-modell"},
      {"an unknown choice", sh "mpirun -n 2 build/atomo-lua scripts/train_cifar.lua --topology star", "star"},
      {"a value out of range", sh "build/atomo-lua scripts/train_cifar.lua \\\n  --epochs -1", ":4: .*%-%-epochs"},
      {"an unknown compressor", sh "build/atomo-lua scripts/train_cifar.lua --compress zvd:ratio=4", "zvd"},
      {"an unknown key of a compressor", sh "build/atomo-lua scripts/verify.lua --compress 'entry svd:bitz=4'",
        "bitz"},
      {"a script that went", sh "build/atomo-lua scripts/train_everything.lua",
        "train_everything.lua is not in the tree"},
      {"an option behind netlab.sh",
        sh "sh scripts/netlab.sh run 2 1gbit -- build/atomo-lua scripts/bench_step.lua --x",
        "unknown option %-%-x"},
      {"an option of a Python program", sh "python3 examples/pytorch/train_cifar.py --modell resnet20",
        "train_cifar.py does not know %-%-modell"},
      {"a Python program that went", sh "python3 examples/pytorch/nothing.py", "nothing.py is not in the tree"},
      {"an option of netlab.sh", sh "sh scripts/netlab.sh run 2 1gbit --per-hostt 2 -- build/atomo-lua -v",
        "does not know %-%-per%-hostt"},
      {"an option of mpirun", sh "mpirun --hostfiles h -n 2 build/atomo-lua -v", "mpirun does not know %-%-hostfiles"},
      {"a step of test.sh", sh "sh scripts/test.sh --only everything", "has no step everything"},
      {"a preset", sh "cmake --preset relaese", "no preset relaese"},
      {"a program", sh "make all", "make is no program that these documents may use"},
      {"a shell script that went", sh "sh scripts/nothing.sh", "scripts/nothing.sh is not in the tree"},
      {"a spec that went", sh "build/atomo-lua test tests/spec/nothing_spec.lua",
        "nothing_spec.lua is not in the tree"},
    } do
      it(case[1], function() assert.matches(case[3], fault_of(case[2])) end)
    end

    it("Lua that fails, at the page's line, and variables that one block leaves to the next", function()
      local page = "# Page\n\n```lua\nlocal x = 2\n```\n\ntext\n\n```lua\nassert(x == 2)\n" ..
        "assert(x == 3, 'planted')\n```\n"
      assert.matches("docs/planted.md:11: planted", documents.run("docs/planted.md", page))
    end)

    it("Lua that does not compile, names that are missing, processes", function()
      for code, message in pairs {["local x ="] = "planted.md:2: unexpected", ["print(t.x)"] = "planted.md:2: .*'t'",
        ["os.execute 'true'"] = "planted.md:2: .*execute"} do
        assert.matches(message, documents.run("docs/planted.md", "```lua\n" .. code .. "\n```\n"))
      end
    end)

    it("commands that fail, and output that a page makes up", function()
      local page = "```lua\n-- own.lua\nprint 'from the file: 12'\n```\n```sh\nbuild/atomo-lua own.lua\n```\n" ..
        "```text\n...\nfrom  the file: 7\nfrom ...\n```\n"
      assert.same({}, (commands.run("docs/planted.md", page)))
      local made_up = commands.run("docs/planted.md", page .. "```text\nfrom a file: 12\n```\n")
      assert.same({"docs/planted.md:13: is not printed: from a file: 12"}, made_up)
      local failed = commands.run("docs/planted.md", "```sh\nbuild/atomo-lua -e 'os.exit(3)'\ntrue\n```\n")
      assert.matches("docs/planted.md:1: exit code 3", failed[1])
      local _, skipped = commands.run("docs/planted.md", "\n```sh\nexit 77\n```\n")
      assert.same({2}, skipped)
    end)

    it("nothing in a page that is right", function()
      assert.same({}, documents.faults("docs/planted.md", [[
# One `two`

See [one](#one-two), [guide](guide.md#tensors), ![picture](accuracy_vgg11_100mbit.svg) and
`tests/spec/docs/docs_spec.lua`. Call `atomo.zeros(3)`, `t:view(-1)`, `atomo_last_error`; give `--no-overlap`,
`--epochs 3` in `train_cifar.lua`.

```sh
# a comment; with --anything
FUZZ_SECONDS=1 sh scripts/test.sh --only build && build/atomo-lua \
  scripts/verify.lua --compress "svd:ratio=64;^fc=none" --draws 100
```
]]))
    end)
  end)
end)
