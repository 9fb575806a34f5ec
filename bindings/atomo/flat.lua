--- Parameters in one flat block: their values, gradients and optimizer state are contiguous, so that the update is one
-- pass and the dense exchange one buffer. Each parameter becomes a view into the block (64-byte aligned).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local ALIGN = 16 -- floats

---@class atomo.Flat
---@field value atomo.Tensor  all parameters [n]
---@field grad atomo.Tensor   all gradients [n]
---@field params atomo.Tensor[]
---@field offset number[]     of each parameter in the block, in elements
local Flat = {}
Flat.__index = Flat

local dims8 = ffi.typeof "double[8]"

--- A view of block with t's shape at offset; returns the raw handle.
local function view_handle(block, t, offset)
  local stride, s = dims8(), 1
  for d = t.h.ndim - 1, 0, -1 do
    stride[d] = s
    s = s * t.h.shape[d]
  end
  local o = T.out()
  check(C.atomo_tensor_view(block.h, t.h.ndim, t.h.shape, stride, offset, o))
  return o[0]
end

--- Moves params (leaf tensors) into one block. A parameter can be in one block only.
---@param params atomo.Tensor[]
local function flatten(params)
  return T.outside_scope(function()
    local self = setmetatable({params = params, offset = {}}, Flat)
    local n, seen = 0, {}
    for i, p in ipairs(params) do
      if not (T.is_tensor(p) and p.requires_grad and not p.node) then
        raise(("parameter %d is no parameter: make it with atomo.param"):format(i))
      end
      if p.flat or seen[p] then raise(("parameter %d is listed twice, or belongs to another optimizer"):format(i)) end
      seen[p] = true
      self.offset[i] = n
      n = n + math.ceil(p:numel() / ALIGN) * ALIGN
    end
    self.n = n
    self.value, self.grad = T.zeros(n), T.zeros(n)
    for i, p in ipairs(params) do
      local h = view_handle(self.value, p, self.offset[i])
      check(C.atomo_copy(h, p.h))
      T.replace_handle(p, h)
      local grad = T.wrap(view_handle(self.grad, p, self.offset[i]))
      if p.grad then grad:copy_(p.grad) else p.grad_is_zero = true end
      p.grad = grad
      p.flat = self
    end
    return self
  end)
end

--- Sets all gradients to zero in one pass.
function Flat:zero_grad()
  self.grad:zero_()
  for _, p in ipairs(self.params) do p.grad_is_zero = true end
end

return flatten
