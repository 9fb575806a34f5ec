--- layer_norm and group_norm (batch_norm is in init.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local C, check, raise = f.C, f.check, f.raise
local wrap, out, dense, handle = T.wrap, T.out, S.dense, S.handle

local F = {}

local function check_eps(who, eps)
  if eps == nil then return 1e-5 end
  if type(eps) ~= "number" or not (eps >= 0 and eps < math.huge) then
    raise(("%s: eps is %s, expected a number >= 0"):format(who, brief(eps)))
  end
  return eps
end

local function is_exact(k, saved) return k == 1 and S.is_far(saved[3], saved[4]) end

local layer_norm = func {
  name = "layer_norm", is_exact = is_exact,
  forward = function(ctx, x, weight, bias, ndim, eps)
    x = dense(x, "layer_norm: input")
    weight, bias = weight and dense(weight, "layer_norm: weight"), bias and dense(bias, "layer_norm: bias")
    local y, mean, invstd = out(), out(), out()
    check(C.atomo_layer_norm(x.h, ndim, handle(weight), handle(bias), eps, mean, invstd, y))
    ctx:save(x, weight, wrap(mean[0]), wrap(invstd[0]))
    return wrap(y[0])
  end,
  backward = function(ctx, gy)
    local x, weight, mean, invstd = ctx:saved()
    local ox, og, own_g, ob, own_b = nil, nil, nil, nil, nil
    if ctx:needs(1) then ox = out() end
    if weight then
      og, own_g = S.gradient_slot(ctx, 2)
      ob, own_b = S.gradient_slot(ctx, 3)
    end
    check(C.atomo_layer_norm_backward(x.h, ctx.inputs[4], dense(gy, "layer_norm: gy").h, handle(weight), mean.h,
      invstd.h, ox, og, ob))
    return ox and wrap(ox[0]), og and S.taken(og, own_g), ob and S.taken(ob, own_b)
  end,
}

--- (x - mean) / sqrt(var + eps) * weight + bias, with mean and var over the last dimensions, whose sizes are
--- normalized_shape (a number or a list). weight and bias have that shape, or both are nil. Default eps: 1e-5.
---@param x atomo.Tensor
---@param normalized_shape integer|integer[]
---@param weight atomo.Tensor?
---@param bias atomo.Tensor?
---@param eps number?
---@return atomo.Tensor
---@usage F.layer_norm(x, 3):dim() --> 4
function F.layer_norm(x, normalized_shape, weight, bias, eps)
  local sizes = type(normalized_shape) == "table" and normalized_shape or {normalized_shape}
  T.expect(x, "layer_norm: input", "f32")
  local skip = x:dim() - #sizes
  for i = 1, #sizes do
    if skip < 0 or x:size(skip + i) ~= sizes[i] then
      raise(("layer_norm: input is %s, its last sizes should be %s"):format(T.shape_text(x), T.shape_text(sizes)))
    end
  end
  return layer_norm(x, weight, bias, #sizes, check_eps("layer_norm", eps))
end

local group_norm = func {
  name = "group_norm", is_exact = is_exact,
  forward = function(ctx, x, groups, weight, bias, eps)
    x = dense(x, "group_norm: input")
    weight, bias = dense(weight, "group_norm: weight"), dense(bias, "group_norm: bias")
    local y, mean, invstd = out(), out(), out()
    check(C.atomo_group_norm(x.h, groups, weight.h, bias.h, eps, mean, invstd, y))
    ctx:save(x, weight, wrap(mean[0]), wrap(invstd[0]))
    return wrap(y[0])
  end,
  backward = function(ctx, gy)
    local x, weight, mean, invstd = ctx:saved()
    local ox, og, own_g = nil, S.gradient_slot(ctx, 3)
    local ob, own_b = S.gradient_slot(ctx, 4)
    if ctx:needs(1) then ox = out() end
    check(C.atomo_group_norm_backward(x.h, ctx.inputs[2], dense(gy, "group_norm: gy").h, weight.h, mean.h,
      invstd.h, ox, og, ob))
    return ox and wrap(ox[0]), nil, S.taken(og, own_g), S.taken(ob, own_b)
  end,
}

--- Group normalisation of x [N, ..., C]: each image is normalised over the positions and channels of each of num_groups
--- groups, then multiplied by weight [C] (default 1), plus bias [C] (default 0). Default eps: 1e-5.
---@param x atomo.Tensor [N, ..., C]
---@param num_groups integer a divisor of C
---@param weight atomo.Tensor? [C]
---@param bias atomo.Tensor? [C]
---@param eps number?
---@return atomo.Tensor
---@usage F.group_norm(x, 3):dim() --> 4
function F.group_norm(x, num_groups, weight, bias, eps)
  num_groups = number.expect_whole(num_groups, "group_norm: num_groups", 1, 2 ^ 31 - 1)
  T.expect(x, "group_norm: input", "f32")
  if x:dim() > 0 then weight, bias = S.affine(weight, bias, x:size(-1)) end
  return group_norm(x, num_groups, weight, bias, check_eps("group_norm", eps))
end

return F
