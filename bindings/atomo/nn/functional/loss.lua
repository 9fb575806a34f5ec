--- Losses, and accuracy, with PyTorch's formulas and option names. Labels are i32 class ids from 0; logits have the
-- classes in their last dimension.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local counted = require "atomo.nn.functional.counted"
local S = require "atomo.nn.functional.support"
local log_softmax = require("atomo.nn.functional.softmax").log_softmax
local func = require("atomo.autograd").operator
local O = require "atomo.tensor.check_options"
local check_options = O.check
local ffi, C, check = f.ffi, f.C, f.check
local wrap, out = T.wrap, T.out

local F = {}

--- Returns grad, computed in forward, times the loss's gradient gy: a scalar, or one per row.
local function times(grad, gy)
  if gy:dim() > 0 then return grad * (gy:dim() < grad:dim() and gy:unsqueeze(-1) or gy) end
  local g = grad:clone() -- with retain_graph, backward may run again and needs grad unchanged
  local scale = gy:item()
  if scale ~= 1 then g:mul_(scale) end
  return g
end

local function scaled(ctx, gy) return times(ctx:saved(), gy) end

--- Returns opts.weight, the weights of the classes, detached; nil if absent.
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
    if grad then ctx:save(wrap(grad[0])) end
    return wrap(loss[0])
  end,
  backward = scaled,
}

--- Cross entropy with class probabilities t: -sum_k w_k t_k log softmax(logits)_k per row, t smoothed by
--- label_smoothing.
local function soft_cross_entropy(logits, target, opts)
  if T.shape_text(logits) ~= T.shape_text(target) or logits:dim() == 0 then
    f.raise(("cross_entropy: labels is f32, expected i32: class ids, or of class probabilities the logits' shape " ..
      "%s, got %s"):format(T.shape_text(logits), T.shape_text(target)))
  end
  if logits:numel() == 0 then
    f.raise(("cross_entropy: logits is %s, an empty batch has no loss"):format(T.shape_text(logits)))
  end
  local smooth, weight = S.number("cross_entropy", opts, "label_smoothing", 0), class_weight("cross_entropy", opts)
  local reduction, classes = S.reduction("cross_entropy", opts), logits:size(-1)
  if smooth < 0 or smooth > 1 then f.raise(("cross_entropy: label_smoothing is %g, expected 0 to 1"):format(smooth)) end
  if opts.ignore_index ~= nil then
    f.raise "cross_entropy: ignore_index is of class ids, the labels are class probabilities"
  end
  if weight and (weight:dim() ~= 1 or weight:size(1) ~= classes) then
    f.raise(("cross_entropy: weight is %s, logits is %s: expected [%d]"):format(T.shape_text(weight),
      T.shape_text(logits), classes))
  end
  if smooth > 0 then target = target * (1 - smooth) + smooth / classes end
  local terms = log_softmax(logits) * target
  if weight then terms = terms * weight end
  if reduction == C.ATOMO_REDUCE_NONE then return -terms:sum(-1) end
  local loss = terms:sum() * (reduction == C.ATOMO_REDUCE_MEAN and -classes / logits:numel() or -1)
  return counted.note(loss, reduction, logits:numel() / classes)
end

local plain = {}
local is_reduction = O.one_of("mean", "sum", "none")
local label_options = {ignore_index = O.whole(), reduction = is_reduction, weight = O.tensor}
local smoothing = {label_smoothing = O.number(0, 1)}
local number = ffi.new "double[1]"

--- Sets the count of a loss over labels (counted.lua); returns the loss. sum: see counted.note.
local function over_labels(loss, labels, weight, ignore, reduction, sum)
  check(C.atomo_count_labels(labels.h, S.handle(weight), ignore, number))
  return counted.note(loss, reduction, f.number(number), ignore, sum)
end

