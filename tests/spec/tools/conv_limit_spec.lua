-- atomo.conv_limit and atomo_conv2d_limit: what oneDNN itself needs for a layer, for bench_nn.lua --limit.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F
local ffi = require "ffi"
local C = require("atomo.ffi").C
local window = require "atomo.nn.functional.window"

local function status(x, w, opts, pass, algorithm, runs, seconds)
  seconds = seconds or ffi.new "double[3]"
  local rc = C.atomo_conv2d_limit(x.h, w.h, window.of("test", opts), pass, algorithm, runs, seconds)
  return rc == 0 and "OK" or ffi.string(C.atomo_status_name(rc)), ffi.string(C.atomo_last_error())
end

describe("conv2d_limit", function()
  local x, w = atomo.zeros(2, 8, 8, 16), atomo.zeros(16, 3, 3, 16)
  local has_onednn = status(x, w, {padding = 1}, "forward", "direct", 1) == "OK"

  it("gives a time for every run and pass, grouped and strided too", function()
    if not has_onednn then return pending "built without oneDNN" end
    for _, pass in ipairs {"forward", "data", "weights"} do
      local seconds = ffi.new("double[3]", -1, -1, -1)
      assert.equal("OK", (status(x, w, {padding = 1}, pass, "direct", 2, seconds)))
      assert.is_true(seconds[0] >= 0 and seconds[1] >= 0)
      assert.equal(-1, seconds[2])
      assert.equal("OK", (status(x, atomo.zeros(32, 3, 3, 8), {stride = 2, groups = 2}, pass, "direct", 1)))
    end
  end)

  it("says where oneDNN has no Winograd", function()
    local name, text = status(x, w, {stride = 2, padding = 1}, "forward", "winograd", 1)
    assert.equal("EUNSUPPORTED", name)
    assert.truthy(text:find("conv2d_limit", 1, true))
  end)

  it("refuses bad arguments by name", function()
    for _, case in ipairs {
      {w, "backward", "direct", 1, "EARG", 'pass "backward"'}, {w, "data", "fft", 1, "EARG", 'algorithm "fft"'},
      {w, "data", "direct", 0, "EARG", "0 runs"},
      {atomo.zeros(16, 3, 3, 8), "data", "direct", 1, "ESHAPE", "weight wants 8"},
    } do
      local name, text = status(x, case[1], {padding = 1}, case[2], case[3], case[4])
      assert.equal(case[5], name)
      assert.truthy(text:find(case[6], 1, true), text)
    end
    assert.equal("ESHAPE", (status(atomo.zeros(0, 8, 8, 16), w, {padding = 1}, "data", "direct", 1)))
  end)

  it("measures every convolution of a profiled step, and sums calls times the best", function()
    if not has_onednn then return pending "built without oneDNN" end
    local net = nn.Sequential {nn.Conv2d(3, 16, 3, {padding = 1}), nn.Conv2d(16, 16, 3, {padding = 1}),
      nn.Conv2d(16, 16, 3, {padding = 1}), nn.Flatten(), nn.Linear(1024, 10)}
    local images, labels = atomo.randn(2, 8, 8, 3), atomo.zeros(2, "i32")
    local profile = atomo.profile.start()
    for _ = 1, 2 do atomo.scope(function() F.cross_entropy(net(images), labels):backward() end) end
    local rounds = 0
    local limit = require("atomo.tools.conv_limit").measure(profile:stop(), 2, {rounds = 3, step = function()
      rounds = rounds + 1
      return rounds == 3 and 2 or 1 -- the machine was slower in the last round
    end})
    assert.equal(3, rounds)
    assert.equal(2, #limit.layers)
    local first, second = limit.layers[1], limit.layers[2]
    assert.equal("conv2d [2,8,8,3] [16,3,3,3] p1", first.name)
    assert.is_nil(first.times.data) -- the images need no gradient
    assert.equal(1, first.calls)
    assert.equal(2, second.calls)
    local sum = 0
    for _, layer in ipairs(limit.layers) do
      for _, t in pairs(layer.times) do
        assert.equal(math.min(t.direct or math.huge, t.winograd or math.huge), t.best)
        assert.is_true(t.own > 0)
        sum = sum + layer.calls * t.best
      end
    end
    assert.near(sum, limit.seconds, 1e-12)
    for r = 1, 3 do -- a round's share is of that round's times
      local limit_r = 0
      for _, layer in ipairs(limit.layers) do
        for pass, lists in pairs(layer.passes) do
          limit_r = limit_r + layer.calls * lists[layer.times[pass].winner][r]
        end
      end
      assert.near(limit_r / limit.steps[r], limit.shares[r], 1e-12)
    end
    limit.shares = {0.5, 0.75, 0.25}
    local text = limit:text()
    assert.truthy(text:find("whole step 1000.0 ms; share of the limit 0.50 (3 rounds, 0.25 to 0.75)", 1, true), text)
    assert.truthy(text:find("weights", 1, true))
  end)
end)
