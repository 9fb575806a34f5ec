--- conv_transpose2d, the adjoint of conv2d: its forward is conv2d's backward with respect to the data.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local window = require "atomo.nn.functional.window"
local C, check, raise = f.C, f.check, f.raise
local wrap, out, dense = T.wrap, T.out, S.dense

local F = {}

local conv_transpose2d = func {
  name = "conv_transpose2d",
  forward = function(ctx, x, w, b, win, sizes)
    local y, o = T.empty(sizes), out()
    o[0] = y.h
    check(C.atomo_conv2d_backward_data(y.h, w.h, x.h, win, ctx.product_precision, 0, o)) -- only the shape of y is read
    if b then y:add_(b) end
    ctx:save(x, w)
    return y
  end,
  backward = function(ctx, gy)
    local x, w = ctx:saved()
    local win, gx, gw = ctx.inputs[4], nil, nil
    gy = dense(gy, "conv_transpose2d: gy")
    if ctx:needs(2) then
      local o, own = S.gradient_slot(ctx, 2)
      check(C.atomo_conv2d_backward_weights(gy.h, w.h, x.h, win, ctx.product_precision, o, nil))
      gw = S.taken(o, own)
    end
    if ctx:needs(1) then
      local o = out()
      check(C.atomo_conv2d(gy.h, w.h, nil, win, ctx.product_precision, o))
      gx = wrap(o[0])
    end
    return gx, gw, ctx:needs(3) and K.sum_to(gy, ctx.inputs[3]) or nil
  end,
}

local names = {stride = true, padding = true, dilation = true, groups = true}
local extra = {output_padding = true}

--- Checks opts; returns the window and the output padding {h, w}. more: rules of further options.
function F.transpose_window(layer, opts, more)
  opts = opts == nil and {} or opts
  window.check_options(layer, opts, names, extra, more or {})
  local plain = {}
  for name in pairs(names) do plain[name] = opts[name] end
  local win = window.of(layer, plain)
  local ph, pw = window.pair(layer, "output_padding", opts.output_padding, 0, 0)
  if ph >= win.stride[0] or pw >= win.stride[1] then
    raise(("%s: output_padding {%d,%d}, expected less than stride {%d,%d}"):format(layer, ph, pw, win.stride[0],
      win.stride[1]))
  end
  return win, {ph, pw}
end

--- conv_transpose2d with the results of F.transpose_window; for nn.ConvTranspose2d.
function F.conv_transpose2d_with(x, w, b, win, output_padding)
  x, w = dense(x, "conv_transpose2d: input"), dense(w, "conv_transpose2d: weight")
  if x:dim() ~= 4 or w:dim() ~= 4 or x:size(4) ~= w:size(1) then
    raise(("conv_transpose2d: input is %s, weight is %s: expected [N,H,W,in] and [in, kh, kw, out/groups]"):format(
      T.shape_text(x), T.shape_text(w)))
  end
  local sizes = {x:size(1), 0, 0, w:size(4) * win.groups}
  for i = 0, 1 do
    sizes[i + 2] = (x:size(i + 2) - 1) * win.stride[i] - 2 * win.padding[i] + win.dilation[i] * (w:size(i + 2) - 1) +
      output_padding[i + 1] + 1
    if sizes[i + 2] < 1 or x:size(i + 2) < 1 then
      raise(("conv_transpose2d: input %s, weight %s, padding {%d,%d}: the result would have no positions"):format(
        T.shape_text(x), T.shape_text(w), win.padding[0], win.padding[1]))
    end
  end
  if b and (T.expect(b, "conv_transpose2d: bias", "f32"):dim() ~= 1 or b:size(1) ~= sizes[4]) then
    raise(("conv_transpose2d: bias is %s, weight is %s: expected [%d]"):format(T.shape_text(b), T.shape_text(w),
      sizes[4]))
  end
  return conv_transpose2d(x, w, b, win, sizes)
end

--- Transposed convolution of x [N,H,W,in] with w [in, kh, kw, out/groups] and bias b [out] (or nil) -> [N,OH,OW,out],
-- OH = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, OW likewise.
---@param opts {stride: any, padding: any, output_padding: any, dilation: any, groups: integer?}?
---@param x atomo.Tensor [N,H,W,in]
---@param w atomo.Tensor [in, kh, kw, out/groups]
---@param b atomo.Tensor? [out]
---@return atomo.Tensor
---@usage F.conv_transpose2d(x, atomo.randn(3, 2, 2, 5), nil, {stride = 2}):size(2) --> 16
function F.conv_transpose2d(x, w, b, opts)
  return F.conv_transpose2d_with(x, w, b, F.transpose_window("conv_transpose2d", opts))
end

return F
