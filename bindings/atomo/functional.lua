--- atomo.F: the layers as functions, each one operator with a gradient over a pair of C kernels (stage 3).
-- Images are [N,H,W,C], convolution weights [out, kh, kw, in/groups], linear weights [out, in], labels i32 from 0.
-- Options are PyTorch's names; a size may be a number or {height, width}.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local func = require("atomo.autograd").func
local window = require "atomo.nn.window"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local wrap, out = T.wrap, T.out

local F = {}

--- t, or a contiguous copy of it; raises unless it is an f32 tensor.
local function dense(t, what)
  if C.atomo_tensor_is_contiguous(T.expect(t, what, "f32").h) == 1 then return t end
  return t:contiguous()
end

local function handle(t) return t and t.h or nil end

--- An output slot for the gradient of argument i: the parameter's own .grad buffer where that may be written to.
local function gradient_slot(ctx, i)
  local own, o = ctx:grad_out(i), out()
  if own then o[0] = own.h end
  return o, own
end

local function taken(o, own) return own or wrap(o[0]) end

-- ---- convolution and linear ------------------------------------------------------------------------------------

local conv2d = func {
  name = "conv2d",
  forward = function(ctx, x, w, b, win)
    x, w = dense(x, "conv2d: input"), dense(w, "conv2d: weight")
    if b then T.expect(b, "conv2d: bias", "f32") end
    local o = out()
    check(C.atomo_conv2d(x.h, w.h, handle(b), win, o))
    ctx:save(x, w)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local x, w = ctx:saved()
    local win, gx, gw, gb = ctx.args[4], nil, nil, nil
    gy = dense(gy, "conv2d: gy")
    local with_bias = ctx:needs(3)
    if ctx:needs(2) or with_bias then
      local ow, own_w = gradient_slot(ctx, 2)
      local ob, own_b
      if with_bias then ob, own_b = gradient_slot(ctx, 3) end
      check(C.atomo_conv2d_backward_weights(x.h, w.h, gy.h, win, ow, ob))
      gw = taken(ow, own_w)
      if with_bias then gb = taken(ob, own_b) end
    end
    if ctx:needs(1) then
      local o = out()
      check(C.atomo_conv2d_backward_data(x.h, w.h, gy.h, win, o))
      gx = wrap(o[0])
    end
    return gx, gw, gb
  end,
}

--- 2-D convolution of x [N,H,W,in] with w [out, kh, kw, in/groups] and bias b [out] (or nil).
---@param x atomo.Tensor
---@param w atomo.Tensor
---@param b atomo.Tensor?
---@param opts {stride: any, padding: any, dilation: any, groups: integer?}?
function F.conv2d(x, w, b, opts) return conv2d(x, w, b, window.of("conv2d", opts)) end

local linear = func {
  name = "linear",
  forward = function(ctx, x, w, b)
    x, w = dense(x, "linear: input"), dense(w, "linear: weight")
    if b then T.expect(b, "linear: bias", "f32") end
    local o = out()
    check(C.atomo_linear(x.h, w.h, handle(b), o))
    ctx:save(x, w)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local x, w = ctx:saved()
    local ox, ow, ob, own_w, own_b
    if ctx:needs(1) then ox = out() end
    if ctx:needs(2) then ow, own_w = gradient_slot(ctx, 2) end
    if ctx:needs(3) then ob, own_b = gradient_slot(ctx, 3) end
    check(C.atomo_linear_backward(x.h, w.h, dense(gy, "linear: gy").h, ox, ow, ob))
    return ox and wrap(ox[0]), ow and taken(ow, own_w), ob and taken(ob, own_b)
  end,
}

--- y [..., out] = x [..., in] w^T + b; w [out, in], b [out] or nil.
---@param x atomo.Tensor
---@param w atomo.Tensor
---@param b atomo.Tensor?
function F.linear(x, w, b) return linear(x, w, b) end

-- ---- batch normalisation ---------------------------------------------------------------------------------------

