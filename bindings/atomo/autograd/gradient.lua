--- The field .grad of a parameter: checks, and whether it is known to be zero (stages 3 and 9). It is the only place
-- where a gradient is kept: backward adds to it, the optimizer reads it. A storage is known to be zero if its version
-- is still the one at which it was zeroed; any change through any tensor over it raises the version.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, check, raise = f.C, f.check, f.raise

local M = {}

local function fits(g, p)
  if g.h.dtype ~= p.h.dtype or g.h.ndim ~= p.h.ndim then return false end
  for d = 0, p.h.ndim - 1 do
    if g.h.shape[d] ~= p.h.shape[d] then return false end
  end
  return true
end

--- Returns p.grad, or nil; raises if it is not an f32 tensor of p's shape.
---@param p atomo.Tensor
---@param who string  the calling function, for the error text
---@param name string?  the parameter's name, for the error text
function M.of(p, who, name)
  local g = p.grad
  if g == nil then return nil end
  if type(g) == "table" and (getmetatable(g) ~= T.Tensor or fits(g, p)) and g.h then return g end -- a freed one raises
  raise(("%s: .grad of %s is %s, expected f32 %s, or nil"):format(who, name or "the parameter " .. T.shape_text(p),
    T.is_tensor(g) and ("%s %s"):format(g:dtype(), T.shape_text(g)) or "a " .. type(g), T.shape_text(p)))
end

--- Is g known to be all zeros?
function M.is_zero(g) return C.atomo_tensor_is_zero(g.h) == 1 end

--- Sets g, which is contiguous, to zero, unless it is known to be.
local function zero(g)
  if C.atomo_tensor_is_zero(g.h) == 1 then return end
  C.atomo_tensor_touch(g.h)
  check(C.atomo_fill(g.h, 0))
  C.atomo_tensor_mark_zero(g.h)
end

--- Sets p.grad to g, which the caller made for it. Field g.leaf says whose gradient it is (exchange/check.lua).
function M.set(p, g)
  p.grad, g.leaf = g, p
end

local function zeros_of(p) return T.empty(p:shape()) end

--- Returns p.grad; if it is nil, a tensor of zeros is stored there first.
function M.ensure(p)
  if p.grad == nil then
    M.set(p, T.outside_scope(zeros_of, p))
    zero(p.grad)
  end
  return p.grad
end

--- Returns p.grad after making it contiguous, zeros if it was nil.
function M.dense(p)
  local g = M.ensure(p)
  if g:is_contiguous() then return g end
  M.set(p, T.outside_scope(g.contiguous, g:detach()))
  return p.grad
end

--- Sets p.grad to zero; nil stays nil. who: the calling function, for the error text.
function M.zero(p, who)
  if M.of(p, who) then zero(M.dense(p)) end
end

return M
