-- cumprod, amax, nonzero, diag, roll, pad, one_hot, meshgrid and their like: every dtype, no element, views, and what
-- is refused. Values and gradients of f32 are in edges_golden_spec.lua.
local atomo = require "atomo"
local fails = require "support.fails"
local nn, F = atomo.nn, atomo.F
local inf, nan = math.huge, 0 / 0

local function whole(dtype) return atomo.tensor({{3, 0, 2}, {1, 2, 0}}, dtype) end

describe("of integers and 16-bit numbers,", function()
  it("products, extremes and counts are exact", function()
    for _, dtype in ipairs {"i32", "u8"} do
      local t = whole(dtype)
      assert.equal("i32", t:cumprod(2):dtype())
      assert.same({{3, 0, 0}, {1, 2, 0}}, t:cumprod(2):totable())
      assert.same({{3, 0, 2}, {3, 0, 0}}, t:cumprod(1):totable())
      assert.same({3, 2}, t:amax(2):totable())
      assert.same({{1, 0, 0}}, t:amin(1, true):totable())
      assert.equal(dtype, t:amax(2):dtype())
      assert.equal(3, t:amax():item())
      assert.same({2, 1, 1}, t:count_nonzero(1):totable())
    end
    local most = atomo.tensor({2147483647, -1}, "i32")
    assert.same({2147483647, -2147483647}, most:cumprod(1):totable())
    assert.equal(16777217, atomo.tensor({16777217, 16777216}, "i32"):amax(1):item())
    fails("cumprod: 4294967294 does not fit i32; convert the tensor first", function()
      return atomo.tensor({2147483647, 2}, "i32"):cumprod(1)
    end)
  end)

  it("what moves elements keeps dtype and values", function()
    for _, dtype in ipairs {"f32", "i32", "u8", "f16", "bf16"} do
      local t = whole(dtype)
      for name, y in pairs {roll = t:roll(1, 2), repeat_interleave = t:repeat_interleave(2, 1), diagonal = t:diagonal(),
        diag = t:select(1, 1):diag(), pad = F.pad(t, {1, 1}, "constant", 9), reflect = F.pad(t, {1, 1}, "reflect"),
        cut = F.pad(t, {-1, 0}), unbind = t:unbind()[2], meshgrid = atomo.meshgrid({t:select(1, 1)})[1]} do
        assert.equal(dtype, y:dtype(), name)
      end
      assert.same({{2, 3, 0}, {0, 1, 2}}, t:roll(1, 2):totable())
      assert.same({{3, 0, 0}, {0, 0, 0}, {0, 0, 2}}, t:select(1, 1):diag():totable())
      assert.same({{9, 3, 0, 2, 9}, {9, 1, 2, 0, 9}}, F.pad(t, {1, 1}, "constant", 9):totable())
      assert.same({{0, 3, 0, 2, 0}, {2, 1, 2, 0, 2}}, F.pad(t, {1, 1}, "reflect"):totable())
      assert.same({{0, 2}, {2, 0}}, F.pad(t, {-1, 0}):totable())
      assert.same({{1, 1}, {1, 3}, {2, 1}, {2, 2}}, t:nonzero():totable())
      assert.equal(4, t:count_nonzero():item())
      assert.is_true(t:equal(whole(dtype)) and t:allclose(whole "f32"))
      assert.is_false(t:equal(t:roll(1, 1)))
    end
  end)

  it("pad takes infinities", function()
    assert.same({-inf, 1, inf, -inf}, F.pad(atomo.tensor {1, inf}, {1, 1}, "constant", -inf):totable())
  end)

  it("masked_fill takes the tensor's dtype", function()
    for _, dtype in ipairs {"f32", "i32", "u8"} do
      local y = whole(dtype):masked_fill(atomo.tensor({0, 1, 0}, "u8"), 7)
      assert.same({{3, 7, 2}, {1, 7, 0}}, y:totable())
      assert.equal(dtype, y:dtype())
    end
    fails("where", function() return whole "u8":masked_fill(atomo.ones(3), 300) end)
  end)
end)