local batch_norm = func {
  name = "batch_norm",
  forward = function(ctx, x, gamma, beta, residual, o)
    x = dense(x, "batch_norm: input")
    residual = residual and dense(residual, "batch_norm: residual")
    T.expect(gamma, "batch_norm: weight", "f32")
    T.expect(beta, "batch_norm: bias", "f32")
    local rm, rv, relu = o.running_mean, o.running_var, o.relu and 1 or 0
    local y, mean, invstd = out(), out(), out()
    if o.training then
      check(C.atomo_batch_norm_train(x.h, handle(residual), gamma.h, beta.h, o.momentum or 0.1, o.eps or 1e-5, relu,
        handle(rm), handle(rv), mean, invstd, y))
      ctx.mean = wrap(mean[0])
    else
      if not (rm and rv) then raise "batch_norm: evaluation needs running_mean and running_var" end
      check(C.atomo_batch_norm_eval(x.h, handle(residual), gamma.h, beta.h, rm.h, rv.h, o.eps or 1e-5, relu, invstd, y))
      ctx.mean = rm
    end
    ctx.invstd = wrap(invstd[0])
    ctx.relu, ctx.training = relu, o.training and 1 or 0
    local result = wrap(y[0])
    ctx.y = relu == 1 and residual and result:detach() or nil
    ctx:save(x, gamma, beta)
    return result
  end,
  backward = function(ctx, gy)
    local x, gamma, beta = ctx:saved()
    local ox, og, own_g = nil, gradient_slot(ctx, 2)
    local ob, own_b = gradient_slot(ctx, 3)
    gy = dense(gy, "batch_norm: gy")
    local y, gr, res = ctx.y, nil, nil
    if y then res = out() elseif ctx:needs(4) then gr = gy end
    if ctx:needs(1) then ox = out() end
    check(C.atomo_batch_norm_backward(x.h, handle(y), gy.h, gamma.h, beta.h, ctx.mean.h, ctx.invstd.h, ctx.relu,
      ctx.training, ox, res, og, ob))
    return ox and wrap(ox[0]), taken(og, own_g), taken(ob, own_b), res and wrap(res[0]) or gr
  end,
}

--- Batch normalisation over all but the last dimension: relu(weight (x - mean) / sqrt(var + eps) + bias + residual).
-- opts: training (use and update batch statistics), running_mean, running_var, momentum = 0.1, eps = 1e-5, relu = false
-- and residual. Running variance is the unbiased one, as in PyTorch.
---@param x atomo.Tensor
---@param weight atomo.Tensor
---@param bias atomo.Tensor
---@param opts table
function F.batch_norm(x, weight, bias, opts)
  return batch_norm(x, weight, bias, opts.residual, opts)
end

--- What nn.BatchNorm2d calls: the options table is its own, the residual an argument.
function F.batch_norm_with(x, weight, bias, residual, opts) return batch_norm(x, weight, bias, residual, opts) end

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

local function softmax(name, log)
  local op = func {
    name = name,
    forward = function(ctx, x, dim)
      local o = out()
      check(C.atomo_softmax(dense(x, name .. ": input").h, dim, log, o))
      local y = wrap(o[0])
      ctx:save(y:detach())
      return y
    end,
    backward = function(ctx, gy)
      local o = out()
      check(C.atomo_softmax_backward(ctx:saved().h, dense(gy, name .. ": gy").h, ctx.args[2], log, o))
      return wrap(o[0])
    end,
  }
  return function(x, dim)
    T.expect(x, name .. ": input", "f32")
    return op(x, T.dimension(x, dim or -1, name))
  end
end

--- Over dimension dim (the last).
F.softmax = softmax("softmax", 0)
F.log_softmax = softmax("log_softmax", 1)

-- ---- pooling ---------------------------------------------------------------------------------------------------

local function pool(name, forward, backward)
  local op = func {
    name = name,
    forward = function(ctx, x, win)
      x = dense(x, name .. ": input")
      local o = out()
      check(forward(x.h, win, o))
      ctx:save(x)
      return wrap(o[0])
    end,
    backward = function(ctx, gy)
      local o = out()
      check(backward(ctx:saved().h, dense(gy, name .. ": gy").h, ctx.args[2], o))
      return wrap(o[0])
    end,
  }
  return function(x, kernel, opts) return op(x, window.pooling(name, kernel, opts)) end
