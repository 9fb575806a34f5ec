--- p-norms, of all elements or along a dimension.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local Tensor, dimension = T.Tensor, T.dimension
local unary, binary, scalar = K.unary, K.binary, K.scalar

local result = ffi.new "double[1]"

--- p-norm of all elements as a Lua number, accumulated in double; not recorded. p > 0, default 2, math.huge allowed.
---@param p number?
---@return number
---@usage atomo.tensor({3, 4}):norm_value() --> 5
function Tensor:norm_value(p)
  check(C.atomo_norm(T.self_handle(self), p == nil and 2 or number.expect(p, "norm_value: p"), result))
  return f.number(result)
end

--- Returns t / n for an n that may be outside f32's range: t is first scaled by a power of two, which is exact.
local function over(t, n)
  local _, e = math.frexp(n)
  local scale = n < math.huge and 2 ^ math.max(-126, math.min(126, -e)) or 1
  return scalar(C.ATOMO_DIV, scale == 1 and t or scalar(C.ATOMO_MUL, t, scale), n * scale)
end

--- The norm of all elements.
local norm_of_all = func {
  name = "norm",
  forward = function(ctx, t, p)
    ctx:save(t)
    ctx.value = t:norm_value(p)
    local y = T.empty {}
    y:data()[0] = ctx.value -- Inf beyond f32
    return y
  end,
  backward = function(ctx, g)
    local t, p, n = ctx:saved(), ctx.inputs[2] or 2, ctx.value
    local s = g:item()
    if n == 0 then return T.zeros_like(t) end
    if p == math.huge then
      local hit = n == n and scalar(C.ATOMO_EQ, unary(C.ATOMO_ABS, t), n) or binary(C.ATOMO_NE, t, t)
      return scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, hit, unary(C.ATOMO_SIGN, t)), s / hit:dot_value(hit))
    end
    local ratio = over(t, n)
    if p == 2 then return scalar(C.ATOMO_MUL, ratio, s) end
    local power = scalar(C.ATOMO_POW, unary(C.ATOMO_ABS, ratio), p - 1) -- Inf at 0 if p < 1: the gradient there is 0
    local slope = scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, power, unary(C.ATOMO_SIGN, t)), s)
    return binary(C.ATOMO_UNLESS, slope, scalar(C.ATOMO_EQ, t, 0))
  end,
}

-- ---- along a dimension -------------------------------------------------------------------------------------------

--- Returns t / n, broadcast, and 0 where n is 0.
local function ratio_to(t, n) return binary(C.ATOMO_UNLESS, binary(C.ATOMO_DIV, t, n), scalar(C.ATOMO_EQ, n, 0)) end

--- The norm along a dimension, which the result keeps with size 1. Magnitudes are scaled by the largest one, so that no
--- power overflows.
local norm_along = func {
  name = "norm",
  forward = function(ctx, t, dim, p)
    T.expect(t, "norm: tensor", "f32")
    local magnitude = unary(C.ATOMO_ABS, t)
    local y
    if t.h.shape[dim - 1] == 0 then
      y = magnitude:sum(dim, true)
    elseif p == math.huge then
      y = magnitude:max(dim, true)
    else
      local largest = magnitude:max(dim, true)
      local scale = binary(C.ATOMO_UNLESS, largest, scalar(C.ATOMO_EQ, largest, math.huge))
      scale = binary(C.ATOMO_MAXIMUM, scale, scalar(C.ATOMO_EQ, scale, 0)) -- 1 for 0 and Inf
      local sum = scalar(C.ATOMO_POW, binary(C.ATOMO_DIV, magnitude, scale), p):sum(dim, true)
      y = binary(C.ATOMO_MUL, scalar(C.ATOMO_POW, sum, 1 / p), scale)
    end
    ctx:save(t, y:detach())
    return y
  end,
  backward = function(ctx, g)
    local t, y = ctx:saved()
    local p = ctx.inputs[3]
    local direction = unary(C.ATOMO_SIGN, t)
    if p == math.huge then -- shared evenly by the elements of the largest magnitude
      local hit = binary(C.ATOMO_MAXIMUM, binary(C.ATOMO_EQ, unary(C.ATOMO_ABS, t), y), binary(C.ATOMO_NE, t, t))
      hit = binary(C.ATOMO_DIV, hit, hit:sum(ctx.inputs[2], true))
      return binary(C.ATOMO_MUL, binary(C.ATOMO_MUL, hit, direction), g)
    end
    if p == 1 then return binary(C.ATOMO_MUL, direction, g) end
    local slope
    if p < 1 then -- Inf at 0: the gradient there is 0
      slope = binary(C.ATOMO_UNLESS, scalar(C.ATOMO_POW, unary(C.ATOMO_ABS, t), p - 1), scalar(C.ATOMO_EQ, t, 0))
      slope = binary(C.ATOMO_MUL, binary(C.ATOMO_MUL, slope, direction), scalar(C.ATOMO_POW, y, 1 - p))
    else
      slope = ratio_to(t, y)
      if p ~= 2 then
        slope = binary(C.ATOMO_MUL, scalar(C.ATOMO_POW, unary(C.ATOMO_ABS, slope), p - 1), direction)
      end
    end
    return binary(C.ATOMO_MUL, slope, g)
  end,
}

--- p-norm of all elements, a scalar tensor, or along dim. Has a gradient, which is 0 where the norm is 0.
---@param p number? default 2; above 0; math.huge: the largest magnitude
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage atomo.tensor({{3, 4}, {0, 0}}):norm(2, 2):get(1) --> 5
function Tensor:norm(p, dim, keepdim)
  if p ~= nil then p = number.expect(p, "norm: p") end
  K.check_flag("norm", keepdim)
  if dim == nil then
    T.self_handle(self)
    local y = norm_of_all(self, p)
    return keepdim and y:view(K.ones(self.h.ndim)) or y
  end
  if p and (p <= 0 or p ~= p) then raise(("norm: p is %s, expected a number above 0"):format(brief(p))) end
  local d = dimension(self, dim, "norm") + 1
  local y = norm_along(self, d, p or 2)
  return keepdim and y or y:squeeze(d)
end
