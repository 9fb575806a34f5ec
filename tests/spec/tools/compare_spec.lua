-- Compressors side by side: what is measured, what is drawn, and the script as a person runs it.
-- test: slow
local atomo = require "atomo"
local compare = require "atomo.tools.compare"
local plot = require "atomo.tools.plot"
local json = require "atomo.core.json"
local root = require "support.root"
local spawn = require "support.spawn"
local scripts = root .. "scripts/"

describe("compare", function()
  it("puts them before overrides", function()
    assert.equal("svd:ratio=16;fc=none", compare.expand({"svd;fc=none"}, {16})[1].text)
  end)

  it("puts ratios into the specs that take one and name no budget", function()
    local texts = {}
    for i, item in ipairs(compare.expand({"none", "entry", "svd:bits=4", "svd:ratio=3", "entry:atoms=5"}, {16, 64})) do
      texts[i] = item.text
    end
    assert.same({"none", "entry:ratio=16", "entry:ratio=64", "svd:bits=4,ratio=16", "svd:bits=4,ratio=64",
      "svd:ratio=3", "entry:atoms=5"}, texts)
  end)

  it("measures the stated figures of the compressor", function()
    local grads, names = require("atomo.tools.gradients").made_up()
    for i, spec in ipairs {"entry:ratio=16", "svd:ratio=16", "none", "entry:ratio=16", "taps:ratio=16"} do
      local r = compare.measure(spec, grads, names, 12, i > 3)
      assert.is_true(math.abs(r.measured - r.predicted) <= 6 * r.measured_error + 0.02 * r.predicted + 1e-12, spec)
      assert.is_true(r.encode_ms > 0 and r.decode_ms > 0 and r.bytes > 0 and r.unbiased)
      assert.near(r.over_bound, r.predicted * (4 ^ (8 * r.bytes / (r.dense_bytes / 4)) - 1), 1e-9 * r.over_bound)
      if spec ~= "none" then assert.is_true(math.abs(r.ratio / 16 - 1) < 0.1, spec .. " " .. r.ratio) end
    end
  end)

  it("draws the bound of normal entries beside the measured errors", function()
    local results = {}
    for i, bytes in ipairs {1000, 500} do
      results[i] = {name = "entry", unbiased = true, bytes = bytes, dense_bytes = 16000, ratio = 16000 / bytes,
        measured = i}
    end
    local series = compare.chart(results, "A").series
    assert.equal("bound for normal entries", series[2].name)
    assert.same({{500, 1 / (4 ^ 1 - 1)}, {1000, 1 / (4 ^ 2 - 1)}}, series[2].points)
  end)

  it("draws a complete chart, without points that a logarithmic axis cannot show", function()
    local text = plot.svg(compare.chart({
      {name = "a<b", unbiased = true, bytes = 100, measured = 2}, {name = "a<b", unbiased = true, bytes = 1000,
        measured = 0.1}, {name = "none", unbiased = true, bytes = 4000, measured = 0},
      {name = "topk", unbiased = false, bytes = 500, measured = 0.5}}, "A & B"))
    assert.truthy(text:find("^<svg .*</svg>\n$"))
    for _, part in ipairs {"A &amp; B", ">a&lt;b<", ">topk (biased)<", ">bytes a step<", ">1 k<", "relative squared"} do
      assert.truthy(text:find(part, 1, true), part)
    end
    assert.falsy(text:find(">none<", 1, true))
    assert.falsy(text:find "nan" or text:find "inf")
    local _, lines = text:gsub("<polyline", "")
    assert.equal(2, lines)
    assert.truthy(plot.svg({x = {}, y = {}, series = {{name = "line", points = {{-1, 0}, {3, 5}}}}}):find(">line<"))
    assert.truthy(plot.svg({x = {log = true}, y = {log = true}, series = {}}):find "</svg>")
    local through_zero = plot.svg {x = {}, y = {}, series = {{name = "line", points = {{0, 1}, {50, 2}}}}}
    assert.truthy(through_zero:find ">0<")
    assert.falsy(through_zero:find(">-0<", 1, true))
    local long = plot.svg({x = {}, y = {}, series = {{name = ("m"):rep(60), points = {{0, 1}, {1, 2}}}}})
    assert.is_true(tonumber(long:match 'width="(%d+)"') >= 900 + 60 * 7 + 66 - 210) -- wide enough for the name
  end)
end)

