-- Every operator of atomo.F against finite differences on odd shapes; the two convolution engines against each other.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local F = atomo.F

local spread = require("support.gradients").spread

local function passes(fn, inputs, opts)
  local ok, worst = atomo.gradcheck(fn, inputs, opts)
  assert.is_true(ok, ("worst relative error %g"):format(worst))
end

local function has_onednn() return C.atomo_conv_set_engine "onednn" == 0 end

-- x [n,h,w,c], out, kernel, options, bias
local convolutions = {
  {{1, 1, 1, 1}, 1, {1, 1}, {}, true},
  {{1, 1, 1, 3}, 2, {3, 3}, {padding = 1}, true},
  {{2, 3, 5, 2}, 3, {3, 3}, {padding = 1, stride = 2}, false},
  {{1, 5, 4, 3}, 2, {2, 3}, {padding = {0, 1}, stride = {1, 2}}, true},
  {{1, 7, 5, 4}, 6, {3, 2}, {padding = 1, dilation = {2, 1}, groups = 2}, true},
  {{2, 3, 3, 3}, 3, {3, 3}, {padding = 1, groups = 3}, false},
  {{2, 3, 3, 5}, 2, {1, 1}, {stride = 2}, false},
}

local function make(c)
  local groups = c[4].groups or 1
  return atomo.randn(c[1]), atomo.randn(c[2], c[3][1], c[3][2], c[1][4] / groups), c[5] and atomo.randn(c[2]) or nil
end

describe("gradcheck", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)
  before_each(function() atomo.manual_seed(3) end)

  for _, engine in ipairs {"gemm", "onednn"} do
    for i, c in ipairs(convolutions) do
      it(("conv2d case %d with %s"):format(i, engine), function()
        if engine == "onednn" and not has_onednn() then return pending "built without oneDNN" end
        assert.equal(0, C.atomo_conv_set_engine(engine))
        local x, w, b = make(c)
        passes(function(...)
          local xx, ww, bb = ...
          return F.conv2d(xx, ww, bb, c[4])
        end, {x, w, b})
      end)
    end
  end

  it("linear, with and without bias, 1, 2 and 3 dimensions", function()
    passes(F.linear, {atomo.randn(3, 5), atomo.randn(7, 5), atomo.randn(7)})
    passes(F.linear, {atomo.randn(1, 1), atomo.randn(1, 1)})
    passes(F.linear, {atomo.randn(2, 3, 5), atomo.randn(2, 5), atomo.randn(2)})
    passes(F.linear, {atomo.randn(5), atomo.randn(2, 5)})
  end)

  it("relu", function()
    passes(F.relu, {spread(1)})
    passes(F.relu, {spread(3, 7)})
  end)

  for _, training in ipairs {true, false} do
    for _, relu in ipairs {true, false} do
      for _, shape in ipairs {{5, 1, 1, 1}, {3, 2, 3, 5}, {7, 3}} do
        it(("batch_norm training=%s relu=%s %s"):format(training, relu, table.concat(shape, "x")), function()
          local c = shape[#shape]
          -- biases of +-8 keep each channel on one side of the ReLU
          local bias = atomo.empty(c)
          for i = 1, c do bias:set(i, i % 2 == 1 and 8 or -8) end
          local function run(x, w, b, r)
            return F.batch_norm(x, w, b, {training = training, relu = relu, residual = r,
              running_mean = atomo.full({c}, 0.5), running_var = atomo.full({c}, 2)})
          end
          passes(run, {atomo.randn(shape), atomo.rand(c):add_(0.5), bias}, {tolerance = 4e-3})
          passes(run, {atomo.randn(shape), atomo.rand(c):add_(0.5), bias, atomo.randn(shape)}, {tolerance = 4e-3})
        end)
      end
    end
  end

  it("max_pool2d", function()
    passes(function(x) return F.max_pool2d(x, 2) end, {spread(1, 5, 3, 3)})
    passes(function(x) return F.max_pool2d(x, 1) end, {spread(1, 1, 1, 1)})
    passes(function(x) return F.max_pool2d(x, 3, {stride = 2, padding = 1}) end, {spread(2, 5, 4, 2)})
    passes(function(x) return F.max_pool2d(x, {2, 1}, {stride = {1, 2}, dilation = {2, 1}}) end, {spread(1, 5, 3, 3)})
    passes(function(x) return F.max_pool2d(x, 2) end, {spread(1, 2, 2, 300)})
  end)

  it("avg_pool2d", function()
    passes(function(x) return F.avg_pool2d(x, 2) end, {atomo.randn(1, 5, 3, 3)})
    passes(function(x) return F.avg_pool2d(x, {3, 2}, {stride = 2, padding = {1, 0}}) end, {atomo.randn(2, 5, 4, 2)})
  end)

  it("global_avg_pool", function()
    passes(F.global_avg_pool, {atomo.randn(1, 1, 1, 1)})
    passes(F.global_avg_pool, {atomo.randn(2, 3, 5, 7)})
  end)

  it("softmax and log_softmax over any dimension", function()
    for dim = 1, 3 do
      passes(function(x) return F.softmax(x, dim) end, {atomo.randn(2, 3, 5)})
      passes(function(x) return F.log_softmax(x, dim) end, {atomo.randn(2, 3, 5)})
    end
    passes(F.softmax, {atomo.randn(1)})
  end)

  it("cross_entropy", function()
    local labels = atomo.tensor({2, 0, 4}, "i32")
    passes(function(x) return F.cross_entropy(x, labels) end, {atomo.randn(3, 5)})
    passes(function(x) return F.cross_entropy(x, labels:narrow(1, 2, 1)) * 3 end, {atomo.randn(1, 1)})
  end)

  it("dropout, with its mask held", function()
    passes(function(x)
      F.dropout_stream(0, 5)
      return F.dropout(x, 0.3)
    end, {atomo.randn(3, 7)})
  end)

  it("non-contiguous inputs", function()
    local w = atomo.randn(2, 3)
    passes(function(x) return F.linear(x:transpose(1, 2), w) end, {atomo.randn(3, 5)})
    passes(function(x) return F.relu(x:transpose(1, 2)) end, {spread(3, 5)})
  end)
end)

