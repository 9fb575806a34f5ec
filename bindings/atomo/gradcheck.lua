--- atomo.gradcheck: an operator's backward against finite differences.
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local C = require("atomo.ffi").C

local M = {}

--- sum(y * r) over the results, in double: the scalar whose derivative is compared.
local function projection(fn, inputs, weights)
  local results = {fn(unpack(inputs))}
  local total = 0
  for i, y in ipairs(results) do
    weights[i] = weights[i] or T.rand(y:shape()):add_(0.5)
    total = total + y:dot_value(weights[i])
  end
  return total, results
end

--- Compares backward with finite differences (4th order, central) at every element of every input.
-- The operators compute in f32, so the step is wide (eps, relative to the element) and the error is relative to the
-- input's largest derivative. Choose inputs away from kinks by more than 2 eps.
---@param fn function   of the inputs; may return several tensors
---@param inputs atomo.Tensor[]
---@param opts {eps: number?, tolerance: number?}?
---@return boolean ok, number worst relative error
function M.gradcheck(fn, inputs, opts)
  opts = opts or {}
  local eps, tolerance = opts.eps or 2e-2, opts.tolerance or 2e-3
  local weights, analytic = {}, {}
  for i, t in ipairs(inputs) do
    T.expect(t, ("gradcheck: input %d"):format(i))
    if t:dtype() == "f32" then autograd.param(t).grad = nil end
  end
  local _, results = projection(fn, inputs, weights)
  for i, y in ipairs(results) do
    if y.requires_grad then y:backward(weights[i]:clone(), {retain_graph = i < #results}) end
  end
  for i, t in ipairs(inputs) do analytic[i] = t.grad and t.grad:clone() end
  local worst = 0
  autograd.no_grad(function()
    for i, t in ipairs(inputs) do
      if t.requires_grad then
        local p, scale, worst_here = t:data(), 1e-6, 0
        local got = analytic[i] and analytic[i]:contiguous():data()
        for k = 0, t.h.numel - 1 do
          local x = p[k]
          local h = eps * math.max(1, math.abs(x))
          local function at(step)
            p[k] = x + step * h
            local exact = p[k] - x -- what f32 really moved by
            C.atomo_tensor_touch(t.h)
            return (projection(fn, inputs, weights)), exact
          end
          local f1, d1 = at(1)
          local f2, d2 = at(-1)
          local f3, d3 = at(2)
          local f4, d4 = at(-2)
          p[k] = x
          local near, far = (f1 - f2) / (d1 - d2), (f3 - f4) / (d3 - d4)
          local numeric = (4 * near - far) / 3
          local a = got and got[k] or 0
          scale = math.max(scale, math.abs(numeric), math.abs(a))
          local difference = math.abs(numeric - a)
          if difference ~= difference then difference = math.huge end
          worst_here = math.max(worst_here, difference)
        end
        worst = math.max(worst, worst_here / scale)
      end
    end
  end)
  return worst <= tolerance, worst
end

return M
