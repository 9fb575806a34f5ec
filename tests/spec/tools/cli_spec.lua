-- Command lines of scripts: values, ranges, suggestions, help, echo.
local cli = require "atomo.tools.cli"
local spawn = require "support.spawn"

local spec = {
  name = "train.lua", about = "Trains a network.", examples = {"atomo-lua train.lua --batch 32"},
  options = {
    {"batch", "int", 64, "images a rank and step", unit = "images", min = 1},
    {"lr", "number", 0.1, "learning rate", above = 0},
    {"weight-decay", "number", 5e-4, "weight decay", min = 0, max = 1},
    {"model", "choice", "resnet20", "network", choices = {"lenet", "resnet18", "resnet20"}},
    {"nesterov", "flag", false, "Nesterov momentum"},
    {"overlap", "flag", true, "turn off overlap"},
    {"log", "string", nil, "JSONL file"},
    {"ratio", "list", {16, 64}, "ratios", of = "number"},
    {"compress", "string", nil, "compressors", repeated = true},
    {"seed", "int", 0, "seed", alias = {"manual-seed"}},
  },
}

local function read(...) return assert(cli.read(spec, {...})) end
local function refuse(pattern, ...)
  local opts, text, code = cli.read(spec, {...})
  assert.is_nil(opts)
  assert.equal(2, code)
  assert.matches(pattern, text)
end

