-- Winograd's convolution (runtime/nn/conv_winograd.c): equal to the direct one, its error bounded, bits fixed.
local atomo = require "atomo"
local F = atomo.F
local C = require("atomo.ffi").C
local FP32 = C.ATOMO_PRECISION_FP32
local convolution = require "support.convolution"

-- F(4x4) and F(2x2), tiles cut at the border, all paddings, more tiles than a block
local cases = {
  {x = {2, 8, 8, 16}, w = {16, 3, 3, 16}, padding = 1},
  {x = {3, 7, 9, 32}, w = {16, 3, 3, 32}, padding = 0, bias = true},
  {x = {2, 5, 13, 16}, w = {48, 3, 3, 16}, padding = 2, bias = true},
  {x = {5, 2, 2, 64}, w = {32, 3, 3, 64}, padding = 1},
  {x = {1, 3, 3, 16}, w = {16, 3, 3, 16}, padding = 0},
  {x = {2, 1, 1, 16}, w = {16, 3, 3, 16}, padding = 1, bias = true},
  {x = {9, 30, 31, 16}, w = {32, 3, 3, 16}, padding = {1, 0}},
  {x = {17, 4, 4, 128}, w = {160, 3, 3, 128}, padding = 1, bias = true},
}

describe("winograd", function()
  teardown(convolution.put_back)

  for i, c in ipairs(cases) do
    it(("agrees with im2col to 1e-5 of the largest element, case %d"):format(i), function()
      convolution.agrees("winograd", c, 1e-5)
    end)

    it(("has the same bits on 1, 2 and 3 threads, case %d"):format(i), function()
      convolution.same_on_threads("winograd", c, c.bias and 4 or 3)
    end)
  end

  it("adds to a gradient that is there, with the bits of adding afterwards", function()
    local window = require("atomo.nn.functional.window").of("test", {padding = 1})
    for _, engine in ipairs {"winograd", "direct", "gemm"} do
      assert.equal(0, C.atomo_conv_set_engine(engine))
      local x, w, gy = atomo.randn(3, 9, 7, 32), atomo.randn(16, 3, 3, 32), atomo.randn(3, 9, 7, 16)
      local sum, apart = atomo.randn(3, 9, 7, 32), atomo.zeros(3, 9, 7, 32)
      local want, slot = sum:clone(), require("atomo.tensor").out()
      slot[0] = apart.h
      assert.equal(0, C.atomo_conv2d_backward_data(x.h, w.h, gy.h, window, FP32, 0, slot))
      want:axpy_(1, apart)
      slot[0] = sum.h
      assert.equal(0, C.atomo_conv2d_backward_data(x.h, w.h, gy.h, window, FP32, 1, slot))
      assert.is_true(want:bytes() == sum:bytes(), engine)
      slot[0] = nil
      assert.not_equal(0, C.atomo_conv2d_backward_data(x.h, w.h, gy.h, window, FP32, 1, slot)) -- nothing to add to
    end
  end)

  it("passes gradcheck", function()
    atomo.set_num_threads(1)
    assert.equal(0, C.atomo_conv_set_engine "winograd")
    local x, w, b = atomo.randn(1, 5, 3, 16), atomo.randn(16, 3, 3, 16), atomo.randn(16)
    local ok, worst = atomo.gradcheck(function(...)
      local xx, ww, bb = ...
      return F.conv2d(xx, ww, bb, {padding = 1})
    end, {x, w, b})
    assert.is_true(ok, ("worst relative error %g"):format(worst))
  end)

  it("leaves other shapes to the direct engine", function()
    for _, o in ipairs {{stride = 2}, {dilation = 2}, {groups = 2}} do
      local y = {}
      for _, engine in ipairs {"direct", "winograd", "auto"} do
        assert.equal(0, C.atomo_conv_set_engine(engine))
        atomo.manual_seed(3)
        y[#y + 1] = F.conv2d(atomo.randn(1, 9, 9, 32), atomo.randn(16, 3, 3, 32 / (o.groups or 1)), nil, o):bytes()
      end
      assert.is_true(y[1] == y[2] and y[1] == y[3])
    end
  end)
end)
