--- Example of a user-defined decomposition with a state: principal directions of earlier gradients. A gradient is a
-- matrix G, out x rest. info.state.gram holds the average of G G^T over earlier steps (each G is divided by its largest
-- entry, and earlier steps decay), and info.state.basis its eigenvectors U, computed again every `every` steps. G =
-- sum_i u_i (G^T u_i)^T holds for any orthonormal U, so sampling these atoms is unbiased however much the gradient has
-- changed.
local atomo = require "atomo"

atomo.decomposition("past_directions", {
  summary = "principal directions of earlier gradients, in Lua",
  options = {decay = 0.9, every = 10},
  bits = {8, 4},
  decompose = function(g, options, info)
    local size, state = math.max(g:norm_value(math.huge), 1e-30), info.state
    local matrix = g:view(g:size(1), -1) / size -- its squares stay within the range of f32
    local gram = matrix:matmul(matrix:t())
    if not state.basis or state.age >= options.every then
      local _, vectors = atomo.eigh(state.gram or gram) -- columns
      state.basis = vectors:t():contiguous()
      state.age = 0
    end
    state.gram = state.gram and state.gram * options.decay + gram * (1 - options.decay) or gram
    state.age = state.age + 1
    local rows = state.basis:matmul(matrix) -- row i: G^T u_i
    local lambda = (rows * rows):sum(2):sqrt():view(-1)
    return lambda * size, {state.basis, rows / lambda:view(-1, 1):clamp(1e-30, math.huge)}
  end,
  reconstruct = function(lambda, factors, shape)
    return (factors[1]:t() * lambda):matmul(factors[2]):view(shape)
  end,
})