describe("scripts", function()
  local folder = os.tmpname()
  setup(function() os.remove(folder) end)
  teardown(function() for _, ending in ipairs {".svg", ".png", ".json"} do os.remove(folder .. ending) end end)

  local possible, why = spawn.possible()
  local function script(name, fn)
    it(name, function() if possible then fn() else pending(why) end end)
  end

  script("compare_compressors.lua --ranks prints the error of the mean, with and without draws that cancel", function()
    local out, code = spawn.host {scripts .. "compare_compressors.lua", "--model", "lenet", "--steps", "2", "--ranks",
      "2,4", "--compress", "qsgd none", "--draws", "3"}
    assert.equal(0, code, out)
    local cosine = tonumber(out:match "cosine of two ranks' gradients ([%d.]+)")
    assert.is_true(cosine > 0 and cosine < 1, out)
    local with, without, gain, more = out:match "\nqsgd%s+(%S+)%s+(%S+)%s+(%S+)%s+%S+%s+%S+%s+(%S+)"
    assert.near(without / with, tonumber(gain), 0.01)
    assert.is_true(tonumber(gain) > 1.1 and tonumber(more) > tonumber(gain), out)
    assert.matches("\nnone%s+0%s+0%s+%-", out)
    out, code = spawn.host {scripts .. "compare_compressors.lua", "--ranks", "2"}
    assert.equal(1, code)
    assert.matches("%-%-ranks takes %-%-model", out)
  end)

  script("compare_compressors.lua prints a table, writes JSON and a chart", function()
    local out, code = spawn.host {scripts .. "compare_compressors.lua", "--compress", "entry topk", "--draws", "2",
      "--load", scripts .. "atoms/haar.lua", "--compress", "haar_lua", "--ratio", "16,64", "--json",
      folder .. ".json", "--plot", folder}
    assert.equal(0, code, out)
    assert.truthy(out:find("haar_lua:ratio=64", 1, true) and out:find("biased", 1, true), out)
    local file = assert(io.open(folder .. ".json"))
    local results = json.decode(file:read "*a").results
    file:close()
    assert.equal(6, #results)
    assert.is_true(results[1].predicted > 0 and results[1].asked == 16)
    assert.truthy(io.open(folder .. ".svg"))
  end)

  script("verify.lua passes and fails by its exit code", function()
    local out, code = spawn.host {scripts .. "verify.lua", "--compress", "entry:ratio=8", "--draws", "200", "--shape",
      "12,10"}
    assert.equal(0, code, out)
    assert.truthy(out:find("all passed", 1, true))
    local path = folder .. ".lua"
    local file = assert(io.open(path, "w"))
    file:write [[require("atomo").basis("long", {analyze = function(g) return g * 1.001 end,
      synthesize = function(c) return c end})]]
    file:close()
    out, code = spawn.host {scripts .. "verify.lua", "--load", path, "--compress", "long", "--draws", "200",
      "--shape", "9"}
    os.remove(path)
    assert.equal(1, code, out)
    assert.truthy(out:find("FAIL full budget", 1, true), out)
  end)
end)

describe("gradients", function()
  it("come from a model", function()
    atomo.set_num_threads(1)
    local grads, names = require("atomo.tools.gradients").model("mlp", 0)
    assert.equal(#grads, #names)
    for _, g in ipairs(grads) do assert.is_true(g:dim() >= 2 and g:norm_value(2) > 0) end
    assert.is_false((pcall(require("atomo.tools.gradients").model, "mpl", 0)))
  end)
end)
