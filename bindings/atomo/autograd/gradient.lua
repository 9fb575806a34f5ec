--- .grad of a parameter: what it may hold, and whether it is known to be zero. What .grad says is what backward adds to
-- and what the optimizer uses: nothing else keeps a gradient. "Zero" is a fact about the storage (its version when it
-- was zeroed), which any later change ends, through whichever tensor it is made (stages 3 and 9).
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

--- The .grad of parameter p, or nil; raises where it is no gradient of p.
---@param p atomo.Tensor
---@param who string  the function that asks
---@param name string?  of the parameter
function M.of(p, who, name)
  local g = p.grad
  if g == nil then return nil end
  if type(g) == "table" and (getmetatable(g) ~= T.Tensor or fits(g, p)) and g.h then return g end -- a freed one raises
  raise(("%s: .grad of %s is %s, expected f32 %s, or nil"):format(who, name or "the parameter " .. T.shape_text(p),
    T.is_tensor(g) and ("%s %s"):format(g:dtype(), T.shape_text(g)) or "a " .. type(g), T.shape_text(p)))
end

--- Is g known to be all zeros?
function M.is_zero(g) return C.atomo_tensor_is_zero(g.h) == 1 end

--- Makes g, contiguous, all zeros, unless it is known to be.
local function zero(g)
  if C.atomo_tensor_is_zero(g.h) == 1 then return end
  C.atomo_tensor_touch(g.h)
  check(C.atomo_fill(g.h, 0))
  C.atomo_tensor_mark_zero(g.h)
end

local function zeros_of(p) return T.empty(p:shape()) end

--- Gives p a gradient of zeros where it has none; returns its gradient.
function M.ensure(p)
  if p.grad == nil then
    p.grad = T.outside_scope(zeros_of, p)
    zero(p.grad)
  end
  return p.grad
end

--- p's gradient, contiguous; zeros where there is none.
function M.dense(p)
  local g = M.ensure(p)
  if g:is_contiguous() then return g end
  p.grad = T.outside_scope(g.contiguous, g:detach())
  return p.grad
end

--- Makes p's gradient all zeros; nil stays nil.
function M.zero(p, who)
  if M.of(p, who) then zero(M.dense(p)) end
end

return M
