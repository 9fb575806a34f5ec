--- lstm and gru: one layer over a whole sequence, with time as the first dimension. nn.LSTM and nn.GRU stack them.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local wrap, out, dense, handle = T.wrap, T.out, S.dense, S.handle

--- Makes the operator (xg, w_hh, b_hh, h0, c0) -> y, c. xg [T,N,gates * H]: the input already multiplied by w_ih; h0,
--- c0 [N,H]; y [T,N,H]; c [N,H]: the last cell state (LSTM only).
local function recurrent(name, kind, has_c)
  return func {
    name = name,
    forward = function(ctx, xg, w, b, h0, c0)
      local saved, c, y = out(), has_c and out() or nil, out()
      xg, w, h0 = dense(xg, name .. ": input"), dense(w, name .. ": weight_hh"), dense(h0, name .. ": h0")
      b = b and dense(b, name .. ": bias_hh")
      if has_c then c0 = dense(c0, name .. ": c0") end
      check(C.atomo_recurrent(kind, xg.h, w.h, handle(b), h0.h, handle(c0), ctx.product_precision,
        saved, c, y))
      c = c and wrap(c[0]) or nil
      local result = wrap(y[0])
      ctx:save(w, h0, c0, wrap(saved[0]), c, result:detach())
      if has_c then return result, c:select(1, c:size(1)):clone() end
      return result
    end,
    backward = function(ctx, gy, gc)
      local w, h0, c0, gates, c, y = ctx:saved()
      local ox, ow, own_w = out(), S.gradient_slot(ctx, 2)
      local ob, own_b, oh, oc = nil, nil, out(), has_c and out() or nil
      if ctx:needs(3) then ob, own_b = S.gradient_slot(ctx, 3) end
      gy = gy and dense(gy, name .. ": gy") or T.zeros_like(y)
      gc = gc and dense(gc, name .. ": gc")
      check(C.atomo_recurrent_backward(kind, w.h, h0.h, handle(c0), gates.h, handle(c), y.h, gy.h,
        handle(gc), ctx.product_precision, ox, ow, ob, oh, oc))
      return wrap(ox[0]), S.taken(ow, own_w), ob and S.taken(ob, own_b), wrap(oh[0]), oc and wrap(oc[0])
    end,
  }
end

local lstm = recurrent("lstm", C.ATOMO_LSTM, true)
local gru = recurrent("gru", C.ATOMO_GRU, false)

--- Returns lstm and gru. linear: the operator y = x w^T + b of atomo.F.
return function(linear)
  local F = {}

  --- x [T,N,in], weights as in PyTorch: w_ih [4H,in], w_hh [4H,H], b_ih and b_hh [4H] (or nil), h0 and c0 [N,H].
  -- Returns y [T,N,H] and the last cell state c [N,H]; the last h is y:select(1, T).
  ---@param x atomo.Tensor [T, N, in]
  ---@param w_ih atomo.Tensor [4H, in]
  ---@param w_hh atomo.Tensor [4H, H]
  ---@param b_ih atomo.Tensor? [4H]
  ---@param b_hh atomo.Tensor? [4H]
  ---@param h0 atomo.Tensor [N, H]
  ---@param c0 atomo.Tensor [N, H]
  ---@return atomo.Tensor y [T, N, H]
  ---@return atomo.Tensor c [N, H]
  ---@usage F.lstm(atomo.randn(5, 2, 3), atomo.randn(16, 3), atomo.randn(16, 4), nil, nil, atomo.zeros(2, 4),
  ---@usage atomo.zeros(2, 4)):size(3) --> 4
  function F.lstm(x, w_ih, w_hh, b_ih, b_hh, h0, c0) return lstm(linear(x, w_ih, b_ih), w_hh, b_hh, h0, c0) end

  --- As lstm, with 3H rows of weights and without c.
  ---@param x atomo.Tensor [T, N, in]
  ---@param w_ih atomo.Tensor [3H, in]
  ---@param w_hh atomo.Tensor [3H, H]
  ---@param b_ih atomo.Tensor? [3H]
  ---@param b_hh atomo.Tensor? [3H]
  ---@param h0 atomo.Tensor [N, H]
  ---@return atomo.Tensor [T, N, H]
  ---@usage F.gru(atomo.randn(5, 2, 3), atomo.randn(12, 3), atomo.randn(12, 4), nil, nil, atomo.zeros(2, 4)):size(3)
  ---@usage --> 4
  function F.gru(x, w_ih, w_hh, b_ih, b_hh, h0) return gru(linear(x, w_ih, b_ih), w_hh, b_hh, h0) end

  return F
end
