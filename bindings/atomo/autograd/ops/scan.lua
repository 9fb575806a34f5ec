--- cumsum, cumprod and prod.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local Tensor, wrap, out, dimension = T.Tensor, T.wrap, T.out, T.dimension

local function running_sum(t, d, reverse)
  local o = out()
  check(C.atomo_cumsum(t.h, d, reverse, o))
  return wrap(o[0])
end

local cumsum = func {
  name = "cumsum",
  forward = function(ctx, t, d) return running_sum(t, d, 0) end,
  backward = function(ctx, g) return running_sum(g, ctx.inputs[2], 1) end,
}

--- Returns the running sums along dim: element i is the sum of the first i. i32 and u8 give i32.
---@param dim integer
---@return atomo.Tensor  in this tensor's shape
---@usage t:cumsum(1):get(2, 1) --> 4
function Tensor:cumsum(dim)
  if T.self_handle(self).ndim == 0 then return self:view(1):cumsum(dim):view {} end
  return cumsum(self, dimension(self, dim, "cumsum"))
end

local cumprod = func {
  name = "cumprod",
  forward = function(ctx, t, d)
    local o = out()
    check(C.atomo_cumprod(t.h, d, o))
    ctx:save(t)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local o = out()
    check(C.atomo_cumprod_backward(ctx:saved():contiguous().h, ctx.inputs[2], g:contiguous().h, o))
    return wrap(o[0])
  end,
}

--- Returns the running products along dim: element i is the product of the first i. i32 and u8 give i32; raises if a
--- product does not fit.
---@param dim integer
---@return atomo.Tensor  in this tensor's shape
---@usage t:cumprod(1):get(2, 2) --> 8
function Tensor:cumprod(dim)
  if T.self_handle(self).ndim == 0 then return self:view(1):cumprod(dim):view {} end
  return cumprod(self, dimension(self, dim, "cumprod"))
end

local prod = func {
  name = "prod",
  forward = function(ctx, t, d, keepdim)
    local o = out()
    check(C.atomo_prod(T.self_handle(t), d, keepdim and 1 or 0, o))
    ctx:save(t)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local o = out()
    check(C.atomo_prod_backward(ctx:saved():contiguous().h, ctx.inputs[2], g:contiguous().h, o))
    return wrap(o[0])
  end,
}

--- Returns the product. i32 and u8 give i32; raises if it does not fit.
---@param dim integer? default: over all elements
---@param keepdim boolean? true: keep the dimension with size 1
---@return atomo.Tensor
---@usage t:prod():item() --> 24
function Tensor:prod(dim, keepdim)
  K.check_flag("prod", keepdim)
  return prod(self, dim and dimension(self, dim, "prod") or -1, keepdim)
end