--- Mean over the rows of -log softmax(logits [..., classes])[label]. labels: i32 [...], class ids from 0 (as in PyTorch
-- and in the data files), or class probabilities, f32 in the shape of logits. opts: label_smoothing (0), ignore_index
-- (default -100), weight [classes] (the mean is then weighted), reduction = "mean", "sum" or "none" (one loss per row).
-- The loss's field `count` is the divisor of the mean; if it is 0 (all labels ignored, or of classes without weight),
-- the loss is 0.
---@param logits atomo.Tensor
---@param labels atomo.Tensor
---@param opts {label_smoothing: number?, ignore_index: integer?, weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Tensor a scalar, or with reduction = "none" one loss for each row
---@usage F.cross_entropy(atomo.zeros(2, 2), atomo.tensor({0, 1}, "i32")):item() > 0.69 --> true
function F.cross_entropy(logits, labels, opts)
  opts = opts or plain
  check_options("cross_entropy", opts, label_options, smoothing)
  if T.is_tensor(labels) and labels:dtype() == "f32" then
    return soft_cross_entropy(T.expect(logits, "cross_entropy: logits", "f32"), labels, opts)
  end
  labels = S.indices(labels, "cross_entropy: labels")
  local weight, ignore = class_weight("cross_entropy", opts), S.whole("cross_entropy", opts, "ignore_index", -100)
  local reduction = S.reduction("cross_entropy", opts)
  local smooth = S.number("cross_entropy", opts, "label_smoothing", 0)
  local function sum() return cross_entropy(logits, labels, weight, smooth, ignore, C.ATOMO_REDUCE_SUM) end
  local loss = cross_entropy(logits, labels, weight, smooth, ignore, reduction)
  return over_labels(loss, labels, weight, ignore, reduction, weight and smooth > 0 and sum or nil)
end

local nll = func {
  name = "nll_loss",
  forward = function(ctx, logp, labels, weight, ignore, reduction)
    local loss, grad = out(), out()
    check(C.atomo_nll(S.dense(logp, "nll_loss: input").h, labels.h, S.handle(weight), ignore, reduction, loss, grad))
    ctx:save(wrap(grad[0]))
    return wrap(loss[0])
  end,
  backward = scaled,
}

--- Mean over the rows of -logp[label], logp [..., classes] log-probabilities. opts: ignore_index = -100, weight
--- [classes], reduction.
---@param logp atomo.Tensor [..., classes]
---@param labels atomo.Tensor i32 [...], from 0
---@param opts {ignore_index: integer?, weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Tensor
---@usage F.nll_loss(F.log_softmax(atomo.zeros(2, 2)), atomo.tensor({0, 1}, "i32")):item() > 0.69 --> true
function F.nll_loss(logp, labels, opts)
  opts = opts or plain
  check_options("nll_loss", opts, label_options)
  labels = S.indices(labels, "nll_loss: labels")
  local weight, ignore = class_weight("nll_loss", opts), S.whole("nll_loss", opts, "ignore_index", -100)
  local reduction = S.reduction("nll_loss", opts)
  return over_labels(nll(logp, labels, weight, ignore, reduction), labels, weight, ignore, reduction)
end

local pair_options, bce_options = {reduction = is_reduction}, {weight = O.tensor, pos_weight = O.tensor}

--- Makes a loss between two f32 tensors of equal shape.
local function pair_loss(name, kind)
  return func {
    name = name,
    forward = function(ctx, x, target, reduction, weight, pos_weight)
      local loss, gx, gt = out(), ctx:needs(1) and out() or nil, ctx:needs(2) and out() or nil
      check(C.atomo_pair_loss(kind, S.dense(x, name .. ": input").h, S.dense(target, name .. ": target").h,
        S.handle(weight), S.handle(pos_weight), reduction, loss, gx, gt))
      ctx:save(gx and wrap(gx[0]) or nil, gt and wrap(gt[0]) or nil)
      return wrap(loss[0])
    end,
    backward = function(ctx, gy)
      local gx, gt = ctx:saved()
      return gx and times(gx, gy), gt and times(gt, gy)
    end,
  }
end

local mse = pair_loss("mse_loss", C.ATOMO_MSE)
local l1 = pair_loss("l1_loss", C.ATOMO_L1)
local smooth_l1 = pair_loss("smooth_l1_loss", C.ATOMO_SMOOTH_L1)
local huber = pair_loss("huber_loss", C.ATOMO_HUBER)
local bce = pair_loss("bce_with_logits", C.ATOMO_BCE_WITH_LOGITS)

--- Returns the loss of op, which has no option but reduction.
local function plain_loss(who, op, x, target, opts)
  opts = opts or plain
  check_options(who, opts, pair_options)
  local reduction = S.reduction(who, opts)
  return counted.note(op(x, target, reduction), reduction, x:numel())
end

--- Mean of (x - target)^2. opts: reduction = "mean", "sum" or "none".
---@param x atomo.Tensor
---@param target atomo.Tensor of x's shape
---@param opts {reduction: "mean"|"sum"|"none"|nil}?
---@return atomo.Tensor
---@usage F.mse_loss(atomo.ones(2), atomo.zeros(2)):item() --> 1
function F.mse_loss(x, target, opts) return plain_loss("mse_loss", mse, x, target, opts) end

--- Mean of |x - target|. opts: reduction = "mean", "sum" or "none".
---@param x atomo.Tensor
---@param target atomo.Tensor of x's shape
---@param opts {reduction: "mean"|"sum"|"none"|nil}?
---@return atomo.Tensor
---@usage F.l1_loss(atomo.full({2}, 3), atomo.zeros(2)):item() --> 3
function F.l1_loss(x, target, opts) return plain_loss("l1_loss", l1, x, target, opts) end

--- Returns the loss of op, whose errors change from squares to lines at opts[name] (default 1).
local function smooth(who, op, name, x, target, opts)
  local reduction, at = S.reduction(who, opts), opts[name] or 1
  T.expect(x, who .. ": input", "f32")
  return counted.note(op(x, target, reduction, nil, at ~= 1 and T.full(x:shape(), at) or nil), reduction, x:numel())
end

local smooth_options = {beta = O.number(0)}
local huber_options = {delta = function(v)
  return not (type(v) == "number" and v > 0 and v < math.huge) and "a number above 0" or nil
end}

--- Mean of d^2 / (2 beta) where d = |x - target| is below beta, else of d - beta / 2. opts: beta = 1 (0: F.l1_loss);
--- reduction.
---@param x atomo.Tensor
---@param target atomo.Tensor of x's shape
---@param opts {beta: number?, reduction: "mean"|"sum"|"none"|nil}?
---@return atomo.Tensor
---@usage F.smooth_l1_loss(atomo.full({2}, 3), atomo.zeros(2)):item() --> 2.5
function F.smooth_l1_loss(x, target, opts)
  opts = opts or plain
  check_options("smooth_l1_loss", opts, pair_options, smooth_options)
  return smooth("smooth_l1_loss", smooth_l1, "beta", x, target, opts)
end

--- Mean of d^2 / 2 where d = |x - target| is below delta, else of delta (d - delta / 2). opts: delta = 1, above 0;
--- reduction.
---@param x atomo.Tensor
---@param target atomo.Tensor of x's shape
---@param opts {delta: number?, reduction: "mean"|"sum"|"none"|nil}?
---@return atomo.Tensor
---@usage F.huber_loss(atomo.full({2}, 3), atomo.zeros(2), {delta = 2}):item() --> 4
function F.huber_loss(x, target, opts)
  opts = opts or plain
  check_options("huber_loss", opts, pair_options, huber_options)
  return smooth("huber_loss", huber, "delta", x, target, opts)
end

--- Returns opts[name], detached and broadcast to x's shape; nil if absent.
local function repeated(name, opts, x)
  local w = opts[name]
  if w == nil then return nil end
  local what = "bce_with_logits: " .. name
  T.expect(w, what, "f32")
  if w.requires_grad then f.raise(what .. " requires a gradient, weights are constants") end
  local skip = T.expect(x, "bce_with_logits: input", "f32"):dim() - w:dim()
  for i = 1, w:dim() do
    if skip < 0 or (w:size(i) ~= 1 and w:size(i) ~= x:size(skip + i)) then
      f.raise(("%s is %s, input is %s: expected a shape that broadcasts to it"):format(what, T.shape_text(w),
        T.shape_text(x)))
    end
  end
  return T.empty(x:shape()):copy_(w)
end

--- Mean of -t log s(x) - (1 - t) log(1 - s(x)), s the sigmoid, without overflow for large x. opts: weight (of an
--- element) and pos_weight (of its first term), tensors that broadcast to x's shape, such as [classes]; reduction.
---@param opts {weight: atomo.Tensor?, pos_weight: atomo.Tensor?, reduction: string?}?
---@param x atomo.Tensor logits
---@param target atomo.Tensor probabilities, of x's shape
---@return atomo.Tensor
---@usage F.binary_cross_entropy_with_logits(atomo.zeros(2), atomo.ones(2)):item() > 0.69 --> true
function F.binary_cross_entropy_with_logits(x, target, opts)
  opts = opts or plain
  check_options("bce_with_logits", opts, pair_options, bce_options)
  local reduction = S.reduction("bce_with_logits", opts)
  local loss = bce(x, target, reduction, repeated("weight", opts, x), repeated("pos_weight", opts, x))
  return counted.note(loss, reduction, x:numel())
end
F.bce_with_logits = F.binary_cross_entropy_with_logits

local count, accuracy_options = ffi.new "double[2]", {ignore_index = O.whole()}

--- Returns the fraction of rows whose largest logit is at the label, and the number of rows judged. Rows whose label is
--- ignore_index (default -100) are not judged. Of labels that are class probabilities, the most probable class counts.
---@param logits atomo.Tensor [..., classes]
---@param labels atomo.Tensor i32 [...], or class probabilities
---@param opts {ignore_index: integer?}?
---@return number fraction
---@return integer rows judged
---@usage F.accuracy(atomo.tensor {{1, 2}, {3, 1}}, atomo.tensor({1, 0}, "i32")) --> 1
function F.accuracy(logits, labels, opts)
  check_options("accuracy", opts or plain, accuracy_options)
  T.expect(logits, "accuracy: logits", "f32")
  if T.is_tensor(labels) and labels:dtype() == "f32" and T.shape_text(labels) == T.shape_text(logits) then
    labels = labels:detach():argmax(-1) - 1 -- indices count from 1, classes from 0
  end
  local dense = logits:is_contiguous() and logits or logits:detach():contiguous()
  check(C.atomo_count_correct(dense.h, S.indices(labels, "accuracy: labels").h,
    S.whole("accuracy", opts or plain, "ignore_index", -100), count))
  local right, judged = f.number(count, 0), f.number(count, 1)
  return judged > 0 and right / judged or 0, judged
end

--- Raises unless opts are options of the loss function F[name]. The loss layers call this when they are made.
local rules = {cross_entropy = {label_options, smoothing}, nll_loss = {label_options}, mse_loss = {pair_options},
  l1_loss = {pair_options}, smooth_l1_loss = {pair_options, smooth_options}, huber_loss = {pair_options, huber_options},
  bce_with_logits = {pair_options, bce_options}}
function F.check_loss(layer, name, opts) check_options(layer, opts, unpack(rules[name])) end

--- Returns a set of the names of the options of the loss function F[name].
function F.loss_options(name) return O.names(unpack(rules[name])) end

return F
