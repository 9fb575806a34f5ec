--- Matrix products.
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local Tensor = T.Tensor
local product, flipped = K.product, K.flipped

local matmul = func {
  name = "matmul",
  forward = function(ctx, a, b)
    ctx:save(ctx:needs(2) and a or nil, ctx:needs(1) and b or nil)
    return product(a, b, ctx.product_precision)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local precision = ctx.product_precision
    return ctx:needs(1) and product(g, flipped(b), precision) or nil,
      ctx:needs(2) and product(flipped(a), g, precision) or nil
  end,
}

--- Matrix product [m,k] x [k,n] -> [m,n]. A vector is a row on the left, a column on the right. Equal leading
--- dimensions are a batch of products.
---@param u atomo.Tensor
---@return atomo.Tensor
---@usage t:matmul(t):get(1, 1) --> 7
function Tensor:matmul(u)
  T.expect(u, "matmul: operand")
  local a, b = self, u
  if a:dim() == 1 and b:dim() == 1 then return a:dot(b) end
  local row, column = a:dim() == 1, b:dim() == 1
  if row then a = a:reshape(1, -1) end
  if column then b = b:reshape(-1, 1) end
  local y = matmul(a, b)
  if row or column then return y:reshape(-1) end
  return y
end
