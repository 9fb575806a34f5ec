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

--- The gradient that the forward made, times that of the scalar loss.
local function scaled(ctx, gy)
  local g = ctx.grad:clone() -- a graph that is kept may ask again
  local scale = gy:item()
  if scale ~= 1 then g:mul_(scale) end
  return g
end

local cross_entropy = func {
  name = "cross_entropy",
  forward = function(ctx, logits, labels, smooth, ignore, sum)
    local loss, grad = out(), nil
    if ctx:needs(1) then grad = out() end
    check(C.atomo_cross_entropy(S.dense(logits, "cross_entropy: logits").h, labels.h, smooth, ignore, sum, loss, grad))
    if grad then ctx.grad = wrap(grad[0]) end
    return wrap(loss[0])
  end,
  backward = scaled,
}

local plain = {}
local label_options = {ignore_index = true, reduction = true}
local smoothing = {label_smoothing = true}

--- Mean over the rows of -log softmax(logits [..., classes])[label]; labels i32 [...], class ids from 0 (as in PyTorch
-- and in the data files). opts: label_smoothing = 0, ignore_index = -100, reduction = "mean" or "sum".
---@param logits atomo.Tensor
---@param labels atomo.Tensor
---@param opts {label_smoothing: number?, ignore_index: integer?, reduction: string?}?
function F.cross_entropy(logits, labels, opts)
  opts = opts or plain
  check_options("cross_entropy", opts, label_options, smoothing)
  return cross_entropy(logits, S.indices(labels, "cross_entropy: labels"),
    S.number("cross_entropy", opts, "label_smoothing", 0), S.number("cross_entropy", opts, "ignore_index", -100),
    S.reduction("cross_entropy", opts))
end

local nll = func {
  name = "nll_loss",
  forward = function(ctx, logp, labels, ignore, sum)
    local loss, grad = out(), out()
    check(C.atomo_nll(S.dense(logp, "nll_loss: input").h, labels.h, ignore, sum, loss, grad))
    ctx.grad = wrap(grad[0])
    return wrap(loss[0])
  end,
  backward = scaled,
}

--- Mean of -logp[label] of log-probabilities [..., classes]. opts: ignore_index = -100, reduction.
function F.nll_loss(logp, labels, opts)
  opts = opts or plain
  check_options("nll_loss", opts, label_options)
  return nll(logp, S.indices(labels, "nll_loss: labels"), S.number("nll_loss", opts, "ignore_index", -100),
    S.reduction("nll_loss", opts))
end

local pair_options = {reduction = true}

--- A loss between two tensors of one shape; target_gradient(ctx, scale) is that of the second.
local function pair_loss(name, kind, target_gradient)
  local op = func {
    name = name,
    forward = function(ctx, x, target, sum)
      local loss, grad = out(), out()
      x = S.dense(x, name .. ": input")
      check(C.atomo_pair_loss(kind, x.h, S.dense(target, name .. ": target").h, sum, loss, grad))
      ctx.grad = wrap(grad[0])
      ctx:save(x)
      return wrap(loss[0])
    end,
    backward = function(ctx, gy)
      return ctx:needs(1) and scaled(ctx, gy) or nil, ctx:needs(2) and target_gradient(ctx, gy:item()) or nil
    end,
  }
  return function(x, target, opts)
    opts = opts or plain
    check_options(name, opts, pair_options)
    return op(x, target, S.reduction(name, opts))
  end
end

--- Mean of (x - target)^2. opts: reduction = "mean" or "sum".
F.mse_loss = pair_loss("mse_loss", C.ATOMO_MSE, function(ctx, scale) return ctx.grad * -scale end)

--- Mean of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid; safe for large logits. opts: reduction.
F.binary_cross_entropy_with_logits = pair_loss("bce_with_logits", C.ATOMO_BCE_WITH_LOGITS, function(ctx, scale)
  local x = ctx:saved()
  return x * (-scale / (ctx.args[3] == 1 and 1 or x:numel()))
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
