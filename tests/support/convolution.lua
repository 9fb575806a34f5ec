--- Runs one case, {x = shape, w = shape, padding =, bias = boolean}, forward and backward by a convolution engine, and
-- checks it. For the specs of convolution engines.
local assert = require "luassert"
local atomo = require "atomo"
local C = require("atomo.ffi").C

local convolution = {}

--- Returns the output and the gradients of weights, images and bias, computed with `threads` threads (default 1).
function convolution.results(engine, c, threads)
  assert.equal(0, C.atomo_conv_set_engine(engine))
  atomo.set_num_threads(threads or 1)
  atomo.manual_seed(5)
  local x, w = atomo.param(atomo.randn(c.x)), atomo.param(atomo.randn(c.w))
  local b = c.bias and atomo.param(atomo.randn(c.w[1])) or nil
  local y = atomo.F.conv2d(x, w, b, {padding = c.padding or 0})
  y:backward(atomo.randn(y:shape()))
  return {y:detach(), w.grad, x.grad, b and b.grad}
end

--- Asserts that every result agrees with im2col's within `bound` times its largest element.
function convolution.agrees(engine, c, bound)
  local want, got = convolution.results("gemm", c), convolution.results(engine, c)
  for k = 1, c.bias and 4 or 3 do
    local worst = (want[k] - got[k]):abs():max():item() / want[k]:abs():max():item()
    assert.is_true(worst < bound, ("result %d is off by %g"):format(k, worst))
  end
end

--- Asserts that the first `count` results are bit-identical with 1, 2 and 3 threads.
function convolution.same_on_threads(engine, c, count)
  local one, two, three = convolution.results(engine, c, 1), convolution.results(engine, c, 2),
    convolution.results(engine, c, 3)
  for k = 1, count do
    assert.is_true(one[k]:bytes() == two[k]:bytes() and one[k]:bytes() == three[k]:bytes(), "result " .. k)
  end
end

local threads = atomo.num_threads()

--- Restores the engine; for teardown.
function convolution.put_back()
  atomo.set_num_threads(threads)
  assert.equal(0, C.atomo_conv_set_engine "auto")
end

return convolution
