-- --config and --repeat: settings of scripts from files and from earlier runs.
-- test: slow
local cli = require "atomo.tools.cli"
local json = require "atomo.core.json"
local settings = require "atomo.tools.settings"
local shell = require "support.shell"
local spawn = require "support.spawn"

local dir
local function path(name) return dir .. "/" .. name end
local function write(name, text) shell.write(path(name), text) end

local spec = {
  name = "train.lua",
  options = {
    {"batch", "int", 64, "images", min = 1},
    {"lr", "number", 0.1, "learning rate", above = 0},
    {"weight-decay", "number", 5e-4, "weight decay", min = 0},
    {"model", "choice", "resnet20", "network", choices = {"lenet", "resnet20"}},
    {"nesterov", "flag", false, "Nesterov momentum"},
    {"downlink", "choice", "dense", "way back", choices = {"dense", "compress"}, was = "down"},
    {"load", "string", nil, "files", repeated = true},
    {"ratio", "list", {16, 64}, "ratios", of = "number"},
    {"log", "string", "", "log", per_run = true},
    {"config", "string", nil, "settings", reads = settings.config},
    {"repeat", "string", nil, "settings of a run", reads = settings.of_run},
  },
}

local function read(...) return assert(cli.read(spec, {...})) end

local function refuse(pattern, ...)
  local opts, text, code = cli.read(spec, {...})
  assert.is_nil(opts)
  assert.equal(2, code)
  assert.matches(pattern, text)
end

local function write_log(name, ...)
  local lines = {}
  for i, run in ipairs {...} do lines[i] = json.encode {event = "run", settings = run} end
  write(name, table.concat(lines, "\n") .. "\n")
end

describe("settings from files", function()
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    os.execute("mkdir " .. dir)
  end)
  after_each(function() os.execute("rm -r " .. dir) end)

  it("are values by name, in Lua and JSON", function()
    write("c.lua", "return {batch = 2 ^ 5, ['weight-decay'] = 1e-3, nesterov = true, load = {'a.lua', 'b.lua'}, " ..
      "ratio = {4, 8.5}, model = 'lenet', log = 'x.jsonl'}")
    write("c.json", [[{"batch": 32, "weight_decay": 0.001, "nesterov": true, "load": ["a.lua", "b.lua"],
      "ratio": "4,8.5", "model": "lenet", "log": "x.jsonl"}]])
    for _, name in ipairs {"c.lua", "c.json"} do
      local o = read("--config", path(name))
      assert.same({32, 1e-3, true, {"a.lua", "b.lua"}, {4, 8.5}, "lenet", "x.jsonl", 0.1},
        {o.batch, o.weight_decay, o.nesterov, o.load, o.ratio, o.model, o.log, o.lr})
      assert.is_true(cli.given(o, "batch"))
      assert.is_false(cli.given(o, "lr"))
      assert.is_nil(o.config)
      assert.matches("settings from: the command line, else " .. path(name):gsub("%p", "%%%0"), cli.echo(o))
    end
  end)

  it("are overridden by the command line, and override those of a run", function()
    write("c.json", [[{"batch": 32, "lr": 0.5, "nesterov": true, "load": ["a.lua"]}]])
    write_log("run.jsonl", {batch = 8, lr = 0.25, weight_decay = 0.1})
    local o = read("--batch", "16", "--no-nesterov", "--load", "z.lua", "--config", path "c.json", "--repeat",
      path "run.jsonl")
    assert.same({16, 0.5, 0.1, false, {"z.lua"}}, {o.batch, o.lr, o.weight_decay, o.nesterov, o.load})
  end)

  it("keep every digit of an earlier run, take its last run, and not where it logged", function()
    write_log("run.jsonl", {batch = 8}, {lr = 0.1 + 2 ^ -50, log = "run.jsonl", load = {}, down = "dense", batch = 3})
    local o = read("--repeat", path "run.jsonl")
    assert.same({3, 0.1 + 2 ^ -50, "", {}, "dense"}, {o.batch, o.lr, o.log, o.load, o.down})
    assert.is_true(cli.given(o, "batch"))
    assert.is_false(cli.given(o, "down")) -- the run's default, not a wish
  end)

  it("are refused with the file's name", function()
    local function config(name, text, pattern)
      write(name, text)
      refuse(pattern, "--config", path(name))
    end
    config("c.json", '{"bacth": 3}', "c%.json: unknown option bacth, did you mean batch%?$")
    config("c.json", '{"xyzzy": 3}', "c%.json: unknown option xyzzy$")
    config("c.json", '{"batch": 0}', "c%.json: batch is '0', expected a whole number of at least 1")
    config("c.json", '{"batch": true}', "batch is 'true', expected a whole number")
    config("c.json", '{"batch": [3]}', "batch is '3', expected a whole number")
    config("c.json", '{"nesterov": "maybe"}', "nesterov is 'maybe', expected true or false")
    config("c.json", '{"model": "lente"}', "did you mean lenet%?")
    config("c.json", '{"log": {}}', "log is '', expected a text")
    config("c.json", '{"batch": 3, "Batch": 4}', "%-%-batch is given twice")
    config("c.json", '{"config": "d.json"}', "config is only for the command line")
    config("c.json", '{"batch": 3', "c%.json: json: offset")
    config("c.json", '[1, 2]', "a value without a name %(%[1%]%)")
    config("c.json", '3', "has a number, expected a table of option values")
    config("c.lua", 'return', "has a nil, expected a table")
    config("c.lua", 'return {batch = }', "c%.lua:1: unexpected symbol")
    config("c.lua", 'error "boom"', "c%.lua:1: boom")
    config("c.txt", '', "expected a file %*%.lua or %*%.json")
    refuse("none%.lua", "--config", path "none.lua")
    refuse("none is not there: expected a log or a folder of checkpoints", "--repeat", path "none")
    write("c.jsonl", "no JSON\n")
    refuse("c%.jsonl has no run", "--repeat", path "c.jsonl")
    write_log("run.jsonl", {})
    refuse("its last run has no settings", "--repeat", path "run.jsonl")
    write_log("run.jsonl", {length = 64})
    refuse("run%.jsonl: the run has a setting length, which train%.lua does not have", "--repeat", path "run.jsonl")
  end)