describe("cli.parse", function()
  it("gives defaults, keyed with underscores", function()
    local o = read()
    assert.equal(64, o.batch)
    assert.equal(5e-4, o.weight_decay)
    assert.is_false(o.nesterov)
    assert.is_true(o.overlap)
    assert.is_nil(o.log)
    assert.same({}, o.compress)
  end)

  it("accepts every way of writing an option", function()
    for _, args in ipairs {{"--batch", "32"}, {"--batch=32"}, {"-batch", "32"}, {"-batch=32"}} do
      assert.equal(32, read(unpack(args)).batch)
    end
    for _, name in ipairs {"--weight-decay", "--weightDecay", "-weightDecay", "--weight_decay"} do
      assert.equal(0.25, read(name, "0.25").weight_decay)
    end
    assert.equal(7, read("-manualSeed", "7").seed)
    assert.is_true(read("--nesterov").nesterov)
    assert.is_true(read("--nesterov=true").nesterov)
    assert.is_false(read("--no-overlap").overlap)
    assert.same({4, 8.5}, read("--ratio", "4,8.5").ratio)
    assert.same({"svd:ratio=16,bits=8", "none"}, read("--compress", "svd:ratio=16,bits=8", "--compress=none").compress)
    assert.equal("-x", read("--log=-x").log)
    assert.equal("", read("--log=").log)
    assert.equal("-", read("--log", "-").log)
  end)

  it("reads the names of Torch's scripts and of the paper's programs, with a line of notice each", function()
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      local o = atomo.cli.parse {name = "t.lua", options = {{"batch", "int", 1, "images"}, {"lr", "number", 1, "rate"},
        {"model", "string", "", "network"}, {"compress", "string", "", "compressor"}, {"wd", "int", 5, "its own"}}}
      print(o.batch, o.lr, o.model, o.compress, o.wd)]]
    for line, want in pairs {
      ["-batchSize 32 --learning-rate=0.5 --network ResNet18 --code SVD --svd-rank 3 --quantization-level 4 --wd 7"] =
        "t.lua: -batchSize 32 is read as --batch 32\nt.lua: --learning-rate 0.5 is read as --lr 0.5\nt.lua: " ..
        "--network ResNet18 is read as --model resnet18\nt.lua: --code SVD --svd-rank 3 --quantization-level 4 " ..
        "is read as --compress svd:atoms=3\n32\t0.5\tresnet18\tsvd:atoms=3\t7\n",
      ["--code=qsgd --quantization-level=4"] = "t.lua: --code qsgd --quantization-level 4 is read as --compress " ..
        "qsgd:bits=4\n1\t1\t\tqsgd:bits=4\t5\n",
      ["--code sgd"] = "t.lua: --code sgd is read as --compress none\n1\t1\t\tnone\t5\n",
    } do
      assert.equal(want, (spawn.host(path .. " " .. line)))
    end
    remove()
    refuse("%-%-batch is 'x'", "-batchSize", "x")
    refuse("given twice", "--batch", "1", "-batchSize", "2")
  end)

  it("refuses values out of range, with option, value and expected", function()
    refuse("%-%-batch is '0', expected a whole number of at least 1 images", "--batch", "0")
    refuse("%-%-batch is '1%.5', expected a whole number", "--batch=1.5")
    refuse("%-%-batch is 'many'", "--batch", "many")
    refuse("%-%-batch is '%-3'", "--batch", "-3")
    refuse("%-%-lr is 'nan', expected a number above 0", "--lr", "nan")
    refuse("%-%-lr is 'inf'", "--lr", "inf")
    refuse("%-%-lr is '0'", "--lr", "0")
    refuse("%-%-weight%-decay is '2', expected a number from 0 to 1", "--weightDecay", "2")
    refuse("'resnet2', expected one of lenet, resnet18, resnet20; did you mean resnet", "--model", "resnet2")
    refuse("%-%-nesterov is 'maybe', expected true or false", "--nesterov=maybe")
    refuse("%-%-ratio is '4,,5', expected a list", "--ratio", "4,,5")
    refuse("%-%-ratio is '4,x', expected a list separated by commas, each a number", "--ratio", "4,x")
  end)

  it("refuses unknown, missing, repeated and surplus arguments", function()
    refuse("unknown option %-%-bacth, did you mean %-%-batch%?", "--bacth", "3")
    refuse("unknown option %-%-wieght%-decay, did you mean %-%-weight%-decay%?", "--wieght-decay=3")
    refuse("unknown option %-%-xyzzy; %-%-help lists them", "--xyzzy")
    refuse("%-%-batch wants a value %(images%), found the end of the line", "--batch")
    refuse("%-%-log wants a value, found '%-%-batch'", "--log", "--batch", "3")
    refuse("%-%-batch is given twice", "--batch", "3", "--batch", "4")
    refuse("unexpected argument 'file'", "file")
    refuse("unexpected argument '%-5'", "-5")
    refuse("unexpected argument '%-%-batch'", "--", "--batch")
    refuse("%-%-no%-overlap takes no value", "--no-overlap=1")
    refuse("unknown option %-%-no%-batch", "--no-batch")
  end)

  it("reads positional arguments", function()
    local s = {options = spec.options,
      positional = {{"file", "string", nil, "text", required = true}, {"n", "int", 3, "count"}}}
    assert.equal("a.txt", assert(cli.read(s, {"a.txt", "--batch", "3"})).file)
    assert.equal(3, assert(cli.read(s, {"a.txt"})).n)
    assert.equal("--x", assert(cli.read(s, {"--", "--x", "5"})).file)
    local _, text = cli.read(s, {})
    assert.matches("file is missing: text", text)
    _, text = cli.read(s, {"a", "b"})
    assert.matches("n is 'b', expected a whole number", text)
    _, text = cli.read(s, {"a", "1", "c"})
    assert.matches("unexpected argument 'c'", text)
  end)

  it("collects the last positional argument if it may be repeated", function()
    local s = {options = spec.options, positional = {{"to", "string", nil, "text", required = true},
      {"n", "int", nil, "count", repeated = true, required = true}}}
    local opts = assert(cli.read(s, {"a", "1", "--batch", "3", "2", "3"}))
    assert.same({"a", {1, 2, 3}}, {opts.to, opts.n})
    local _, text = cli.read(s, {"a", "1", "x"})
    assert.matches("n is 'x', expected a whole number", text)
    _, text = cli.read(s, {"a"})
    assert.matches("n is missing", text)
    s.positional[2].required = nil
    assert.same({}, assert(cli.read(s, {"a"})).n)
    assert.matches("usage: %S+ %S+ %[options%] TO %[N%.%.%.%]\n", cli.help(s))
  end)

  it("prints usage, examples, defaults and units", function()
    local opts, text, code = cli.read(spec, {"--help"})
    assert.is_nil(opts)
    assert.equal(0, code)
    for _, part in ipairs {"usage: atomo%-lua train.lua %[options%]", "Trains a network", "train.lua %-%-batch 32",
      "%-%-batch N +images a rank and step %(default 64 images%)", "one of lenet, resnet18, resnet20",
      "%-%-no%-overlap", "default 0.0005", "default 16,64", "%-%-help"} do
      assert.matches(part, text)
    end
  end)

  it("prints the unit of 1 in the singular, abbreviations as they are", function()
    local text = cli.help {name = "train.lua", options = {{"warm", "int", 1, "not timed", unit = "steps"},
      {"keep", "int", 0, "kept", unit = "steps"}, {"limit", "number", 1, "most", unit = "ms"}}}
    assert.matches("default 1 step%)", text)
    assert.matches("default 0 steps%)", text)
    assert.matches("default 1 ms%)", text)
  end)

  it("prints examples with the paths of this command line", function()
    local before = _G.arg
    local text_of = {}
    for script in pairs {["scripts/train.lua"] = 1, ["/usr/share/my scripts/train.lua"] = 1, ["train.lua"] = 1} do
      _G.arg = {[-2] = "./lua/bin", [-1] = "-joff", [0] = script}
      text_of[script] = cli.help {name = "train.lua", examples = {
        "mpirun -n 2 build/atomo-lua scripts/train.lua --load scripts/atoms/haar.lua"}}
    end
    _G.arg = before
    assert.matches("\n  mpirun %-n 2 ./lua/bin scripts/train.lua %-%-load scripts/atoms/haar.lua\n",
      text_of["scripts/train.lua"])
    assert.matches("2 ./lua/bin '/usr/share/my scripts/train.lua' %-%-load '/usr/share/my scripts/atoms/haar.lua'\n",
      text_of["/usr/share/my scripts/train.lua"])
    assert.matches("2 ./lua/bin train.lua %-%-load atoms/haar.lua\n", text_of["train.lua"])
  end)

  it("echoes the settings so that they can be pasted back", function()
    local o = read("--batch", "3", "--log", "a b.jsonl", "--no-overlap", "--compress", "svd:ratio=16", "--ratio", "2,3")
    local text = cli.echo(o)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 100) end
    local args = {}
    for word in text:gsub("settings:", ""):gsub("'a b.jsonl'", "a\1b.jsonl"):gmatch "%S+" do
      args[#args + 1] = (word:gsub("\1", " "))
    end
    assert.same(o, read(unpack(args)))
    assert.is_true(cli.given(o, "batch"))
    assert.is_false(cli.given(o, "weight-decay"))
  end)

  it("prints and ends with exit code 0 for --help and 2 for misuse", function()
    local possible, why = spawn.possible()
    if not possible then return pending(why) end
    local script, remove = spawn.file [[
      require("atomo.tools.cli").parse {name = "x.lua", options = {{"batch", "int", 3, "size"}}}]]
    local text, code = spawn.host {script, "--help"}
    assert.equal(0, code)
    assert.matches("^usage: atomo%-lua x.lua", text)
    text, code = spawn.host {script, "--bathc", "3"}
    assert.equal(2, code)
    assert.matches("^x.lua: unknown option %-%-bathc, did you mean %-%-batch%?\n", text)
    text, code = spawn.host {script, "--batch", "4"}
    assert.equal(0, code)
    assert.equal("", text)
    remove()
  end)

  it("refuses a declaration that makes no sense", function()
    assert.error_matches(function() cli.read({options = {{"a", "float"}}}, {}) end, "option a has type float")
    assert.error_matches(function() cli.read({options = {{"a", "int"}, {"A", "int"}}}, {}) end, "declared twice")
  end)
end)

describe("cli.suggest", function()
  it("finds the nearest word, or none", function()
    local names = {"svd", "entry", "qsgd", "terngrad", "powersgd"}
    assert.equal("svd", cli.suggest("sdv", names))
    assert.equal("terngrad", cli.suggest("terngard", names))
    assert.equal("powersgd", cli.suggest("PowerSGD", names))
    assert.equal("powersgd", cli.suggest("power", names))
    assert.is_nil(cli.suggest("zebra", names))
  end)
end)