end

--- Of x [N,H,W,C]; F.max_pool2d(x, 2), F.avg_pool2d(x, {3, 2}, {stride=2, padding=1}). stride defaults to the kernel.
F.max_pool2d = pool("max_pool2d", C.atomo_max_pool2d, C.atomo_max_pool2d_backward)
F.avg_pool2d = pool("avg_pool2d", C.atomo_avg_pool2d, C.atomo_avg_pool2d_backward)

--- [N,H,W,C] -> [N,C], the mean over all positions.
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

-- ---- dropout ---------------------------------------------------------------------------------------------------

local draw = {rank = 0, step = 0, calls = 0, seed = -1}

--- Names the masks that follow: a mask depends on (seed, rank, step, number of the call since this one) only. The
-- training loop says it before every step, so that a resumed run draws the same masks and ranks draw different ones.
function F.dropout_stream(rank, step)
  draw.rank, draw.step, draw.calls = rank, step, 0
end

local function next_stream()
  local seed = C.atomo_initial_seed()
  if draw.seed ~= seed then draw.seed, draw.calls = seed, 0 end
  local s = ffi.new "atomo_stream"
  s.seed[0], s.seed[1] = seed % 2 ^ 32, math.floor(seed / 2 ^ 32)
  s.purpose, s.rank, s.step, s.tensor = C.ATOMO_RNG_DROPOUT, draw.rank, draw.step, draw.calls
  draw.calls = draw.calls + 1
  return s
end

local dropout = func {
  name = "dropout",
  forward = function(ctx, x, p)
    local o = out()
    ctx.stream = next_stream()
    check(C.atomo_dropout(dense(x, "dropout: input").h, p, ctx.stream, o))
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local o = out()
    check(C.atomo_dropout(dense(gy, "dropout: gy").h, ctx.args[2], ctx.stream, o))
    return wrap(o[0])
  end,
}

--- Zeroes each element with probability p (0.5) and scales the rest by 1/(1-p). training (default true): false gives x.
---@param x atomo.Tensor
---@param p number?
---@param training boolean?
function F.dropout(x, p, training)
  p = p or 0.5
  if type(p) ~= "number" or not (p >= 0 and p < 1) then
    raise(("dropout: p is %s, expected 0 <= p < 1"):format(tostring(p)))
  end
  if training == false or p == 0 then return x end
  return dropout(x, p)
end

-- ---- losses and scores -----------------------------------------------------------------------------------------

local cross_entropy = func {
  name = "cross_entropy",
  forward = function(ctx, logits, labels)
    local loss, grad = out(), nil
    if ctx:needs(1) then grad = out() end
    check(C.atomo_cross_entropy(dense(logits, "cross_entropy: logits").h, labels.h, loss, grad))
    if grad then ctx.grad = wrap(grad[0]) end
    return wrap(loss[0])
  end,
  backward = function(ctx, gy)
    local g = ctx.grad:clone() -- small; a graph that is kept may ask again
    local scale = gy:item()
    if scale ~= 1 then g:mul_(scale) end
    return g
  end,
}

--- Mean over the batch of -log softmax(logits [N, classes])[label]; labels i32 [N], class ids from 0 (as in PyTorch and
-- in the data files).
---@param logits atomo.Tensor
---@param labels atomo.Tensor
function F.cross_entropy(logits, labels)
  T.expect(labels, "cross_entropy: labels", "i32")
  return cross_entropy(logits, labels)
end

local count = ffi.new "double[1]"

--- Fraction of rows whose largest logit is at the label.
function F.accuracy(logits, labels)
  T.expect(logits, "accuracy: logits", "f32")
  T.expect(labels, "accuracy: labels", "i32")
  check(C.atomo_count_correct(logits:is_contiguous() and logits.h or logits:detach():contiguous().h, labels.h, count))
  return labels.h.numel > 0 and count[0] / labels.h.numel or 0
end

return F
