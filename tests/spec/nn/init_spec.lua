-- nn.init against PyTorch's formulas, by moments and bounds of many values; the initial values of layers, and of the
-- networks in models/.
local atomo = require "atomo"
local fails = require "support.fails"
local nn = atomo.nn
local init = nn.init

local function std(t) return t:detach():square():mean():item() ^ 0.5 end

--- 73,728 values: their measured standard deviation is off by 0.3 % (one sigma, normal); bounds of 2 % are missed with
--- a probability below 1e-9.
local function weight() return atomo.param(atomo.zeros(64, 3, 3, 128)) end -- fan_in 1152, fan_out 576

local function is_normal(t, sigma)
  assert.is_true(math.abs(std(t) / sigma - 1) < 0.02, ("%g, expected %g"):format(std(t), sigma))
  assert.is_true(t:detach():abs():max():item() > 3 * sigma)
end

local function is_uniform(t, bound)
  local most = t:detach():abs():max():item()
  assert.is_true(most <= bound * (1 + 1e-6) and most > 0.98 * bound, ("%g, expected %g"):format(most, bound))
  assert.is_true(math.abs(std(t) * math.sqrt(3) / bound - 1) < 0.02)
end

describe("nn.init", function()
  before_each(function() atomo.manual_seed(5) end)

  it("draws by the fans of a weight", function()
    is_normal(init.kaiming_normal_(weight()), math.sqrt(2 / 1152))
    is_normal(init.kaiming_normal_(weight(), {mode = "fan_out", nonlinearity = "relu"}), math.sqrt(2 / 576))
    is_normal(init.kaiming_normal_(weight(), {nonlinearity = "tanh"}), 5 / 3 / math.sqrt(1152))
    is_uniform(init.kaiming_uniform_(weight(), {a = math.sqrt(5)}), 1 / math.sqrt(1152))
    is_uniform(init.kaiming_uniform_(weight(), {a = 1, mode = "fan_out"}), math.sqrt(3 / 576))
    is_normal(init.xavier_normal_(weight(), 2), 2 * math.sqrt(2 / 1728))
    is_uniform(init.xavier_uniform_(weight()), math.sqrt(6 / 1728))
  end)

  it("fills and draws plainly, outside the graph", function()
    local w = weight()
    assert.is_true(rawequal(w, init.ones_(w)))
    assert.equal(1, w:detach():min():item())
    assert.equal(0.25, init.constant_(w, 0.25):detach():max():item())
    assert.equal(0, init.zeros_(w):detach():abs():max():item())
    is_normal(init.normal_(w), 1)
    is_normal(init.normal_(w, 0, 0.02), 0.02)
    local u = init.uniform_(w):detach()
    assert.is_true(u:min():item() >= 0 and u:max():item() < 1 and math.abs(u:mean():item() - 0.5) < 0.01)
    is_uniform(init.uniform_(w, -3, 3), 3)
    assert.is_nil(w.node)
  end)

  it("knows the gains", function()
    for name, gain in pairs {linear = 1, conv2d = 1, sigmoid = 1, tanh = 5 / 3, selu = 0.75, relu = math.sqrt(2)} do
      assert.equal(gain, init.calculate_gain(name))
    end
    assert.is_near(math.sqrt(2 / 1.0001), init.calculate_gain "leaky_relu", 1e-12)
    assert.is_near(1, init.calculate_gain("leaky_relu", 1), 1e-12)
  end)

  it("truncates normals: bounds and the remaining variance", function()
    local w = init.trunc_normal_(weight(), 0, 1, -1, 1):detach()
    assert.is_true(w:abs():max():item() <= 1)
    assert.is_true(math.abs(std(w) / 0.5396 - 1) < 0.02) -- 1 - 2 phi(1) / (2 Phi(1) - 1), its root
    is_normal(init.trunc_normal_(weight(), 0, 0.02), 0.02) -- bounds of 100 sigma
    w = init.trunc_normal_(weight(), 1, 2, 0, 1e-3):detach()
    assert.is_true(w:min():item() >= 0 and w:max():item() <= 1e-3 and math.abs(w:mean():item() - 5e-4) < 1e-5)
  end)

  it("makes rows or columns orthonormal", function()
    for _, sizes in ipairs {{5, 9}, {9, 5}, {4, 3, 1, 2}, {1, 1}} do
      local w = init.orthogonal_(atomo.param(atomo.zeros(sizes)), 2):detach():view(sizes[1], -1)
      if w:size(1) > w:size(2) then w = w:t():contiguous() end
      local gram = w:matmul(w:t():contiguous()) / 4
      for i = 1, gram:size(1) do gram:set(i, i, gram:get(i, i) - 1) end
      assert.is_true(gram:abs():max():item() < 1e-6)
    end
  end)

  it("refuses invalid arguments", function()
    fails("init.kaiming_normal_: tensor is [3], which has no fan", init.kaiming_normal_, atomo.zeros(3))
    fails("init.kaiming_uniform_: mode is 'in', expected fan_in or fan_out", init.kaiming_uniform_, weight(),
      {mode = "in"})
    fails("nonlinearity is 'gelu'", init.kaiming_normal_, weight(), {nonlinearity = "gelu"})
    fails("init.kaiming_normal_: unknown option 'gain'", init.kaiming_normal_, weight(), {gain = 2})
    fails("init.xavier_normal_: gain is x", init.xavier_normal_, weight(), "x")
    fails("init.constant_: value is nil", init.constant_, weight())
    fails("init.uniform_: tensor is i32, expected f32", init.uniform_, atomo.zeros(2, "i32"))
    fails("init.trunc_normal_: mean 9", init.trunc_normal_, weight(), 9, 1)
  end)
end)

describe("initial values", function()
  before_each(function() atomo.manual_seed(5) end)

  it("of Conv2d and Linear are PyTorch's", function()
    local conv = nn.Conv2d(128, 512, 3, {groups = 2})
    is_uniform(conv.weight, 1 / math.sqrt(64 * 9))
    local most = conv.bias:detach():abs():max():item() * math.sqrt(64 * 9)
    assert.is_true(most > 0.95 and most <= 1 + 1e-6) -- 512 draws: missed with a probability of 4e-12
    is_uniform(nn.Linear(300, 700).weight, 1 / math.sqrt(300))
  end)

  it("of Conv2d with init are that function's", function()
    local before = atomo.rand(1):item()
    atomo.manual_seed(5)
    local conv = nn.Conv2d(2, 3, 3, {init = function(w, b)
      init.constant_(w, 2)
      init.constant_(b, 3)
    end})
    assert.equal(2, conv.weight:detach():mean():item())
    assert.equal(3, conv.bias:detach():mean():item())
    assert.equal(before, atomo.rand(1):item()) -- nothing was drawn
    assert.is_true(conv.weight.requires_grad and conv.weight.node == nil)
  end)

  it("of the networks' convolutions are He's, by fan_out", function()
    local net = require("models.vgg").vgg11 {}
    is_normal(net[4].weight, math.sqrt(2 / (128 * 9)))
    assert.equal(0, net[4].bias:detach():abs():max():item())
  end)

  it("are set by Module:apply, from the inside out", function()
    local net, names = nn.Sequential {nn.Linear(2, 3), nn.Residual(nn.Linear(3, 3))}, {}
    net:apply(function(m)
      names[#names + 1] = m.class_name
      if m.class_name == "Linear" then init.ones_(m.weight) end
    end)
    assert.same({"Linear", "Residual", "Linear", "Sequential"}, names)
    assert.equal(1, net[1].weight:detach():min():item())
  end)
end)
