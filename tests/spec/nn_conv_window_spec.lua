-- Convolution with large kernels and odd channels (runtime/nn/conv_window.c, where the CPU has AVX-512): equal to
-- im2col, the same bits for any number of threads.
local atomo = require "atomo"
local F = atomo.F
local C = require("atomo.ffi").C

--- Can this machine run the kernels? Elsewhere the same layers go to an engine that sums by thread.
local function has_avx512()
  local file = io.open "/proc/cpuinfo"
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text:find "avx512f" ~= nil
end

local function results(engine, c, threads)
  assert.equal(0, C.atomo_conv_set_engine(engine))
  atomo.set_num_threads(threads or 1)
  atomo.manual_seed(5)
  local x, w = atomo.param(atomo.randn(c.x)), atomo.param(atomo.randn(c.w))
  local b = c.bias and atomo.param(atomo.randn(c.w[1])) or nil
  local y = F.conv2d(x, w, b, {padding = c.padding or 0})
  y:backward(atomo.randn(y:shape()))
  return {y:detach(), w.grad, x.grad, b and b.grad}
end

-- LeNet's two, then: several strips of outputs and of taps, fewer pixels than a tile, every remainder of a vector
local cases = {
  {x = {5, 32, 32, 3}, w = {20, 5, 5, 3}, bias = true}, {x = {6, 14, 14, 20}, w = {50, 5, 5, 20}, bias = true},
  {x = {3, 9, 8, 3}, w = {33, 5, 5, 3}, padding = 2}, {x = {2, 7, 12, 30}, w = {100, 4, 3, 30}, padding = {1, 0}},
  {x = {1, 5, 5, 1}, w = {1, 5, 5, 1}, bias = true}, {x = {9, 2, 11, 47}, w = {17, 1, 11, 47}},
  {x = {2, 8, 6, 5}, w = {256, 7, 7, 5}, padding = 3, bias = true},
}

describe("convolution from rows", function()
  local threads
  setup(function() threads = atomo.num_threads() end)
  teardown(function()
    atomo.set_num_threads(threads)
    assert.equal(0, C.atomo_conv_set_engine "auto")
  end)

  for i, c in ipairs(cases) do
    it(("agrees with im2col to 5e-6 of the largest element, case %d"):format(i), function()
      local want, got = results("gemm", c), results("direct", c)
      for k = 1, c.bias and 4 or 3 do
        local worst = (want[k] - got[k]):abs():max():item() / want[k]:abs():max():item()
        assert.is_true(worst < 5e-6, ("result %d is off by %g"):format(k, worst))
      end
    end)

    it(("has the same bits on 1, 2 and 3 threads, case %d"):format(i), function()
      if not has_avx512() then return pending "needs AVX-512" end
      local one, two, three = results("direct", c, 1), results("direct", c, 2), results("direct", c, 3)
      for k = 1, 2 do -- the output and the weights' gradient; the images' gradient is sgemm's
        assert.is_true(one[k]:bytes() == two[k]:bytes() and one[k]:bytes() == three[k]:bytes(), "result " .. k)
      end
    end)
  end
end)
