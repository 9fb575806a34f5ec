--- NAME: a compressor by an orthonormal basis of your own. Its coefficients are the lambda of Algorithm 1.
--   atomo-lua NAME.lua    proves that it is unbiased, and prints its bytes and variance
-- To train with it: --load NAME.lua --compress NAME:ratio=32
local atomo = require "atomo"

-- This basis: sums and differences of neighbouring elements, divided by sqrt(2). Elements that have no neighbour are
-- kept as they are.
local function pairs_of(t) -- the transform is its own inverse
  local n = t:numel()
  local even = n - n % 2
  local flat = t:contiguous():view(n)
  local two = flat:narrow(1, 1, even):view(even / 2, 2)
  local a, b = two:narrow(2, 1, 1), two:narrow(2, 2, 1)
  local mixed = (atomo.cat({a + b, a - b}, 2) * math.sqrt(0.5)):view(even)
  return even == n and mixed or atomo.cat {mixed, flat:narrow(1, n, 1)}
end

atomo.basis("NAME", {
  summary = "sums and differences of neighbours",
  --- Returns the coefficients of g, as many as g has elements.
  analyze = function(g) return pairs_of(g) end,
  --- Returns the tensor of that shape that has the coefficients c.
  synthesize = function(c, shape) return pairs_of(c):view(shape) end,
})

-- The proof, if this file is the script and not one of --load. The spectrum of your gradients decides what a basis is
-- worth: compare_compressors.lua --load NAME.lua shows it beside the others.
if arg and arg[0] and arg[0]:find("NAME%.lua$") then
  local report = atomo.verify("NAME:ratio=8", {shape = {32, 9}, draws = 1000})
  print(report)
  local c, g = atomo.compressor "NAME:ratio=8", atomo.randn(64, 64)
  local message = c:encode(g)
  print(("%d bytes for %d, relative variance %.2f"):format(message.nbytes, 4 * g:numel(),
    c:stats().variance / g:square():sum():item()))
  if not report.pass then os.exit(1) end
end
