--- Example of a user-defined decomposition with a sampled rest: the largest `rank` singular directions of the gradient
-- (as a matrix out x rest) are always sent, in 8 bits; the difference to the gradient, including their rounding, is
-- sampled by entries. Unbiased for any head: E[head + sampled rest] = head + (g - head).
local atomo = require "atomo"

atomo.decomposition("head_tail", {
  summary = "top singular directions sent for sure, the rest sampled by entries; in Lua",
  options = {rank = 1},
  bits = 8,
  rest = true,
  decompose = function(g, options)
    local u, s, vt = atomo.svd(g:view(g:size(1), -1))
    local r = math.min(options.rank, s:numel())
    return s:narrow(1, 1, r), {u:t():narrow(1, 1, r), vt:narrow(1, 1, r)}
  end,
  reconstruct = function(lambda, factors, shape)
    return (factors[1]:t() * lambda):matmul(factors[2]):view(shape)
  end,
})
