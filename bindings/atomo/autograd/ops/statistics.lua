--- Variance, standard deviation, logsumexp.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local C, raise = f.C, f.raise
local Tensor, dimension = T.Tensor, T.dimension

local options = {unbiased = O.flag, keepdim = O.flag}

--- Reads (dim, opts), (opts) or nothing; returns the dimension or nil, keepdim, and the divisor of the squares' sum.
local function read(t, who, dim, opts)
  if type(dim) == "table" and opts == nil then dim, opts = nil, dim end
  opts = opts == nil and {} or opts
  O.check(who, opts, options)
  T.expect(t, who .. ": tensor", "f32")
  if dim ~= nil then dim = dimension(t, dim, who) + 1 end
  local n = dim and t.h.shape[dim - 1] or t.h.numel
  local least = opts.unbiased == false and 1 or 2
  if n < least then
    raise(("%s: %d elements%s of tensor %s, expected at least %d%s"):format(who, n,
      dim and " along dimension " .. dim or "", T.shape_text(t), least,
      n == 1 and "; {unbiased = false} divides by n instead of n - 1" or ""))
  end
  return dim, opts.keepdim, n - least + 1
end

local function variance(t, dim, keepdim, divisor)
  local d = t - t:mean(dim, true)
  d = d - d:mean(dim, true) -- the first mean is rounded to f32: far from 0, that error would count
  return d:square():sum(dim, keepdim) / divisor
end

--- Returns the variance of all elements, or along dim.
---@param dim integer?
---@param opts {unbiased: boolean?, keepdim: boolean?}?  unbiased (default true) divides by n - 1, else by n
---@return atomo.Tensor
---@usage atomo.tensor({1, 3}):var(1):item() --> 2
function Tensor:var(dim, opts) return variance(self, read(self, "var", dim, opts)) end

--- The root of a variance; as in PyTorch, its gradient is 0 where the variance is 0.
local root = func {
  name = "std",
  forward = function(ctx, v)
    local y = K.unary(C.ATOMO_SQRT, v)
    ctx:save(y:detach())
    return y
  end,
  backward = function(ctx, g)
    local y = ctx:saved()
    local slope = K.scalar(C.ATOMO_MUL, K.binary(C.ATOMO_DIV, g, y), 0.5)
    return K.binary(C.ATOMO_UNLESS, slope, K.scalar(C.ATOMO_EQ, y, 0))
  end,
}

--- Returns the standard deviation of all elements, or along dim.
---@param dim integer?
---@param opts {unbiased: boolean?, keepdim: boolean?}?  as of var
---@return atomo.Tensor
---@usage atomo.tensor({1, 3}):std(1):item() > 1.4 --> true
function Tensor:std(dim, opts) return root(variance(self, read(self, "std", dim, opts))) end

--- log sum exp along a dimension, which the result keeps with size 1.
local log_sum = func {
  name = "logsumexp",
  forward = function(ctx, t, dim)
    local top = (t:max(dim, true))
    local infinite = top:isinf()
    local from = K.binary(C.ATOMO_UNLESS, top, infinite)
    local sum = K.unary(C.ATOMO_EXP, K.binary(C.ATOMO_SUB, t, from)):sum(dim, true)
    if ctx:needs(1) then -- the shares of the sum; of an infinite one, exp(t - top)
      local whole = K.binary(C.ATOMO_MAXIMUM, K.binary(C.ATOMO_UNLESS, sum, infinite), infinite)
      ctx:save(K.binary(C.ATOMO_DIV, K.unary(C.ATOMO_EXP, K.binary(C.ATOMO_SUB, t, top)), whole))
    end
    return K.binary(C.ATOMO_ADD, K.unary(C.ATOMO_LOG, sum), from)
  end,
  backward = function(ctx, g) return K.binary(C.ATOMO_MUL, ctx:saved(), g) end,
}

--- Returns log sum exp(t) of all elements, or along dim; large elements do not overflow. -Inf of no element.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage atomo.zeros(1):logsumexp():item() --> 0
function Tensor:logsumexp(dim, keepdim)
  K.check_flag("logsumexp", keepdim)
  T.expect(self, "logsumexp: tensor", "f32")
  if dim ~= nil then dim = dimension(self, dim, "logsumexp") + 1 end
  local n = dim and self.h.shape[dim - 1] or self.h.numel
  if n == 0 then return self:sum(dim, keepdim):log() end
  local y = log_sum(self, dim)
  if keepdim then return y end
  return dim and y:squeeze(dim) or y:view {}
end
