--- Losses and scores: cross_entropy, nll_loss, mse_loss, binary_cross_entropy_with_logits, accuracy. PyTorch's formulas
-- and option names. Labels are i32 class ids from 0; logits have the classes in their last dimension.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local S = require "atomo.functional.support"
local func = require("atomo.autograd").operator
local check_options = require("atomo.nn.window").check_options
local ffi, C, check = f.ffi, f.C, f.check
local wrap, out = T.wrap, T.out

local F = {}

--- The gradient that the forward made, times that of the loss: a scalar, or one a row.
local function scaled(ctx, gy)
  if gy:dim() > 0 then return ctx.grad * (gy:dim() < ctx.grad:dim() and gy:unsqueeze(-1) or gy) end
  local g = ctx.grad:clone() -- a graph that is kept may ask again
  local scale = gy:item()
  if scale ~= 1 then g:mul_(scale) end
  return g
end

--- The weights of the classes: an f32 tensor that is a constant, or nil.
local function class_weight(name, opts)
  local weight = opts.weight
  if weight == nil then return nil end
  T.expect(weight, name .. ": weight", "f32")
  if weight.requires_grad then
    f.raise(name .. ": weight requires a gradient, the weights of the classes are constants")
  end
  return S.dense(weight, name .. ": weight")
end

local cross_entropy = func {
  name = "cross_entropy",
  forward = function(ctx, logits, labels, weight, smooth, ignore, reduction)
    local loss, grad = out(), nil
    if ctx:needs(1) then grad = out() end
    check(C.atomo_cross_entropy(S.dense(logits, "cross_entropy: logits").h, labels.h, S.handle(weight), smooth, ignore,
      reduction, loss, grad))
    if grad then ctx.grad = wrap(grad[0]) end
    return wrap(loss[0])
  end,
  backward = scaled,
}

local plain = {}
local label_options = {ignore_index = true, reduction = true, weight = true}
local smoothing = {label_smoothing = true}

--- Mean over the rows of -log softmax(logits [..., classes])[label]; labels i32 [...], class ids from 0 (as in PyTorch
-- and in the data files). opts: label_smoothing = 0, ignore_index = -100, weight [classes] (the mean is then over the
-- labels' weights), reduction = "mean", "sum" or "none" (a loss for each label).
---@param logits atomo.Tensor
---@param labels atomo.Tensor
---@param opts {label_smoothing: number?, ignore_index: integer?, weight: atomo.Tensor?, reduction: string?}?
function F.cross_entropy(logits, labels, opts)
  opts = opts or plain
  check_options("cross_entropy", opts, label_options, smoothing)
  return cross_entropy(logits, S.indices(labels, "cross_entropy: labels"), class_weight("cross_entropy", opts),
    S.number("cross_entropy", opts, "label_smoothing", 0), S.number("cross_entropy", opts, "ignore_index", -100),
    S.reduction("cross_entropy", opts))
end

local nll = func {
  name = "nll_loss",
  forward = function(ctx, logp, labels, weight, ignore, reduction)
    local loss, grad = out(), out()
    check(C.atomo_nll(S.dense(logp, "nll_loss: input").h, labels.h, S.handle(weight), ignore, reduction, loss, grad))
    ctx.grad = wrap(grad[0])
    return wrap(loss[0])
  end,
  backward = scaled,
}

--- Mean of -logp[label] of log-probabilities [..., classes]. opts: ignore_index = -100, weight, reduction.
function F.nll_loss(logp, labels, opts)
  opts = opts or plain
  check_options("nll_loss", opts, label_options)
  return nll(logp, S.indices(labels, "nll_loss: labels"), class_weight("nll_loss", opts),
    S.number("nll_loss", opts, "ignore_index", -100), S.reduction("nll_loss", opts))
end

local pair_options = {reduction = true}

--- A loss between two tensors of one shape; target_gradient(ctx, gy) is that of the second.
local function pair_loss(name, kind, target_gradient)
  local op = func {
    name = name,
    forward = function(ctx, x, target, reduction)
      local loss, grad = out(), out()
      x = S.dense(x, name .. ": input")
      check(C.atomo_pair_loss(kind, x.h, S.dense(target, name .. ": target").h, reduction, loss, grad))
      ctx.grad = wrap(grad[0])
      ctx:save(x)
      return wrap(loss[0])
    end,
    backward = function(ctx, gy)
      return ctx:needs(1) and scaled(ctx, gy) or nil, ctx:needs(2) and target_gradient(ctx, gy) or nil
    end,
  }
  return function(x, target, opts)
    opts = opts or plain
    check_options(name, opts, pair_options)
    return op(x, target, S.reduction(name, opts))
  end
end

--- Mean of (x - target)^2. opts: reduction = "mean", "sum" or "none".
F.mse_loss = pair_loss("mse_loss", C.ATOMO_MSE, function(ctx, gy) return -scaled(ctx, gy) end)

--- Mean of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid; safe for large logits. opts: reduction.
F.binary_cross_entropy_with_logits = pair_loss("bce_with_logits", C.ATOMO_BCE_WITH_LOGITS, function(ctx, gy)
  local x = ctx:saved()
  return x * (ctx.args[3] == C.ATOMO_REDUCE_MEAN and -gy / x:numel() or -gy)
end)
F.bce_with_logits = F.binary_cross_entropy_with_logits

local count = ffi.new "double[2]"

--- Fraction of rows whose largest logit is at the label, of those whose label is not ignored (ignore_index = -100).
function F.accuracy(logits, labels, opts)
  T.expect(logits, "accuracy: logits", "f32")
  local dense = logits:is_contiguous() and logits or logits:detach():contiguous()
  check(C.atomo_count_correct(dense.h, S.indices(labels, "accuracy: labels").h,
    S.number("accuracy", opts or plain, "ignore_index", -100), count))
  return count[1] > 0 and count[0] / count[1] or 0
end

return F
