--- Attention: softmax(q k^T / sqrt(d)) v of several heads, computed in blocks; the T x T scores are never stored.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local S = require "atomo.nn.functional.support"
local D = require "atomo.nn.functional.dropout"
local func = require("atomo.autograd").operator
local O = require "atomo.tensor.check_options"
local window = require "atomo.nn.functional.window"
local C, check, raise = f.C, f.check, f.raise
local wrap, out = T.wrap, T.out

local F = {}

--- Returns t, or a contiguous copy if t's rows are not contiguous.
local function rows(t, what)
  T.expect(t, what, "f32")
  if t:dim() == 3 and (t.h.stride[2] == 1 or t.h.shape[2] == 1) then return t end
  return t:contiguous()
end

--- Returns query, key and value: the three arguments, or with k = nil the three thirds of q's channels.
local function thirds(q, k, v)
  if k then return q, k, v end
  local width = q.h.shape[2] / 3
  return K.narrow_view(q, 2, 0, width), K.narrow_view(q, 2, width, width), K.narrow_view(q, 2, 2 * width, width)
end

local attention = func {
  name = "attention",
  forward = function(ctx, q, k, v, heads, causal, p, mask)
    local a, b, c = thirds(q, k, v)
    local lse, y = out(), out()
    ctx.stream = p > 0 and D.next_dropout_stream() or nil
    check(C.atomo_attention(a.h, b.h, c.h, S.handle(mask), heads, causal, p, ctx.stream, ctx.product_precision,
      lse, y))
    local sums, result = wrap(lse[0]), wrap(y[0])
    ctx:save(q, k, v, mask, result:detach(), sums)
    return result
  end,
  backward = function(ctx, gy)
    local q, k, v, mask, y, lse = ctx:saved()
    local heads, causal, p = ctx.inputs[4], ctx.inputs[5], ctx.inputs[6]
    local a, b, c = thirds(q, k, v)
    local gq, gk, gv = T.empty_like(q), k and T.empty_like(k), v and T.empty_like(v)
    local ga, gb, gc = thirds(gq, gk, gv)
    check(C.atomo_attention_backward(a.h, b.h, c.h, y.h, S.dense(gy, "attention: gy").h, lse.h, S.handle(mask),
      heads, causal, p, ctx.stream, ctx.product_precision, ga.h, gb.h, gc.h))
    return gq, gk or nil, gv or nil
  end,
}

--- Returns a mask as f32, to be added to the scores. In a u8 mask, every nonzero element hides its key.
local function additive(mask, what)
  T.expect(mask, what)
  if mask.requires_grad then raise(what .. " requires a gradient, a mask is a constant") end
  if mask:dtype() == "f32" then return mask end
  T.expect(mask, what, "u8")
  local hidden, source = T.zeros(mask:shape()), mask:contiguous()
  local to, from = hidden:data(), source:data()
  for i = 0, source:numel() - 1 do
    if from[i] ~= 0 then to[i] = -math.huge end
  end
  return hidden
end

--- Returns the sum of key_mask [N, S] and mask [T, S] or [N, T, S], expanded to [N, T, S] (with stride 0 where it
--- repeats).
local function joined_mask(mask, key_mask, n, t, s)
  local function wide(m, what, sizes)
    for i = 1, 3 do
      if m:size(i) ~= 1 and m:size(i) ~= sizes[i] then
        raise(("attention: %s is %s, expected to repeat to %s"):format(what, T.shape_text(m), T.shape_text(sizes)))
      end
    end
    return m
  end
  local sizes, all = {n, t, s}, nil
  if mask then
    mask = additive(mask, "attention: mask")
    if mask:dim() == 2 then mask = mask:unsqueeze(1) end
    if mask:dim() ~= 3 then
      raise(("attention: mask is %s, expected [T, S] or [N, T, S]"):format(T.shape_text(mask)))
    end
    all = wide(mask, "mask", sizes)
  end
  if key_mask then
    key_mask = additive(key_mask, "attention: key_mask")
    if key_mask:dim() ~= 2 then
      raise(("attention: key_mask is %s, expected [N, S]"):format(T.shape_text(key_mask)))
    end
    key_mask = wide(key_mask:unsqueeze(2), "key_mask", sizes)
    all = all and all + key_mask or key_mask
  end
  all = all:expand(sizes)
  return all.h.stride[2] == 1 and all or all:contiguous()
end

local known = {heads = O.whole(1), causal = O.flag, dropout = O.number(0, 1), mask = true, key_mask = true}

--- Calls the operator with the options' values. With k = nil, q has query, key and value side by side.
local function attend(q, k, v, opts)
  opts = opts == nil and {} or opts
  window.check_options("attention", opts, known)
  local heads, causal = S.whole("attention", opts, "heads", 1, 1), opts.causal and 1 or 0
  local p = D.check_dropout("attention: dropout", opts.dropout or 0)
  if p == 1 then raise "attention: dropout: p is 1, expected below 1: no key would be seen" end
  if not (opts.mask or opts.key_mask) then return attention(q, k, v, heads, causal, p) end
  local mask = joined_mask(opts.mask, opts.key_mask, q:size(1), q:size(2), (k or q):size(2))
  return attention(q, k, v, heads, causal, p, mask)
end

--- Attention of q [N,T,C] to k and v [N,S,C]; returns [N,T,C]. Head i (from 0) has channels i C/heads + 1 to (i + 1)
-- C/heads. opts: heads = 1, causal = false (position t attends to 1 to t), dropout = 0 (of the probabilities), mask
-- [T,S] or [N,T,S], and key_mask [N,S] for padded sequences. Masks are f32, added to the scores (-math.huge hides a
-- key), or u8 (1 hides a key). The result of a query whose keys are all hidden is 0.
---@param q atomo.Tensor
---@param k atomo.Tensor
---@param v atomo.Tensor
---@param opts {heads: integer?, causal: boolean?, dropout: number?, mask: atomo.Tensor?, key_mask: atomo.Tensor?}?
---@return atomo.Tensor
---@usage local q = atomo.randn(2, 5, 8) F.scaled_dot_product_attention(q, q, q, {heads = 2, causal = true})
function F.scaled_dot_product_attention(q, k, v, opts)
  return attend(rows(q, "attention: query"), rows(k, "attention: key"), rows(v, "attention: value"), opts)
end

--- Self-attention of one tensor [N,T,3C] that has query, key and value side by side, without a copy; returns [N,T,C].
---@param qkv atomo.Tensor
---@param opts table?  as above
---@return atomo.Tensor
---@usage F.self_attention(atomo.randn(2, 5, 24), {heads = 2}):size(3) --> 8
function F.self_attention(qkv, opts)
  qkv = rows(qkv, "attention: qkv")
  if qkv:dim() ~= 3 or qkv:size(3) % 3 ~= 0 then
    raise(("attention: qkv is %s, expected [N, T, 3 C]"):format(T.shape_text(qkv)))
  end
  return attend(qkv, nil, nil, opts)
end

return F
