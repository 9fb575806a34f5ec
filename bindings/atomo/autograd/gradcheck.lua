--- atomo.gradcheck: compares an operator's backward with finite differences.
local T = require "atomo.tensor"
local expect_function = require "atomo.core.callable"
local length = require "atomo.core.list"
local autograd = require "atomo.autograd"
local O = require "atomo.tensor.check_options"
local f = require "atomo.ffi"
local C = f.C

local M = {}

--- Returns weights from 0.5 to 1.5 in the shape of y, the same in every run (no random stream is used).
local function weights_like(y)
  local w = T.empty(y:shape())
  local p = w:data()
  for k = 0, w.h.numel - 1 do p[k] = 0.5 + (k * 617 + 389) % 1009 / 1009 end
  return w
end

--- Returns the scalar whose derivatives are compared, sum(y * weight) over all results in double, and the results.
local function projection(fn, inputs, weights)
  local results = {fn(unpack(inputs))}
  local total = 0
  for i, y in ipairs(results) do
    weights[i] = weights[i] or weights_like(y)
    total = total + y:dot_value(weights[i])
  end
  return total, results
end

--- Returns the inputs' gradients by backward.
local function analytic_of(fn, inputs, weights)
  local _, results = projection(fn, inputs, weights)
  for i, y in ipairs(results) do
    if y.requires_grad then y:backward(weights[i], {retain_graph = i < #results}) end
  end
  local gradients = {}
  for i, t in ipairs(inputs) do gradients[i] = t.grad and t.grad:contiguous() end
  return gradients
end

--- Returns the derivative by one element, a central difference of 4th order. at(step): the projection with the element
--- moved by `step` steps, and the distance moved.
local function numeric_of(at)
  local f1, d1 = at(1)
  local f2, d2 = at(-1)
  local f3, d3 = at(2)
  local f4, d4 = at(-2)
  local near, far = (f1 - f2) / (d1 - d2), (f3 - f4) / (d3 - d4)
  return (4 * near - far) / 3
end

--- Returns the largest error of input t's gradient, relative to its largest derivative. Elements are restored.
local function worst_of(t, gradient, eps, project)
  local p, scale, worst = t:data(), 1e-6, 0
  local got = gradient and gradient:data()
  for k = 0, t.h.numel - 1 do
    local x = p[k]
    local h = eps * math.max(1, math.abs(x))
    local ok, numeric = pcall(numeric_of, function(step)
      p[k] = x + step * h
      C.atomo_tensor_touch(t.h)
      local exact = p[k] - x -- the distance moved after rounding to f32
      return project(), exact
    end)
    p[k] = x
    C.atomo_tensor_touch(t.h)
    if not ok then error(numeric, 0) end
    local a = got and got[k] or 0
    scale = math.max(scale, math.abs(numeric), math.abs(a))
    local difference = math.abs(numeric - a)
    if difference ~= difference then difference = math.huge end
    worst = math.max(worst, difference)
  end
  return worst / scale
end

local function compare(fn, inputs, eps)
  local weights, worst = {}, 0
  local analytic = analytic_of(fn, inputs, weights)
  autograd.no_grad(function()
    for i, t in ipairs(inputs) do
      if t.requires_grad then
        worst = math.max(worst, worst_of(t, analytic[i], eps, function() return (projection(fn, inputs, weights)) end))
      end
    end
  end)
  return worst
end

--- Compares backward with finite differences (4th order, central) at every element of every input.
-- Operators compute in f32, so the step is wide (eps, relative to the element) and the error is relative to the input's
-- largest derivative. Choose inputs further than 2 eps from points without a derivative. The inputs' values, .grad and
-- requires_grad are restored.
---@param fn function   of the inputs; may return several tensors
---@param inputs atomo.Tensor[]
---@param opts {eps: number?, tolerance: number?}?
---@return boolean ok, number worst relative error
---@usage atomo.gradcheck(function(x) return x:square():sum() end, {atomo.param {1, 2}}) --> true
function M.gradcheck(fn, inputs, opts)
  opts = opts or {}
  expect_function("gradcheck", fn)
  O.check("gradcheck", opts, {eps = O.number(0), tolerance = O.number(0)})
  local before = {}
  length(inputs, "gradcheck: inputs")
  for i, t in ipairs(inputs) do
    T.expect(t, ("gradcheck: input %d"):format(i))
    if t.node then f.raise(("gradcheck: input %d is the result of an operator; use t:detach()"):format(i)) end
    before[i] = {t.requires_grad, t.grad}
  end
  for _, t in ipairs(inputs) do
    if t:dtype() == "f32" then t.requires_grad, t.grad = true, nil end
  end
  local ok, worst = pcall(compare, fn, inputs, opts.eps or 2e-2)
  for i, t in ipairs(inputs) do t.requires_grad, t.grad = before[i][1], before[i][2] end
  if not ok then error(worst, 0) end
  return worst <= (opts.tolerance or 2e-3), worst
end

return M