end)

local case = spawn.specs(it, pending)

describe("train_cifar.lua", function()
  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    os.execute("mkdir " .. dir)
  end)
  after_each(function() os.execute("rm -r " .. dir) end)

  local script = require "support.root" .. "scripts/train_cifar.lua"

  --- Returns the losses of all steps in a log.
  local function losses(name)
    local list = {}
    for line in io.lines(path(name)) do
      local event = json.decode(line)
      if event.event == "step" then list[#list + 1] = event.loss end
    end
    return list
  end

  case("repeats a run from its log and from its checkpoint, bit for bit", function()
    write("c.lua", "return {model = 'lenet', batch = 16, epochs = 1, ['train-images'] = 64, ['eval-every'] = 0, " ..
      "compress = 'none', threads = 1, lr = 0.03, seed = 5}")
    for _, args in ipairs {"--config @c.lua --log @a.jsonl --save @run", "--repeat @a.jsonl --log @b.jsonl",
        "--repeat @run --log @c.jsonl"} do
      local out, code = spawn.host(script .. " " .. args:gsub("@", dir .. "/"), {timeout = 40})
      assert.equal(0, code, out)
    end
    local first = losses "a.jsonl"
    assert.equal(4, #first)
    assert.same(first, losses "b.jsonl")
    assert.same(first, losses "c.jsonl")
  end)

  case("says once what is wrong with a file, from the rank that it is wrong on", function()
    for _, rank in ipairs {1, 2} do -- wrong on ranks below this one, or on rank 1 only
      write("c.lua", ("return {bacth = tonumber(os.getenv 'OMPI_COMM_WORLD_RANK') %s 1 and 3 or nil}"):format(
        rank == 1 and "==" or "<="))
      local out, code = spawn.ranks(2, ("%s --config %s"):format(script, path "c.lua"))
      assert.equal(2, code, out)
      assert.equal(1, select(2, out:gsub("unknown option bacth", "")), out)
      assert.matches(rank == 1 and "rank 1: " or "train_cifar.lua: %S+/c.lua: unknown", out)
    end
  end, true)
end)
