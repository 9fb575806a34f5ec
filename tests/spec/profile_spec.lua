-- atomo.profile: counts what ran, forward and backward, and leaves no trace behind.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

describe("profile", function()
  local function step(net, x, labels)
    atomo.scope(function() F.cross_entropy(net(x), labels):backward() end)
  end

  it("has a row per operator and shape, with calls and work", function()
    local net = nn.Sequential {nn.Conv2d(3, 8, 3, {padding = 1}), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)}
    local x, labels = atomo.randn(2, 4, 4, 3), atomo.zeros(2, "i32")
    local profile = atomo.profile.start()
    for _ = 1, 3 do step(net, x, labels) end
    profile:stop()
    step(net, x, labels) -- not counted
    local conv, linear = profile.rows["conv2d [2,4,4,3] [8,3,3,3] p1"], profile.rows["linear [2,128] [10,128]"]
    assert.equal(3, conv.forward.calls)
    assert.equal(3, conv.backward.calls)
    assert.equal(3 * 2 * 2 * 16 * 8 * 27, conv.forward.flops)
    assert.equal(conv.forward.flops, conv.backward.flops)              -- the images need no gradient
    assert.equal(2 * linear.forward.flops, linear.backward.flops)
    assert.equal(3 * 4 * 2 * 256, profile.rows["relu [2,4,4,8]"].forward.bytes)
    local text = profile:text(3)
    for _, part in ipairs {"limits: sgemm", "conv2d [2,4,4,3] [8,3,3,3] p1", "GFLOP/s", "GB/s", "outside operators"} do
      assert.truthy(text:find(part, 1, true), part)
    end
  end)
end)
