--- atomo.F: the layers as functions (stage 3). Each is a differentiable operator with a forward and a backward C
-- kernel. Images are [N,H,W,C], convolution weights [out, kh, kw, in/groups], linear weights [out, in], labels i32 from
-- 0. Options have PyTorch's names; a size is a number or {height, width}.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local func = require("atomo.autograd").operator
local O = require "atomo.tensor.check_options"
local S = require "atomo.nn.functional.support"
local window = require "atomo.nn.functional.window"
local C, check, raise = f.C, f.check, f.raise
local wrap, out = T.wrap, T.out
local dense, handle, gradient_slot, taken = S.dense, S.handle, S.gradient_slot, S.taken

local F = {}

-- ---- convolution and linear ------------------------------------------------------------------------------------

local conv2d = func {
  name = "conv2d", reads_packed = {true},
  forward = function(ctx, x, w, b, win)
    x, w = dense(x, "conv2d: input"), dense(w, "conv2d: weight")
    b = b and dense(b, "conv2d: bias")
    local o = out()
    check(C.atomo_conv2d(x.h, w.h, handle(b), win, ctx.product_precision, o))
    ctx:save(x, w)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local x, w = ctx:saved()
    local win, gx, gw, gb = ctx.inputs[4], nil, nil, nil
    gy = dense(gy, "conv2d: gy")
    local with_bias = ctx:needs(3)
    if ctx:needs(2) or with_bias then
      local ow, own_w = gradient_slot(ctx, 2)
      local ob, own_b
      if with_bias then ob, own_b = gradient_slot(ctx, 3) end
      check(C.atomo_conv2d_backward_weights(x.h, w.h, gy.h, win, ctx.product_precision, ow, ob))
      gw = taken(ow, own_w)
      if with_bias then gb = taken(ob, own_b) end
    end
    if ctx:needs(1) then
      local o, sum = out(), ctx:gradient_so_far(1)
      if sum then o[0] = sum.h end
      check(C.atomo_conv2d_backward_data(x.h, w.h, gy.h, win, ctx.product_precision, sum and 1 or 0, o))
      gx = sum or wrap(o[0])
    end
    return gx, gw, gb
  end,
}

--- 2-D convolution of x [N,H,W,in] with w [out, kh, kw, in/groups] and bias b [out] (or nil) -> [N,OH,OW,out].
--- padding: a size, "valid" (0), or "same" (for stride 1; if the total is odd, one more after than before).
---@param x atomo.Tensor
---@param w atomo.Tensor
---@param b atomo.Tensor?
---@param opts {stride: any, padding: any, dilation: any, groups: integer?}?
---@return atomo.Tensor
---@usage F.conv2d(x, atomo.randn(4, 3, 3, 3), nil, {padding = 1}):size(4) --> 4
function F.conv2d(x, w, b, opts)
  if type(opts) ~= "table" or type(opts.padding) ~= "string" then return conv2d(x, w, b, window.of("conv2d", opts)) end
  T.expect(w, "conv2d: weight", "f32")
  if w:dim() ~= 4 then raise(("conv2d: weight is %s, expected [out, kh, kw, in/groups]"):format(T.shape_text(w))) end
  local win, skip = window.of("conv2d", opts, nil, {w:size(2), w:size(3)})
  return window.without(conv2d(x, w, b, win), skip)
end

local linear = func {
  name = "linear", reads_packed = {true},
  forward = function(ctx, x, w, b)
    x, w = dense(x, "linear: input"), dense(w, "linear: weight")
    b = b and dense(b, "linear: bias")
    local o = out()
    check(C.atomo_linear(x.h, w.h, handle(b), ctx.product_precision, o))
    ctx:save(x, w)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local x, w = ctx:saved()
    local ox, ow, ob, own_w, own_b
    if ctx:needs(1) then ox = out() end
    if ctx:needs(2) then ow, own_w = gradient_slot(ctx, 2) end
    if ctx:needs(3) then ob, own_b = gradient_slot(ctx, 3) end
    check(C.atomo_linear_backward(x.h, w.h, dense(gy, "linear: gy").h, ctx.product_precision, ox, ow, ob))
    return ox and wrap(ox[0]), ow and taken(ow, own_w), ob and taken(ob, own_b)
  end,
}

--- y [..., out] = x [..., in] w^T + b, with w [out, in] and b [out] or nil.
---@param x atomo.Tensor
---@param w atomo.Tensor
---@param b atomo.Tensor?
---@return atomo.Tensor
---@usage F.linear(atomo.ones(2, 3), atomo.ones(4, 3)):get(1, 1) --> 3
function F.linear(x, w, b) return linear(x, w, b) end

-- ---- batch normalisation ---------------------------------------------------------------------------------------

