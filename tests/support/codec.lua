--- Helpers for specs of compressors.
local assert = require "luassert"
local atomo = require "atomo"
local verify = require "atomo.tools.verify"

local M = {}

--- Makes a tensor like a gradient: normal entries times factors that fall from 1 to exp(-rate), in scattered positions.
function M.decaying(rate, ...)
  local g = atomo.randn(...)
  local p, n = g:data(), g:numel()
  for i = 0, n - 1 do p[i] = p[i] * math.exp(-rate * ((i * 7919) % n) / n) end
  return g
end

--- ||t||^2
function M.square(t) return t:norm_value(2) ^ 2 end

--- Asserts that fn(...) raises an error that contains `text`.
function M.fails(text, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, ("no error, expected %q"):format(text))
  assert.truthy(tostring(message):find(text, 1, true), ("expected %q in: %s"):format(text, tostring(message)))
end

--- Asserts by `count` draws that c's messages of g have mean g and the stated variance (false-alarm rate 1e-6 per
--- check).
function M.unbiased(c, g, count)
  local drawn = verify.draw(verify.sampler(c, g), g, count, nil, function() return c:stats().variance end)
  local u, v = verify.unbiased(drawn), verify.variance(drawn, drawn.stated)
  assert.is_true(u.pass, ("worst %.2f standard errors, bound %.2f"):format(u.figure, u.bound))
  assert.is_true(v.pass, ("measured %g, closed form %g, %.1f standard errors"):format(v.measured, v.closed_form,
    v.figure))
  assert.is_true(c.unbiased)
end

--- Asserts that decode_add adds, and is linear in scale.
function M.linear(c, g)
  local m = c:encode(g, {step = 9})
  local ghat, acc = c:decode(m:bytes()), atomo.ones(g:shape())
  c:decode_add(m, -0.5, acc)
  local want = atomo.ones(g:shape()) - ghat * 0.5
  assert.is_true((acc - want):norm_value(math.huge) <= 1e-5 * (1 + ghat:norm_value(math.huge)))
end

--- Asserts that a message of g is refused if it is truncated anywhere, has a further byte, or any bit is flipped.
function M.refuses_damage(c, g)
  local bytes, acc = c:encode(g, {step = 3}):bytes(), atomo.zeros(g:shape())
  for n = 0, #bytes - 1 do assert.is_false((pcall(c.decode_add, c, bytes:sub(1, n), 1, acc)), n) end
  M.fails("follow", c.decode_add, c, bytes .. "x", 1, acc)
  for i = 1, #bytes do
    for b = 0, 7 do
      local bad = bytes:sub(1, i - 1) .. string.char(bit.bxor(bytes:byte(i), 2 ^ b)) .. bytes:sub(i + 1)
      assert.is_false((pcall(c.decode_add, c, bad, 1, acc)), ("byte %d, bit %d"):format(i, b))
    end
  end
end

local BATCHES = 20

--- Returns ||bias||^2 / ||g||^2 of the mean of 20 draws times `draws`, and the same in standard errors. With 20 means
-- d_b of errors, the sum of d_a . d_b over pairs has the expectation of ||bias||^2 times their number, and its spread
-- is that of the pairs. spoil: a factor of every decoded gradient, to see that a bias is found.
function M.bias(c, g, draws, spoil)
  local d, square = {}, M.square(g)
  for b = 1, BATCHES do
    d[b] = g:clone():mul_(-draws)
    for i = 1, draws do
      local ghat = c:decode(c:encode(g, {step = b * draws + i}))
      d[b]:add_(ghat:mul_(spoil or 1))
      ghat:free()
    end
    d[b]:mul_(1 / draws)
  end
  local sum, squares, pairs_ = 0, 0, BATCHES * (BATCHES - 1) / 2
  for a = 1, BATCHES do
    for b = 1, a - 1 do
      local x = d[a]:dot(d[b]):item() / square
      sum, squares = sum + x, squares + x * x
    end
  end
  return sum / pairs_, sum / math.sqrt(squares)
end

return M
