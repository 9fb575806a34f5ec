--- attention: softmax(q k^T / sqrt(d)) v of several heads, blocked: T x T is never stored.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.ops.kernels"
local S = require "atomo.functional.support"
local D = require "atomo.functional.dropout"
local func = require("atomo.autograd").operator
local window = require "atomo.nn.window"
local C, check, raise = f.C, f.check, f.raise
local wrap, out = T.wrap, T.out

local F = {}

--- t, or a contiguous copy where its rows are not dense.
local function rows(t, what)
  T.expect(t, what, "f32")
  if t:dim() == 3 and (t.h.stride[2] == 1 or t.h.shape[2] == 1) then return t end
  return t:contiguous()
end

--- query, key and value: three tensors, or the thirds of one (packed, when k is nil).
local function thirds(q, k, v)
  if k then return q, k, v end
  local width = q.h.shape[2] / 3
  return K.narrow_view(q, 2, 0, width), K.narrow_view(q, 2, width, width), K.narrow_view(q, 2, 2 * width, width)
end

local attention = func {
  name = "attention",
  forward = function(ctx, q, k, v, heads, causal, p)
    local a, b, c = thirds(q, k, v)
    local lse, y = out(), out()
    ctx.stream = p > 0 and D.next_dropout_stream() or nil
    check(C.atomo_attention(a.h, b.h, c.h, heads, causal, p, ctx.stream, lse, y))
    ctx.lse = wrap(lse[0])
    local result = wrap(y[0])
    ctx:save(q, k, v)
    ctx.y = result:detach()
    return result
  end,
  backward = function(ctx, gy)
    local q, k, v = ctx:saved()
    local heads, causal, p = unpack(ctx.args, 4, 6)
    local a, b, c = thirds(q, k, v)
    local gq, gk, gv = T.empty_like(q), k and T.empty_like(k), v and T.empty_like(v)
    local ga, gb, gc = thirds(gq, gk, gv)
    check(C.atomo_attention_backward(a.h, b.h, c.h, ctx.y.h, S.dense(gy, "attention: gy").h, ctx.lse.h, heads, causal,
      p, ctx.stream, ga.h, gb.h, gc.h))
    return gq, gk or nil, gv or nil
  end,
}

local known = {heads = true, causal = true, dropout = true}

local function options(opts)
  opts = opts or {}
  window.check_options("attention", opts, known)
  return S.number("attention", opts, "heads", 1), opts.causal and 1 or 0,
    D.check_dropout("attention: dropout", opts.dropout or 0)
end

--- y [N,T,C] from q [N,T,C], k and v [N,S,C]; head i is columns i C/heads + 1 ... of each.
-- opts: heads = 1, causal = false (position t sees 1 to t), dropout = 0 (of the probabilities).
---@param q atomo.Tensor
---@param k atomo.Tensor
---@param v atomo.Tensor
---@param opts {heads: integer?, causal: boolean?, dropout: number?}?
function F.scaled_dot_product_attention(q, k, v, opts)
  return attention(rows(q, "attention: query"), rows(k, "attention: key"), rows(v, "attention: value"), options(opts))
end

--- The same of one tensor [N,T,3C] that holds query, key and value side by side: no copies.
---@param qkv atomo.Tensor
---@param opts {heads: integer?, causal: boolean?, dropout: number?}?
function F.self_attention(qkv, opts)
  qkv = rows(qkv, "attention: qkv")
  if qkv:dim() ~= 3 or qkv:size(3) % 3 ~= 0 then
    raise(("attention: qkv is %s, expected [N, T, 3 C]"):format(T.shape_text(qkv)))
  end
  return attention(qkv, nil, nil, options(opts))
end

return F