local batch_norm = func {
  name = "batch_norm", reads_packed = {[1] = true, [6] = true},
  is_exact = function(k, saved) return k == 1 and S.is_far(saved[4], saved[5]) end,
  forward = function(ctx, x, gamma, beta, residual, o)
    x = dense(x, "batch_norm: input")
    residual = residual and dense(residual, "batch_norm: residual")
    gamma, beta = dense(gamma, "batch_norm: weight"), dense(beta, "batch_norm: bias")
    local rm, rv, relu = o.running_mean, o.running_var, o.relu and 1 or 0
    local y, mean, invstd = out(), out(), out()
    if o.training then
      check(C.atomo_batch_norm_train(x.h, handle(residual), gamma.h, beta.h, o.momentum or 0.1, o.eps or 1e-5, relu,
        handle(rm), handle(rv), mean, invstd, y))
      mean = wrap(mean[0])
      if rm then C.atomo_tensor_touch(rm.h) end
      if rv then C.atomo_tensor_touch(rv.h) end
    else
      if not (rm and rv) then raise "batch_norm: evaluation needs running_mean and running_var" end
      check(C.atomo_batch_norm_eval(x.h, handle(residual), gamma.h, beta.h, rm.h, rv.h, o.eps or 1e-5, relu, invstd, y))
      mean = rm
    end
    ctx.relu, ctx.training = relu, o.training and 1 or 0
    local result = wrap(y[0])
    ctx:save(x, gamma, beta, mean, wrap(invstd[0]), relu == 1 and residual and result:detach() or nil)
    return result
  end,
  backward = function(ctx, gy)
    local x, gamma, beta, mean, invstd, y = ctx:saved()
    local ox, og, own_g = nil, gradient_slot(ctx, 2)
    local ob, own_b = gradient_slot(ctx, 3)
    gy = dense(gy, "batch_norm: gy")
    local gr, res
    if y then
      res = out()
      if ctx:may_overwrite(gy) then -- write into gy's buffer instead of a new one
        res[0], gr = gy.h, gy
      end
    elseif ctx:needs(4) then
      gr = gy
    end
    if ctx:needs(1) then ox = out() end
    check(C.atomo_batch_norm_backward(x.h, handle(y), gy.h, gamma.h, beta.h, mean.h, invstd.h, ctx.relu,
      ctx.training, ox, res, og, ob))
    return ox and wrap(ox[0]), taken(og, own_g), taken(ob, own_b), gr or res and wrap(res[0])
  end,
}

local batch_norm_options = {training = O.flag, running_mean = O.tensor, running_var = O.tensor,
  momentum = O.number(0, 1), eps = O.number(0), relu = O.flag, residual = O.tensor}

--- Batch normalisation over all dimensions except the last: weight (x - mean) / sqrt(var + eps) + bias, then + residual
-- and ReLU if given. weight and bias [C], default 1 and 0. opts: training (use batch statistics and update the running
-- ones), running_mean, running_var, momentum = 0.1, eps = 1e-5, relu = false, residual. The running variance is
-- unbiased, as in PyTorch.
---@param x atomo.Tensor
---@param weight atomo.Tensor?
---@param bias atomo.Tensor?
---@param opts table
---@return atomo.Tensor
---@usage F.batch_norm(x, nil, nil, {training = true}):dim() --> 4
function F.batch_norm(x, weight, bias, opts)
  O.check("batch_norm", opts, batch_norm_options)
  return F.batch_norm_with(x, weight, bias, opts.residual, opts)
end

--- batch_norm without checks of opts, and with the residual as an argument; for nn.BatchNorm2d.
function F.batch_norm_with(x, weight, bias, residual, opts)
  if not (weight and bias) then
    T.expect(x, "batch_norm: input", "f32")
    if x:dim() > 0 then weight, bias = S.affine(weight, bias, x:size(-1)) end
  end
  return batch_norm(x, weight, bias, residual, opts)
end

-- ---- activations -----------------------------------------------------------------------------------------------

F.relu = func {
  name = "relu",
  forward = function(ctx, x)
    local o = out()
    check(C.atomo_unary(C.ATOMO_RELU, dense(x, "relu: input").h, o))
    local y = wrap(o[0])
    ctx:save(y:detach())
    return y
  end,
  backward = function(ctx, gy)
    local o = out()
    check(C.atomo_relu_backward(ctx:saved().h, dense(gy, "relu: gy").h, o))
    return wrap(o[0])
  end,
}

-- ---- pooling ---------------------------------------------------------------------------------------------------

--- Makes a pooling operator from C's forward and backward. include (count_include_pad) and divisor: of avg_pool2d only.
local function pool(name, forward, backward)
  return func {
    name = name,
    forward = function(ctx, x, win, include, divisor)
      x = dense(x, name .. ": input")
      local o = out()
      check(forward(x.h, win, o, include, divisor))
      ctx:save(x)
      return wrap(o[0])
    end,
    backward = function(ctx, gy)
      local o = out()
      check(backward(ctx:saved().h, dense(gy, name .. ": gy").h, ctx.inputs[2], o, ctx.inputs[3], ctx.inputs[4]))
      return wrap(o[0])
    end,
  }
