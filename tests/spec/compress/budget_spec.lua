-- Budgets that change (schedules), and tensors that are coded otherwise (overrides by name): what is spent, what is
-- refused, the texts. Lengths are deterministic for the seed.
local atomo = require "atomo"
local T = require "atomo.tensor"
local fails = require("support.codec").fails

local shapes, names = {{24, 3, 3, 8}, {16, 40}, {30, 50}}, {"conv1.weight", "conv2.weight", "fc.weight"}
local dense = 4 * (24 * 72 + 640 + 1500)

local function gradients(step)
  local list = {}
  for i, shape in ipairs(shapes) do
    list[i] = atomo.randn(shape)
    local p = list[i]:data()
    for j = 0, list[i]:numel() - 1 do p[j] = p[j] ^ 3 * (1 + 0.3 * math.sin(step)) end
  end
  return list
end

--- Returns the bytes of each streamed step.
local function stream(c, steps, epochs)
  c:prepare(shapes, names)
  local out, bytes, list = T.zeros(c:wire_max(), "u8"), {}, {}
  atomo.manual_seed(5)
  for k = 0, 6 do list[k] = gradients(k) end
  for step = 0, steps - 1 do
    if epochs then c:set_epoch(1 + math.floor(step / epochs)) end
    c:begin_step(step, 0)
    bytes[step] = 0
    for i, g in ipairs(list[step % 7]) do bytes[step] = bytes[step] + c:push(i, g, out, bytes[step]) end
    c:end_step()
  end
  return bytes
end