describe("of no element,", function()
  it("results have the shapes that they ought to", function()
    local none = atomo.zeros(0, 3)
    assert.same({0, 3}, none:cumprod(1):shape())
    assert.same({0, 2}, none:nonzero():shape())
    assert.same({0}, none:diagonal():shape())
    assert.same({0, 3}, none:roll(2, 1):shape())
    assert.same({0, 3}, none:repeat_interleave(2, 1):shape())
    assert.same({0, 5}, F.pad(none, {1, 1}):shape())
    assert.same({2, 3}, F.pad(none, {0, 0, 1, 1}):shape())
    assert.same({0, 4}, F.one_hot(atomo.zeros(0, "i32"), 4):shape())
    assert.same({0}, none:amax(2):shape())
    assert.same({}, none:unbind())
    assert.equal(3, #none:unbind(2))
    assert.same({0, 0}, atomo.zeros(0):diag():shape())
    assert.same({0, 2}, atomo.meshgrid({atomo.zeros(0), atomo.zeros(2)})[2]:shape())
    assert.equal(0, none:count_nonzero():item() + none:trace():item())
  end)

  it("a scalar is one element", function()
    local one = atomo.full({}, 3)
    assert.equal(3, one:cumprod(1):item())
    assert.same({1, 0}, one:nonzero():shape())
    assert.same({0, 0}, (one * 0):nonzero():shape())
    assert.equal(1, one:count_nonzero():item())
    assert.equal(3, one:amax():item())
    assert.same({3}, one:roll(5):reshape(1):totable())
    assert.same({3, 3}, one:repeat_interleave(2):totable())
  end)

  it("a maximum is refused", function()
    fails("(ESHAPE)", function() return atomo.zeros(0, 3):amax(1) end)
    fails("one_hot: no labels", F.one_hot, atomo.zeros(0, "i32"))
    for _, loss in ipairs {"l1_loss", "smooth_l1_loss", "huber_loss"} do
      fails(loss .. ": input is [0], an empty batch has no loss", F[loss], atomo.zeros(0), atomo.zeros(0))
    end
  end)
end)

describe("views", function()
  it("diagonal, unbind and meshgrid share memory, and changes carry gradients", function()
    local w = atomo.param(atomo.ones(3, 3))
    local y = w * 2
    y:diagonal(1):fill_(5)
    y:unbind(2)[1]:mul_(3)
    assert.same({{6, 5, 2}, {6, 2, 5}, {6, 2, 2}}, y:totable())
    y:sum():backward()
    assert.same({{6, 0, 2}, {6, 2, 0}, {6, 2, 2}}, w.grad:totable())
    local v = atomo.arange(2)
    local grid = atomo.meshgrid({v, atomo.zeros(3)})
    v:fill_(7)
    assert.same({{7, 7, 7}, {7, 7, 7}}, grid[1]:totable())
  end)

  it("pad without a change, diag, roll by 0 and the like are copies", function()
    local t = atomo.tensor {{1, 2}, {3, 4}}
    for _, y in ipairs {F.pad(t, {}), F.pad(t, {0, 0}), F.pad(t, {-1, 0}), t:diag(), t:roll(0, 1), t:roll(0),
      t:repeat_interleave(1, 1)} do
      y:fill_(9)
      assert.same({{1, 2}, {3, 4}}, t:totable())
    end
  end)
end)

describe("whole tensors", function()
  it("equal and allclose: shapes, NaN, infinities", function()
    local t = atomo.tensor {1, inf, -inf}
    assert.is_true(t:equal(t:clone()) and t:allclose(t:clone()))
    assert.is_false(t:equal(atomo.tensor {1, inf}))
    assert.is_false(t:allclose(atomo.tensor {1, -inf, -inf}))
    assert.is_false(t:allclose(atomo.tensor {inf, inf, -inf}))
    assert.is_false(atomo.tensor {1}:allclose(atomo.tensor {inf}))
    local u = atomo.tensor {1, nan}
    assert.is_false(u:equal(u) or u:allclose(u))
    assert.is_true(u:allclose(u:clone(), {equal_nan = true}))
    assert.is_false(u:allclose(atomo.tensor {1, 2}, {equal_nan = true}))
    assert.is_true(atomo.zeros(2):equal(-atomo.zeros(2)))
    assert.is_true(atomo.ones(2, 2):allclose(atomo.ones(1) + 1e-6))
    assert.is_false(atomo.ones(2):allclose(atomo.full({2}, 1.001)))
    assert.is_true(atomo.ones(2):allclose(atomo.full({2}, 1.001), {rtol = 0, atol = 0.01}))
    fails("equal: operand is i32, expected f32", function() return t:equal(whole "i32") end)
    fails("allclose: unknown option 'tol'", function() return t:allclose(t, {tol = 1}) end)
  end)
end)

describe("one_hot", function()
  it("counts classes from 0, as the losses do", function()
    local labels = atomo.tensor({2, 0}, "i32")
    local logits = atomo.tensor {{1, 2, 3}, {0.5, -1, 0}}
    assert.is_true(F.cross_entropy(logits, labels):allclose(F.cross_entropy(logits, F.one_hot(labels, 3))))
    assert.same({{0, 0, 1}, {1, 0, 0}}, F.one_hot((logits:argmax(2)) - 1):totable())
    fails("one_hot: label 3 at position 2 is outside 0 to 2 (class ids count from 0)", F.one_hot,
      atomo.tensor({0, 3}, "i32"), 3)
    fails("one_hot: label -1 at position 1", F.one_hot, atomo.tensor({-1, 3}, "i32"))
    fails("one_hot: labels is f32, expected i32", F.one_hot, atomo.zeros(2), 3)
    fails("one_hot: number of classes", F.one_hot, labels, 0)
  end)
end)

describe("misuse of", function()
  local t = atomo.ones(2, 3)

  it("pad", function()
    fails("pad: 3 numbers for a tensor of 2 dimensions, expected an even number of at most 4", F.pad, t, {1, 2, 3})
    fails("pad: 6 numbers for a tensor of 2 dimensions", F.pad, t, {1, 2, 3, 4, 5, 6})
    fails("pad: pad is 1, expected a list of whole numbers", F.pad, t, 1)
    fails("pad: number 2", F.pad, t, {1, 0.5})
    fails("pad: mode is 'mirror', a string, expected constant, reflect, replicate or circular", F.pad, t, {1, 1},
      "mirror")
    fails("pad: 3 and 0 beside the 3 elements of dimension 2, mode 'reflect' allows at most 2", F.pad, t, {3, 0},
      "reflect")
    fails("mode 'circular' allows at most 3", F.pad, t, {0, 4}, "circular")
    fails("mode 'replicate' allows at most 0", F.pad, atomo.zeros(0), {1, 0}, "replicate")
    fails("pad: -2 and -2 of the 3 elements of dimension 2", F.pad, t, {-2, -2})
    fails("pad: -2 and -2 of the 3 elements of dimension 2", F.pad, t, {-2, -2}, "reflect")
    fails("pad: value is of mode constant, the mode is reflect", F.pad, t, {1, 1}, "reflect", 0)
    fails("pad: value", F.pad, t:to "u8", {1, 1}, "constant", 300)
  end)

  it("interpolate and Upsample", function()
    local x = atomo.zeros(1, 2, 2, 1)
    fails("interpolate: input is [2,3], expected [N,H,W,C]", F.interpolate, t, {size = 2})
    fails("interpolate: expected one of the options size and scale_factor", F.interpolate, x, {})
    fails("interpolate: expected one of", F.interpolate, x, {size = 2, scale_factor = 2})
    fails("interpolate: mode is 'bicubic', expected nearest or bilinear", F.interpolate, x,
      {size = 2, mode = "bicubic"})
    fails("interpolate: align_corners is of mode bilinear", F.interpolate, x, {size = 2, align_corners = true})
    fails("interpolate: scale_factor is -1", F.interpolate, x, {scale_factor = -1})
    fails("interpolate: [1,2,2,1] by 0.2, 0.2 has no element", F.interpolate, x, {scale_factor = 0.2})
    fails("Upsample: expected one of the options", nn.Upsample, {})
    fails("Upsample: unknown option 'scale'", nn.Upsample, {scale = 2})
    fails("interpolate: options are a number, expected a table", F.interpolate, x, 2)
  end)

  it("activations and losses", function()
    fails("elu: alpha is 'a'", nn.ELU, "a")
    fails("ELU: got 2 arguments, it takes 1 (alpha first)", nn.ELU, 1, 2)
    fails("hardtanh: min_val is 1, max_val 1, expected a larger one", nn.Hardtanh, 1, 1)
    fails("softplus: beta is 0, expected a number above 0", nn.Softplus, 0)
    fails("softplus: threshold is inf", F.softplus, t, 1, inf)
    fails("softplus: input is i32, expected f32", F.softplus, t:int(), 2)
    fails("smooth_l1_loss: beta is -1, expected a number >= 0", F.smooth_l1_loss, t, t, {beta = -1})
    fails("huber_loss: delta is 0, expected a number above 0", F.huber_loss, t, t, {delta = 0})
    fails("huber_loss: input is [2,3], target is [3]", F.huber_loss, t, atomo.ones(3), {delta = 2})
    fails("HuberLoss: unknown option 'beta'", nn.HuberLoss, {beta = 1})
    fails("l1_loss: input is i32, expected f32", F.l1_loss, t:int(), t)
  end)

  it("diagonals, grids, orders", function()
    fails("diagonal: it is of the last two dimensions", function() return t:diagonal(0, 1, 2) end)
    fails("diagonal: tensor [3] is no matrix", function() return atomo.ones(3):diagonal() end)
    fails("diag: tensor [1,2,2], expected a vector or a matrix", function() return atomo.ones(1, 2, 2):diag() end)
    fails("trace: tensor [3] is no matrix", function() return atomo.ones(3):trace() end)
    fails("outer: tensors [2,3] and [3], expected two vectors", function() return t:outer(atomo.ones(3)) end)
    fails("meshgrid: expected a table of at least one vector", atomo.meshgrid, atomo.ones(2), atomo.ones(3))
    fails("meshgrid: tensor 2 is [2,3], expected a vector", atomo.meshgrid, {atomo.ones(2), t})
    fails("meshgrid: indexing is 'yx'", atomo.meshgrid, {atomo.ones(2)}, "yx")
    fails("roll: one dimension at a time", function() return t:roll({1, 1}, {1, 2}) end)
    fails("roll: shift", function() return t:roll(0.5, 1) end)
    fails("repeat_interleave: 2 numbers for dimension 2, which has 3", function()
      return t:repeat_interleave({1, 2}, 2)
    end)
    fails("repeat_interleave: times", function() return t:repeat_interleave(-1, 1) end)
    fails("amax: keepdim is 2, expected true or false (one dimension at a time)", function() return t:amax(1, 2) end)
    fails("clamp_min: lower bound is missing", function() return t:clamp_min() end)
    fails("masked_fill: value is missing", function() return t:masked_fill(t) end)
    fails("full_like: tensor is a table", atomo.full_like, {2, 3}, 1)
  end)
end)

describe("the like of a tensor", function()
  it("has its shape, and its dtype where the values allow", function()
    local t = whole "i32"
    assert.same({{1, 1, 1}, {1, 1, 1}}, atomo.ones_like(t):totable())
    assert.equal("i32", atomo.ones_like(t):dtype())
    assert.same({{-2, -2, -2}, {-2, -2, -2}}, atomo.full_like(t, -2):totable())
    assert.same({2, 3}, atomo.rand_like(t):shape())
    assert.equal("f32", atomo.randn_like(t):dtype())
    fails("fill_", atomo.full_like, t, 2.5)
    atomo.manual_seed(4)
    local a = atomo.rand_like(t)
    atomo.manual_seed(4)
    assert.is_true(a:equal(atomo.rand(2, 3)))
  end)
end)

describe("nn.ModuleList and nn.Identity", function()
  it("entries are parts of the module, with PyTorch's names", function()
    local Net = nn.Module:extend "Net"
    function Net:init()
      self.blocks = nn.ModuleList {nn.Linear(2, 2), nn.Linear(2, 2)}
      self.blocks:append(nn.Linear(2, 1)):add(nn.Identity())
    end
    function Net:forward(x)
      for _, block in ipairs(self.blocks) do x = block(x) end
      return x
    end
    local net = Net()
    assert.equal(4, #net.blocks)
    assert.equal(6, #net:parameters())
    assert.is_truthy(net:state_dict()["blocks.2.bias"])
    assert.same({3, 1}, net(atomo.ones(3, 2)):shape())
    net:eval()
    assert.is_false(net.blocks[4].training)
    fails("ModuleList: it has no forward; call its entries", net.blocks, atomo.ones(3, 2))
    fails("ModuleList: entry 1 is a number, expected a module", nn.ModuleList, 3)
    fails("ModuleList: entry 2 is a nil", nn.ModuleList, {nn.ReLU(), nil, nn.ReLU()})
    fails("ModuleList: key 'a', expected a list of modules", nn.ModuleList, {a = nn.ReLU()})
    fails("Identity: got a number, it takes no options", nn.Identity, 3)
  end)
end)