end

local max_pool2d = pool("max_pool2d", function(x, win, o) return C.atomo_max_pool2d(x, win, o) end,
  function(x, gy, win, o) return C.atomo_max_pool2d_backward(x, gy, win, o) end)
local avg_pool2d = pool("avg_pool2d",
  function(x, win, o, include, divisor) return C.atomo_avg_pool2d(x, win, include, divisor, o) end,
  function(x, gy, win, o, include, divisor) return C.atomo_avg_pool2d_backward(x, gy, win, include, divisor, o) end)

--- Maximum of each window of x [N,H,W,C]: F.max_pool2d(x, 2), F.max_pool2d(x, {3, 2}, {stride=2, padding=1}). opts:
-- stride (default: the kernel's size), padding, dilation, ceil_mode = false (true: also windows that fit only partly),
-- return_indices = false (true: a second result, i32, the position y W + x in the image, from 0).
---@param opts {stride: any, padding: any, dilation: any, ceil_mode: boolean?, return_indices: boolean?}?
---@param x atomo.Tensor [N,H,W,C]
---@param kernel integer|integer[]
---@return atomo.Tensor
---@usage F.max_pool2d(x, 2):size(2) --> 4
function F.max_pool2d(x, kernel, opts)
  local win = window.pooling("max_pool2d", kernel, opts)
  local y = max_pool2d(x, win)
  if not (opts and opts.return_indices) then return y end
  local o = out()
  check(C.atomo_max_pool2d_indices(dense(x, "max_pool2d: input").h, win, o))
  return y, wrap(o[0])
end

--- Mean of each window. opts: stride, padding, ceil_mode as in F.max_pool2d; count_include_pad = true (the mean counts
-- padding as zeros); divisor_override (divides the sums in place of the number of elements).
---@param opts {stride: any, padding: any, ceil_mode: boolean?, count_include_pad: boolean?, divisor_override: any}?
---@param x atomo.Tensor [N,H,W,C]
---@param kernel integer|integer[]
---@return atomo.Tensor
---@usage F.avg_pool2d(x, 2):size(2) --> 4
function F.avg_pool2d(x, kernel, opts)
  local win = window.pooling("avg_pool2d", kernel, opts)
  local include = not opts or opts.count_include_pad ~= false
  return avg_pool2d(x, win, include and 1 or 0, opts and opts.divisor_override or 0)
end

--- Mean over all positions: [N,H,W,C] -> [N,C].
F.global_avg_pool = func {
  name = "global_avg_pool",
  forward = function(ctx, x)
    local o = out()
    x = dense(x, "global_avg_pool: input")
    check(C.atomo_global_avg_pool(x.h, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local o = out()
    check(C.atomo_global_avg_pool_backward(ctx:saved().h, dense(gy, "global_avg_pool: gy").h, o))
    return wrap(o[0])
  end,
}

local adaptive_avg_pool2d = func {
  name = "adaptive_avg_pool2d",
  forward = function(ctx, x, h, w)
    local o = out()
    x = dense(x, "adaptive_avg_pool2d: input")
    check(C.atomo_adaptive_avg_pool2d(x.h, h, w, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local o = out()
    check(C.atomo_adaptive_avg_pool2d_backward(ctx:saved().h, dense(gy, "adaptive_avg_pool2d: gy").h, ctx.inputs[2],
      ctx.inputs[3], o))
    return wrap(o[0])
  end,
}

--- Means over h x w windows of nearly equal size, as in PyTorch: [N,H,W,C] -> [N,h,w,C]. size: h (= w) or {h, w}.
---@param x atomo.Tensor [N,H,W,C]
---@param size integer|integer[]
---@return atomo.Tensor
---@usage F.adaptive_avg_pool2d(x, 2):size(2) --> 2
function F.adaptive_avg_pool2d(x, size)
  local h, w = window.pair("adaptive_avg_pool2d", "output_size", size, nil, 1)
  return adaptive_avg_pool2d(x, h, w)
end

-- ---- the other files of this folder ------------------------------------------------------------------------------

for _, part in ipairs {"activation", "attention", "conv_transpose", "dropout", "embedding", "linear_cross_entropy",
  "loss", "normalize", "pad", "similarity", "softmax"} do
  for name, operator in pairs(require("atomo.nn.functional." .. part)) do F[name] = operator end
end
for name, operator in pairs(require "atomo.nn.functional.recurrent"(F.linear)) do F[name] = operator end

return require("atomo.core.strict").module(F, "F")