describe("a budget that is a function", function()
  local threads = atomo.num_threads()
  setup(function() atomo.set_num_threads(1) end)
  teardown(function() atomo.set_num_threads(threads) end)

  it("is called before every step, with step, epoch and statistics of the last step", function()
    local asked = {}
    local c = atomo.compressor {name = "entry", budget = function(step, epoch, stats)
      asked[#asked + 1] = {step, epoch, stats.nbytes}
      return 8
    end}
    local bytes = stream(c, 4, 2)
    assert.same({{0, 1, 0}, {1, 1, bytes[0]}, {2, 2, bytes[1]}, {3, 2, bytes[2]}}, asked)
    assert.equal("entry:budget=function", tostring(c))
  end)

  for name, budgets in pairs {
    ["ratios that fall"] = function(step) return 8 + step / 10 end,
    ["bytes in steps"] = function(step) return {bytes = step % 80 < 40 and 1200 or 500} end,
    ["a ratio by epochs"] = function(_, epoch) return {ratio = epoch % 2 == 0 and 10 or 20} end,
  } do
    it("is met within 2 % on average: " .. name, function()
      for _, spec in ipairs {"entry", "svd", name == "bytes in steps" and "auto" or nil} do
        local want = 0
        local c = atomo.compressor {name = spec, budget = function(step, epoch)
          local b = budgets(step, epoch)
          want = want + (type(b) == "number" and dense / b or b.bytes or dense / b.ratio)
          return b
        end}
        local sum = 0
        for _, n in pairs(stream(c, 240, 40)) do sum = sum + n end
        assert.near(1, sum / want, 0.02)
      end
    end)
  end

  it("moves the price at once, not only in the second step under another budget", function()
    for _, spec in ipairs {"entry", "svd"} do
      local bytes = stream(atomo.compressor {name = spec, budget = function(step)
        return {bytes = step < 14 and 1600 or step < 28 and 500 or 2400}
      end}, 30)
      assert.is_true(bytes[14] < 1000, spec .. " " .. bytes[14]) -- 500 is the budget; the old price would give 1600
      assert.is_true(bytes[28] > 1000, spec .. " " .. bytes[28]) -- 2400 is; the old price would give 500
    end
  end)

  it("holds for the exact forms, and for a compressor written in Lua", function()
    local g = gradients(0)
    local c = atomo.compressor {name = "entry", budget = function(step) return {bytes = step == 0 and 2000 or 400} end}
    for step, bytes in pairs {[0] = 2000, [1] = 400} do
      c:encode_all(g, {step = step})
      assert.near(1, c:stats().nbytes / bytes, 0.1)
    end
    atomo.basis("same", {analyze = function(x) return x:clone() end, synthesize = function(x, shape)
      return x:view(shape)
    end})
    c = atomo.compressor {name = "same", budget = function(step) return {bytes = step == 0 and 2000 or 400} end}
    c:encode_all(g, {step = 0})
    assert.near(1, c:stats().nbytes / 2000, 0.1)
    c:encode_all(g, {step = 1})
    assert.near(1, c:stats().nbytes / 400, 0.1)
  end)

  it("is refused where it returns no budget, and beside another one", function()
    for text, value in pairs {["returned 0"] = false, ["ratio = -1"] = {ratio = -1}, ["ratio = nan"] = 0 / 0,
      ["a table with 'rate'"] = {rate = 3}, ["more than one budget"] = {ratio = 3, bytes = 7}, ["an empty table"] = {},
      ["bytes = x"] = {bytes = "x"}, ["returned 8"] = "8"} do
      if text == "returned 0" then value = "0" end
      local c = atomo.compressor {name = "svd", budget = function() return value end}
      fails(text, c.encode, c, atomo.randn(8, 8), {step = 3})
    end
    local c = atomo.compressor {name = "svd", budget = function() end}
    fails("svd: budget(step = 3, epoch = 1) returned nil", c.encode, c, atomo.randn(8, 8), {step = 3})
    fails("give one of budget, atoms, ratio and bytes", atomo.compressor, {name = "svd", ratio = 4, budget = print})
    fails("budget is 7, expected function(step, epoch, stats)", atomo.compressor, {name = "svd", budget = 7})
    fails("qsgd: budget: it takes no budget", atomo.compressor, {name = "qsgd", budget = print})
    fails("atoms of different families", function()
      atomo.compressor({name = "auto", budget = function() return {atoms = 3} end}):encode(atomo.randn(8, 8))
    end)
  end)

  it("has a name as a preset, whose options and budget can be others", function()
    atomo.preset("falling", {name = "svd", bits = 4, budget = function(step) return 4 + step end})
    assert.equal("svd:budget=function,bits=4", tostring(atomo.compressor "falling"))
    assert.equal("svd:budget=function,bits=2", tostring(atomo.compressor "falling:bits=2"))
    assert.equal("svd:ratio=9,bits=4", tostring(atomo.compressor "falling:ratio=9"))
    fails("there is a compressor called svd", atomo.preset, "svd", {name = "entry"})
    fails("unknown compressor 'nothing'", atomo.preset, "other", {name = "nothing"})
    fails("name is 3", atomo.preset, 3, {name = "svd"})
  end)
end)

describe("overrides", function()
  local function encoded(spec)
    local c = atomo.compressor(spec, {seed = 2})
    c:prepare(shapes, names)
    atomo.manual_seed(1)
    local g = gradients(0)
    return c, g, c:encode_all(g, {step = 0})
  end

  it("hold for names that come after a plan without one, or change", function()
    local g = atomo.randn(48, 24)
    local function lengths(c)
      c:encode_all({g, g}, {step = 1})
      return c:stats(1).nbytes, c:stats(2).nbytes
    end
    local c = atomo.compressor "taps:ratio=8;^fc=none"
    c:prepare({g:shape(), g:shape()})
    local first, second = lengths(c)
    assert.is_true(first < 4 * g:numel() and second < 4 * g:numel())
    for _, given in ipairs {{"conv", "fc"}, {"fc", "conv"}} do
      c:prepare({g:shape(), g:shape()}, given)
      first, second = lengths(c)
      local large = given[1] == "fc" and first or second
      assert.is_true(large >= 4 * g:numel() and first + second - large < 4 * g:numel(), given[1])
    end
  end)

  it("code tensors of such names otherwise, in one budget", function()
    local c, g, list = encoded {name = "svd", ratio = 8, overrides = {{"^fc", "entry:step=0"}, {"conv1", {bits = 4}}}}
    assert.equal("svd:ratio=8;^fc=entry:step=0;conv1=svd:bits=4", tostring(c))
    assert.near(1, c:stats().nbytes / (dense / 8), 0.35)
    local alone = atomo.compressor("svd:bits=4")
    for i, m in ipairs(list) do
      local ghat = c:decode(m)
      assert.same(g[i]:shape(), ghat:shape())
      assert.is_true(c:stats(i).variance > 0)
    end
    alone:prepare(shapes, names)
    fails("hash", alone.decode, alone, list[1]) -- not what was planned
    local sum = 0
    for i = 1, 3 do sum = sum + c:stats(i).nbytes end
    assert.equal(sum, c:stats().nbytes)
  end)

  it("send a tensor as it is with none, and leave the others the rest of the budget", function()
    local c, g, list = encoded "entry:bytes=4000;conv2=none"
    assert.equal(0, (c:decode(list[2]) - g[2]):norm_value(2))
    assert.equal(0, c:stats(2).variance)
    assert.near(4000, c:stats().nbytes, 120)
    assert.is_true(c:stats(1).nbytes + c:stats(3).nbytes < 1500)
  end)

  it("take the first pattern that fits, and none where no name is known", function()
    local c = encoded "entry:ratio=4;conv=svd:bits=4;conv2=none"
    assert.equal("svd", c:override_of "conv2.weight")
    assert.is_nil(c:override_of "bn.weight")
    assert.is_nil(c:override_of(nil))
  end)

  it("stay unbiased and go with auto", function()
    local g, sum = atomo.randn(16, 40), atomo.zeros(16, 40)
    local c = atomo.compressor("auto:ratio=6;^g$=svd:bits=3", {seed = 4})
    c:prepare({{16, 40}, {16, 40}}, {"g", "h"})
    local variance, draws = 0, 400
    for step = 1, draws do
      local m = c:encode_all({g, g}, {step = step})
      c:decode_add(m[1], 1 / draws, sum)
      variance = variance + c:stats(1).variance / draws
    end
    local error = (sum - g):norm_value(2) ^ 2 -- E = variance / draws
    assert.is_true(error < 2 * variance / draws, error * draws / variance)
    assert.equal("svd", c:override_of "g")
    assert.truthy(c:stats(2).family)
  end)

  it("are refused where they cannot be", function()
    fails("'qsgd' is neither a set of atoms", atomo.compressor, "svd:ratio=4;fc=qsgd")
    fails("qsgd: overrides: only built-in sets of atoms", atomo.compressor, "qsgd;fc=none")
    fails("ratio is the whole compressor's", atomo.compressor, "svd:ratio=4;fc=svd:ratio=3")
    fails("pattern 1 is '(': unfinished capture", atomo.compressor, {name = "svd", overrides = {{"(", "none"}}})
    fails("number 1 is a table of 1", atomo.compressor, {name = "svd", overrides = {{"fc"}}})
    fails("pattern 1 is 3", atomo.compressor, {name = "svd", overrides = {{3, "none"}}})
    fails("there is 7", atomo.compressor, {name = "svd", overrides = {{"fc", 7}}})
    fails("unknown option 'bit'", atomo.compressor, "svd:ratio=4;fc=bit=8")
    fails("cannot read 'fc'", atomo.compressor, "svd:ratio=4;fc")
    fails("cannot share a budget in atoms", function()
      atomo.compressor("entry:atoms=4;x=auto"):prepare({{4, 4}}, {"x"})
    end)
  end)
end)
