--- linear_cross_entropy: the head of a language model and its loss in one operator, for vocabularies whose logits would
-- not fit into memory. Forward computes the gradients, too, so that each block of logits is computed once.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local counted = require "atomo.nn.functional.counted"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local O = require "atomo.tensor.check_options"
local ffi, C, check = f.ffi, f.C, f.check
local wrap, out = T.wrap, T.out

local F = {}

local count = ffi.new "double[2]"

local linear_cross_entropy = func {
  name = "linear_cross_entropy",
  forward = function(ctx, x, w, b, labels, smooth, ignore, reduction)
    local loss, gx, gw, gb = out(), ctx:needs(1) and out() or nil, ctx:needs(2) and out() or nil,
      ctx:needs(3) and out() or nil
    x, w = S.dense(x, "linear_cross_entropy: input"), S.dense(w, "linear_cross_entropy: weight")
    b = b and S.dense(b, "linear_cross_entropy: bias")
    check(C.atomo_linear_cross_entropy(x.h, w.h, S.handle(b), labels.h, smooth, ignore, reduction,
      ctx.product_precision, loss, gx, gw, gb, count))
    ctx:save(gx and wrap(gx[0]) or nil, gw and wrap(gw[0]) or nil, gb and wrap(gb[0]) or nil)
    return wrap(loss[0])
  end,
  backward = function(ctx, gy)
    local scale, grads = gy:item(), {ctx:saved()}
    for i = 1, 3 do
      local grad = grads[i]
      if grad then
        local own = i > 1 and ctx:grad_out(i) -- of a large weight: written in place, without another copy
        grads[i] = own and own:copy_(grad) or grad:clone() -- if the graph is retained, backward reads grad again
        if scale ~= 1 then grads[i]:mul_(scale) end
      end
    end
    return grads[1], grads[2], grads[3]
  end,
}

local rules = {bias = O.tensor, ignore_index = O.whole(), label_smoothing = O.number(0, 1),
  reduction = O.one_of("mean", "sum")}
local plain = {}

--- F.cross_entropy(F.linear(x, weight, bias), labels), without the memory of the logits: they are computed for a block
--- of rows at a time, and so are the gradients. For language models, whose logits [N, T, vocabulary] are the largest
--- tensor; weight may be that of the embedding. opts: bias [classes], ignore_index (-100), label_smoothing (0),
--- reduction = "mean" or "sum". The loss's field `count` is the divisor of the mean. The second result is F.accuracy of
--- the logits.
---@param x atomo.Tensor [..., in]
---@param weight atomo.Tensor [classes, in]
---@param labels atomo.Tensor i32 [...], class ids from 0
---@param opts {bias: atomo.Tensor?, ignore_index: integer?, label_smoothing: number?, reduction: "mean"|"sum"|nil}?
---@return atomo.Tensor a scalar
---@return number accuracy the fraction of the labels, ignored ones left out, that have the largest logit
---@usage F.linear_cross_entropy(atomo.ones(2, 3), atomo.ones(5, 3), atomo.tensor({0, 4}, "i32")):item() > 1 --> true
function F.linear_cross_entropy(x, weight, labels, opts)
  opts = opts == nil and plain or opts
  O.check("linear_cross_entropy", opts, rules)
  T.expect(x, "linear_cross_entropy: input", "f32")
  labels = S.indices(labels, "linear_cross_entropy: labels")
  local ignore = S.whole("linear_cross_entropy", opts, "ignore_index", -100)
  local reduction = S.reduction("linear_cross_entropy", opts)
  local loss = linear_cross_entropy(x, weight, opts.bias, labels,
    S.number("linear_cross_entropy", opts, "label_smoothing", 0), ignore, reduction)
  local right, judged = f.number(count, 0), f.number(count, 1)
  return counted.note(loss, reduction, judged, ignore), judged > 0 and right / judged or 0
end

return F
