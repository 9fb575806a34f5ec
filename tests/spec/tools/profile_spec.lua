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

  it("has rows of their own for products in bf16, and their limit", function()
    local net, x, labels = nn.Sequential {nn.Flatten(), nn.Linear(4, 10)}, atomo.randn(2, 4), atomo.zeros(2, "i32")
    local profile = atomo.profile.start()
    step(net, x, labels)
    atomo.autocast(step, net, x, labels)
    local text = profile:stop():text()
    assert.truthy(text:find("limits: sgemm %d+ GFLOP/s, bf16 product %d+ GFLOP/s, copy"), text)
    for _, name in ipairs {"linear [2,4] [10,4]", "linear [2,4] [10,4] bf16"} do
      assert.equal(1, profile.rows[name].forward.calls)
      assert.equal(1, profile.rows[name].backward.calls)
    end
    assert.is_nil(profile.rows["cross_entropy [2,10] bf16"])
  end)

  it("ends when another starts, and its own stop leaves the other running", function()
    local net, x, labels = nn.Linear(4, 3), atomo.randn(2, 4), atomo.zeros(2, "i32")
    local first = atomo.profile.start()
    step(net, x, labels)
    assert.is_false(pcall(step, net, atomo.randn(2, 5), labels)) -- an error: nothing stops the first profile
    local second = atomo.profile.start()
    step(net, x, labels)
    local seconds = first.seconds
    assert.truthy(seconds)
    first:stop()
    assert.equal(seconds, first.seconds)
    step(net, x, labels)
    second:stop()
    assert.equal(1, first.rows["linear [2,4] [3,4]"].forward.calls)
    assert.equal(2, second.rows["linear [2,4] [3,4]"].forward.calls)
  end)

  it("has a hook for atomo.train that skips the first two steps and prints the table once", function()
    local net, x, labels = nn.Linear(4, 3), atomo.randn(2, 4), atomo.zeros(2, "i32")
    for _, case in ipairs {{3, 1}, {5, 3}, {40, 10}} do
      local total, steps = unpack(case)
      local texts = {}
      local on_step = atomo.profile.hook(total, function(text) texts[#texts + 1] = text end)
      for i = 1, total do
        step(net, x, labels)
        on_step()
        assert.equal(i >= 2 + steps and 1 or 0, #texts)
      end
      assert.truthy(texts[1]:find(("profile of %d steps:"):format(steps), 1, true), texts[1])
      assert.truthy(texts[1]:find("linear %[2,4%] %[3,4%] +1 "), texts[1]) -- one call a step
    end
    local ok, message = pcall(atomo.profile.hook, 2, print)
    assert.is_false(ok)
    assert.truthy(message:find("the run has 2 steps, it needs 3", 1, true), message)
  end)
end)
