--- Gradient clipping, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_. Norms are summed in double in a fixed
-- order, so the result is bit-identical on all ranks. atomo.train clips after the exchange: clip_norm=, clip_value=.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local length = require "atomo.core.list"
local gradient = require "atomo.autograd.gradient"
local raise = f.raise

local M = {}

local function positive(who, name, v)
  if type(v) ~= "number" or v ~= v or v <= 0 then
    raise(("%s: %s is %s, expected a number above 0"):format(who, name, brief(v)))
  end
  return v
end

local function gradients(who, params)
  local list, seen = {}, {}
  if T.is_tensor(params) then params = {params} end
  if type(params) ~= "table" then raise(("%s: params is a %s, expected a list"):format(who, type(params))) end
  length(params, who .. ": params")
  for i, p in ipairs(params) do
    T.expect(p, ("%s: parameter %d"):format(who, i))
    if seen[p] then raise(("%s: parameter %d is listed twice"):format(who, i)) end
    seen[p] = true
    list[#list + 1] = gradient.of(p, who, ("parameter %d %s"):format(i, T.shape_text(p)))
  end
  return list
end

--- Returns the p-norm of all gradients if the sum of p-th powers overflows or underflows a double: all norms are
--- divided by the largest first.
local function scaled_norm(params, p)
  local largest, total = M.grad_norm(params, math.huge), 0
  if largest == 0 or largest == math.huge then return largest end
  for _, g in ipairs(gradients("grad_norm", params)) do total = total + (g:norm_value(p) / largest) ^ p end
  return largest * total ^ (1 / p)
end

--- Returns the norm of all gradients as one vector. norm_type: p > 0, default 2; math.huge: the largest magnitude.
---@param params atomo.Tensor[]
---@param norm_type number?
---@return number
---@usage atomo.optim.grad_norm(m:parameters()) > 0 --> true
function M.grad_norm(params, norm_type)
  local p, total = positive("grad_norm", "norm_type", norm_type or 2), 0
  for _, g in ipairs(gradients("grad_norm", params)) do
    local n = g:norm_value(p)
    if p == math.huge then total = (n > total or n ~= n) and n or total else total = total + n ^ p end
  end
  if p == math.huge then return total end
  if total == math.huge or total < 1e-290 then return scaled_norm(params, p) end
  return total ^ (1 / p)
end

--- Scales the gradients so that the norm of all of them as one vector is at most max_norm; returns the norm before. If
--- it is NaN, all gradients become NaN.
---@param params atomo.Tensor[]
---@param max_norm number
---@param norm_type number?
---@return number
---@usage atomo.optim.clip_grad_norm(m:parameters(), 1)
function M.clip_grad_norm(params, max_norm, norm_type)
  positive("clip_grad_norm", "max_norm", max_norm)
  local total = M.grad_norm(params, norm_type)
  local factor = max_norm / (total + 1e-6)
  if factor < 1 or factor ~= factor then
    local scaled = {} -- a tensor that is .grad of several parameters is scaled once
    for _, g in ipairs(gradients("clip_grad_norm", params)) do
      if not scaled[g] then g:mul_(factor) end
      scaled[g] = true
    end
  end
  return total
end

--- Clamps every element of the gradients to [-value, value].
---@param params atomo.Tensor[]
---@param value number above 0
---@usage atomo.optim.clip_grad_value(m:parameters(), 0.5)
function M.clip_grad_value(params, value)
  positive("clip_grad_value", "value", value)
  for _, g in ipairs(gradients("clip_grad_value", params)) do g:clamp_(-value, value) end
end

return M
