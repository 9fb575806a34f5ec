-- What oneDNN itself needs for a layer, for bench_nn.lua --limit (atomo.tools.conv_limit, scripts/bench/conv_limit.c).
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F
local conv_limit = require "atomo.tools.conv_limit"
local step_limit = require "atomo.tools.step_limit"
local C = require("atomo.ffi").C
local window = require "atomo.nn.functional.window"

describe("conv_limit", function()
  local has_onednn = conv_limit.available()
  local x = atomo.zeros(2, 8, 8, 16)

  local function convolution(out, taps, opts)
    local w = atomo.zeros(out, 3, 3, taps)
    return {x = x, w = w, gy = F.conv2d(x, w, nil, opts), window = window.of("test", opts)}
  end

  it("the build has its library where it has oneDNN", function()
    assert.equal(require("atomo.core.version").versions().onednn ~= "none", has_onednn)
  end)

  it("gives a time for every pass, grouped and strided too", function()
    if not has_onednn then return pending "built without oneDNN" end
    for _, pass in ipairs {"forward", "data", "weights"} do
      for _, l in ipairs {convolution(16, 16, {padding = 1}), convolution(32, 8, {stride = 2, groups = 2})} do
        local seconds = conv_limit.time_onednn(l, pass, "direct", C.ATOMO_PRECISION_FP32)
        assert.is_true(seconds >= 0 and seconds < math.huge)
      end
    end
  end)

  it("says where oneDNN has no Winograd", function()
    if not has_onednn then return pending "built without oneDNN" end
    assert.is_nil(conv_limit.time_onednn(convolution(16, 16, {stride = 2, padding = 1}), "forward", "winograd",
      C.ATOMO_PRECISION_FP32))
  end)

  it("measures every convolution of a profiled step, and sums calls times the best", function()
    if not has_onednn then return pending "built without oneDNN" end
    local net = nn.Sequential {nn.Conv2d(3, 16, 3, {padding = 1}), nn.Conv2d(16, 16, 3, {padding = 1}),
      nn.Conv2d(16, 16, 3, {padding = 1}), nn.Flatten(), nn.Linear(1024, 10)}
    local images, labels = atomo.randn(2, 8, 8, 3), atomo.zeros(2, "i32")
    local parts = step_limit.parts(2, function()
      atomo.scope(function() F.cross_entropy(net(images), labels):backward() end)
    end)
    local rounds = 0
    local whole = step_limit.measure(parts, {rounds = 3, step = function()
      rounds = rounds + 1
      return rounds == 3 and 2 or 1 -- the machine was slower in the last round
    end})
    local limit, products = unpack(whole.parts)
    assert.equal("convolutions", limit.name)
    assert.equal(3, #products.rows) -- the linear layer's, none of a convolution
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
      local sum_r = limit_r + products:seconds_of_round(r)
      assert.near(sum_r / whole.steps[r], whole.shares[r], 1e-12)
    end
    whole.shares = {0.5, 0.75, 0.25}
    local text = whole:text()
    assert.truthy(text:find("whole step 1000.0 ms; share of the limit 0.50 (3 rounds, 0.25 to 0.75)", 1, true), text)
    assert.truthy(text:find("weights", 1, true))
  end)

  it("gives each pass operands of the precision in which the runtime computes it", function()
    if not has_onednn then return pending "built without oneDNN" end
    local net = nn.Sequential {nn.Conv2d(16, 32, 3, {padding = 1}), nn.ReLU(),
      nn.Conv2d(32, 32, 3, {padding = 1, groups = 2})}
    local x0 = atomo.param(atomo.randn(2, 16, 16, 16))
    local parts = step_limit.parts(1, function()
      atomo.scope(function() atomo.autocast(function() return net(x0):sum() end):backward() end)
    end)
    local limit = step_limit.measure(parts, {rounds = 1, step = function() return 1 end}).parts[1]
    local has_bf16 = require("ffi").string(C.atomo_build_info "bf16") == "AMX"
    for _, t in pairs(limit.layers[2].times) do assert.equal("fp32", t.precision) end -- grouped
    for _, t in pairs(limit.layers[1].times) do
      assert.equal(has_bf16 and "bf16" or "fp32", t.precision)
      assert.is_true(t.direct > 0)
      if has_bf16 then assert.is_nil(t.winograd) end
    end
    assert.is_true(limit.complete)
  end)

  it("tells that precision for each pass, and refuses a pass that is none", function()
    local w = atomo.zeros(16, 3, 3, 16)
    local win = window.of("test", {padding = 1})
    for pass = 0, 2 do
      assert.equal(C.ATOMO_PRECISION_FP32,
        C.atomo_conv2d_pass_precision(x.h, w.h, win, C.ATOMO_PRECISION_FP32, pass))
    end
    local refused = C.atomo_conv2d_pass_precision(x.h, w.h, win, C.ATOMO_PRECISION_FP32, 3)
    assert.equal("EARG", require("ffi").string(C.atomo_status_name(refused)))
    assert.equal("conv2d: pass 3, expected 0 to 2", require("ffi").string(C.atomo_last_error()))
  end)
end)