describe("convolution engines", function()
  local function results(engine, c)
    assert.equal(0, C.atomo_conv_set_engine(engine))
    atomo.manual_seed(11)
    local x, w, b = make(c)
    local leaves = {atomo.param(x), atomo.param(w), b and atomo.param(b)}
    local y = F.conv2d(x, w, b, c[4])
    y:backward(atomo.randn(y:shape()))
    return {y:detach(), leaves[1].grad, leaves[2].grad, b and leaves[3].grad or nil}
  end

  local cases = {
    {{4, 32, 32, 3}, 16, {3, 3}, {padding = 1}, false}, {{2, 32, 32, 16}, 32, {3, 3}, {padding = 1, stride = 2}, false},
    {{2, 16, 16, 16}, 32, {1, 1}, {stride = 2}, true}, {{3, 13, 17, 20}, 50, {5, 5}, {}, true},
    {{2, 15, 9, 24}, 48, {3, 3}, {padding = 2, dilation = 2, groups = 4}, true},
    {{2, 14, 14, 32}, 32, {3, 3}, {padding = 1, groups = 32}, true}, {{1, 7, 7, 64}, 128, {1, 1}, {}, true},
    {{2, 11, 23, 7}, 5, {4, 2}, {padding = {2, 0}, stride = {3, 2}}, false},
  }
  for i, c in ipairs(cases) do
    it(("agree in forward and both backwards, case %d"):format(i), function()
      if not has_onednn() then return pending "built without oneDNN" end
      local a, b = results("gemm", c), results("onednn", c)
      for k = 1, 4 do
        if a[k] then
          local scale = a[k]:abs():max():item()
          assert.is_true((a[k] - b[k]):abs():max():item() < 2e-5 * scale, ("result %d"):format(k))
        end
      end
    end)
  end

  it("refuse an unknown name", function()
    assert.is_true(C.atomo_conv_set_engine "fast" < 0)
    local text = require("ffi").string(C.atomo_last_error())
    assert.truthy(text:find('"fast", expected auto, direct, winograd, onednn or gemm', 1, true))
  end)
end)

describe("bits", function()
  it("of batch norm do not depend on the number of threads", function()
    local before = atomo.num_threads()
    local function run(threads)
      atomo.set_num_threads(threads)
      atomo.manual_seed(5)
      local x, w, b = atomo.param(atomo.randn(9, 31, 17, 19)), atomo.param(atomo.ones(19)), atomo.param(atomo.zeros(19))
      local y = F.batch_norm(x, w, b, {training = true, relu = true})
      y:backward(atomo.randn(y:shape()))
      return y:bytes() .. x.grad:bytes() .. w.grad:bytes() .. b.grad:bytes()
    end
    local one, two, three = run(1), run(2), run(3)
    atomo.set_num_threads(before)
    assert.is_true(one == two and one == three)
  end)

  it("batch norm is safe far from zero", function()
    local x = atomo.randn(64, 8, 8, 5):add_(10000)
    local y = F.batch_norm(x, atomo.ones(5), atomo.zeros(5), {training = true})
    local flat = y:reshape(64 * 64, 5)
    for c = 1, 5 do
      local column = flat:narrow(2, c, 1):contiguous()
      assert.is_near(0, column:mean():item(), 1e-3)
      assert.is_near(1, (column * column):mean():item(), 2e-3)
    end
  end)
end)
