--- Registers a decomposition in Lua whose atoms are singular vectors of the gradient as a matrix of rows.
local atomo = require "atomo"

---@param name string
---@param more table?  fields that replace or add to those of the declaration, such as bits (default 8)
return function(name, more)
  local declaration = {
    bits = 8,
    decompose = function(g)
      local u, s, vt = atomo.svd(g:view(g:size(1), -1))
      return s, {u:t(), vt}
    end,
    reconstruct = function(lambda, factors, shape) return (factors[1]:t() * lambda):matmul(factors[2]):view(shape) end,
  }
  for key, value in pairs(more or {}) do declaration[key] = value end
  atomo.decomposition(name, declaration)
end
