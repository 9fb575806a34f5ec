--- What specs of compressors share.
local assert = require "luassert"
local atomo = require "atomo"
local verify = require "atomo.verify"

local M = {}

--- A gradient-like tensor: a few strong directions over noise. Its sizes fall by exp(-rate) from the largest, in
--- scattered places.
function M.decaying(rate, ...)
  local g = atomo.randn(...)
  local p, n = g:data(), g:numel()
  for i = 0, n - 1 do p[i] = p[i] * math.exp(-rate * ((i * 7919) % n) / n) end
  return g
end

--- ||t||^2
function M.square(t) return t:norm_value(2) ^ 2 end

--- fn(...) must raise an error that has `text` in it.
function M.fails(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, ("no error, expected %q"):format(text))
  assert.truthy(tostring(message):find(text, 1, true), ("expected %q in: %s"):format(text, tostring(message)))
end

--- `count` draws of c for g (false-alarm rate 1e-6 a check): the mean must be g and the variance what c states.
function M.unbiased(c, g, count)
  local drawn = verify.draw(verify.sampler(c, g), g, count)
  local u, v = verify.unbiased(drawn), verify.variance(drawn, c:stats().variance)
  assert.is_true(u.pass, ("worst %.2f standard errors, bound %.2f"):format(u.figure, u.bound))
  assert.is_true(v.pass, ("measured %g, closed form %g, %.1f standard errors"):format(v.measured, v.closed_form,
    v.figure))
  assert.is_true(c.unbiased)
end

return M
