-- The layers against PyTorch's results (tests/golden/make_nn.py), forward and backward, with both convolution engines.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local F = atomo.F

local root = require "support.root"
local golden = dofile(root .. "tests/golden/nn.lua")

local function read(g) return g and atomo.tensor(g.data):reshape(g.shape) end
local function leaf(g) return g and atomo.param(read(g)) end

--- Largest difference relative to the largest expected entry.
local function difference(got, expected)
  local want = read(expected)
  assert.same(want:shape(), got:shape())
  return (got:detach() - want):abs():max():item() / math.max(1, want:abs():max():item())
end

local function near(got, expected, what)
  local d = difference(got, expected)
  assert.is_true(d < 2e-5, ("%s is off by %g"):format(what, d))
end

local function each(name, run)
  for i, case in ipairs(golden[name]) do
    it(("%s case %d"):format(name, i), function() run(case) end)
  end
end

local function engines()
  local list = {"gemm"}
  if C.atomo_conv_set_engine "onednn" == 0 then list[2] = "onednn" end
  return list
end

describe("golden vectors", function()
  for _, engine in ipairs(engines()) do
    describe("with " .. engine, function()
      before_each(function() assert.equal(0, C.atomo_conv_set_engine(engine)) end)
      each("conv2d", function(c)
        local x, w, b = leaf(c.x), leaf(c.w), leaf(c.b)
        local y = F.conv2d(x, w, b, c.opts)
        near(y, c.y, "y")
        y:backward(read(c.gy))
        near(x.grad, c.gx, "gx")
        near(w.grad, c.gw, "gw")
        if b then near(b.grad, c.gb, "gb") end
      end)
    end)
  end

  each("batch_norm", function(c)
    local x, w, b, r = leaf(c.x), leaf(c.w), leaf(c.b), leaf(c.r)
    local mean, var = read(c.before.running_mean), read(c.before.running_var)
    local y = F.batch_norm(x, w, b, {training = c.training, relu = c.relu, residual = r, running_mean = mean,
      running_var = var})
    near(y, c.y, "y")
    near(mean, c.after.running_mean, "running_mean")
    near(var, c.after.running_var, "running_var")
    y:backward(read(c.gy))
    near(x.grad, c.gx, "gx")
    near(w.grad, c.gw, "gw")
    near(b.grad, c.gb, "gb")
    if r then near(r.grad, c.gr, "gr") end
  end)

  each("linear", function(c)
    local x, w, b = leaf(c.x), leaf(c.w), leaf(c.b)
    local y = F.linear(x, w, b)
    near(y, c.y, "y")
    y:backward(read(c.gy))
    near(x.grad, c.gx, "gx")
    near(w.grad, c.gw, "gw")
    if b then near(b.grad, c.gb, "gb") end
  end)

  for _, name in ipairs {"max_pool2d", "avg_pool2d"} do
    each(name, function(c)
      local x = leaf(c.x)
      local y = F[name](x, c.kernel, c.opts)
      near(y, c.y, "y")
      y:backward(read(c.gy))
      near(x.grad, c.gx, "gx")
    end)
  end

  for _, name in ipairs {"softmax", "log_softmax"} do
    each(name, function(c)
      local x = leaf(c.x)
      local y = F[name](x, c.dim)
      near(y, c.y, "y")
      y:backward(read(c.gy))
      near(x.grad, c.gx, "gx")
    end)
  end

  each("cross_entropy", function(c)
    local x = leaf(c.x)
    local loss = F.cross_entropy(x, atomo.tensor(c.labels, "i32"))
    assert.is_near(c.loss, loss:item(), 1e-5)
    loss:backward()
    near(x.grad, c.gx, "gx")
  end)
end)
