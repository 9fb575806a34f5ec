-- Renamed options: the old name gives the same setting and one line of notice, both names at once are refused, help and
-- suggestions have the new name. The cases come from the declarations.
local atomo = require "atomo"
local cli = require "atomo.tools.cli"
local options = require "atomo.exchange.options"
local plan = require "atomo.tools.experiment.plan"
local renamed = require "atomo.core.renamed"
local script = require "atomo.tools.script"
local spawn = require "support.spawn"

local values = {downlink = "compress", inter_node = "sharded", fuse_small = "compress", flight_prefix = "x"}
local train = {name = "train.lua", options = script.options({}, {compress = "none", eval_every = 1, unit = "images"})}

--- fn's results, and the notices that it gave: "who: old, new".
local function noticed(fn, ...)
  local notice, list = renamed.notice, {}
  renamed.notice = function(who, old, new) list[#list + 1] = ("%s: %s, %s"):format(who, old, new) end
  local ok, first, second = pcall(fn, ...)
  renamed.notice = notice
  assert(ok, first)
  return list, first, second
end

describe("an option of atomo.exchange", function()
  local seen = {}
  for _, o in ipairs(options.list) do
    if o.was then
      seen[o.name] = true
      local value = values[o.name]
      it(("%s means %s"):format(o.was, o.name), function()
        local list, opts = noticed(options.current, {[o.was] = value})
        assert.same({[o.name] = value}, opts)
        assert.same({("exchange: %s, %s"):format(o.was, o.name)}, list)
        assert.same({}, (noticed(options.current, {[o.name] = value})))
      end)

      it(("%s and %s at once are refused"):format(o.was, o.name), function()
        assert.error_matches(function() atomo.exchange {[o.was] = value, [o.name] = value} end,
          ("exchange: %s and %s are one option, give %s alone"):format(o.name, o.was, o.name), 1, true)
      end)
    end
  end

  it("has its old name tested in this spec", function()
    for name in pairs(values) do assert.is_true(seen[name], name) end
  end)

  it("has new values for old ones, in text and tables", function()
    for _, c in ipairs {{"topology", "standard", "default"}, {"compress", "auto", "adaptive"},
      {"compress", {name = "auto"}, "adaptive"}} do
      local list, opts = noticed(options.current, {[c[1]] = c[2]})
      assert.equal(c[3], opts[c[1]])
      local old = type(c[2]) == "table" and c[2].name or c[2]
      assert.same({("exchange: %s = %s, %s = %s"):format(c[1], old, c[1], c[3])}, list)
    end
    local list, opts = noticed(options.current, {compress = "auto:ratio=8", topology = "auto"})
    assert.same({"auto:ratio=8", "auto"}, {opts.compress, opts.topology})
    assert.same({}, list)
  end)

  it("gives the same settings by either name", function()
    local _, old = noticed(atomo.exchange, {small = "compress", topology = "standard", compress = "entry:ratio=8"})
    local new = atomo.exchange {fuse_small = "compress", topology = "default", compress = "entry:ratio=8"}
    for name in pairs(new.settings) do
      if name ~= "given" then assert.same(new.settings[name], old.settings[name], name) end
    end
    assert.equal(new.topology, old.topology)
  end)

  it("is suggested by its new name", function()
    for word, name in pairs {smal = "fuse_small", inne = "inter_node", downlnk = "downlink", fligt = "flight_prefix"} do
      assert.error_matches(function() atomo.exchange {[word] = "x"} end,
        ("unknown option '%s', did you mean '%s'?"):format(word, name), 1, true)
    end
  end)

  it("adaptive is refused with options", function()
    for _, spec in ipairs {"adaptive:ratio=8", {name = "adaptive", ratio = 8}} do
      assert.error_matches(function() atomo.exchange {compress = spec} end,
        "expected adaptive without options, or a compressor", 1, true)
    end
  end)
end)

describe("an option of the training scripts", function()
  local help = select(2, cli.read(train, {"--help"}))
  local count = 0
  for _, o in ipairs(train.options) do
    if o.was then
      count = count + 1
      local value = o.choices and o.choices[2] or "x"
      it(("--%s means --%s"):format(o.was, o[1]), function()
        local list, old = noticed(cli.read, train, {"--" .. o.was, value})
        local _, new = noticed(cli.read, train, {"--" .. o[1], value})
        assert.same(new, old)
        assert.equal(value, old[o.was]) -- the key of logs
        assert.same({("train.lua: --%s, --%s"):format(o.was, o[1])}, list)
        local _, none, text = noticed(cli.read, train, {"--" .. o.was, value, "--" .. o[1], value})
        assert.is_nil(none)
        assert.equal(("--%s (once --%s) is given twice, expected one value"):format(o[1], o.was), text)
      end)

      it(("--%s is not in the help, --%s is"):format(o.was, o[1]), function()
        assert.truthy(help:find("\n  --" .. o[1] .. " ", 1, true))
        assert.falsy(help:find("\n  --" .. o.was .. " ", 1, true))
      end)
    end
    for old, new in pairs(o.was_value or {}) do
      it(("--%s %s means %s"):format(o[1], old, new), function()
        local list, opts = noticed(cli.read, train, {"--" .. o[1], old})
        assert.equal(new, opts[o[1]])
        assert.same({("train.lua: --%s %s, --%s %s"):format(o[1], old, o[1], new)}, list)
      end)
    end
  end

  it("is renamed wherever the exchange's is", function() assert.equal(4, count) end)

  it("is suggested by its new name", function()
    local _, text = cli.read(train, {"--smal", "dense"})
    assert.matches("unknown option %-%-smal, did you mean %-%-fuse%-small%?", text)
  end)

  it("is announced once, by rank 0 alone", function()
    local possible, why = spawn.possible()
    if not possible then return pending(why) end
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      for _ = 1, 3 do atomo.exchange {small = "dense", topology = "standard"} end]]
    local out, code = spawn.ranks(2, path)
    remove()
    assert.equal(0, code, out)
    assert.same({"exchange: topology = standard is deprecated, use topology = default",
      "exchange: small is deprecated, use fuse_small"}, {out:match "^([^\n]*)\n([^\n]*)\n$"})
  end)
end)

describe("runs of time_to_accuracy.lua", function()
  it("keep the names that they had under the old values", function()
    local opts = {folder = "f", program = "p", script = "s", network = {prefix = "n", name = "n"}, ranks = 2,
      epochs = 1, batch = 8, model = "m", data = "", threads = 1, train = "", clock_steps = 5}
    local function run(item, topology)
      opts.topology = topology
      return plan.run(opts, "train", item, 0.1, 1, 2)
    end
    for old, new in pairs {auto = "adaptive", ["entry:ratio=8"] = "entry:ratio=8", ["auto@ps"] = "adaptive@ps"} do
      assert.equal(run(old, "standard").name, run(new, "default").name)
      assert.equal(run(old, "standard").command, run(new, "default").command)
    end
    assert.matches("^train_auto_lr0.1_seed1_%x+$", run("adaptive", "default").name)
  end)
end)
