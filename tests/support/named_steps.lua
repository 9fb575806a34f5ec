--- Steps of an exchange with random gradients of named tensors, for specs whose set of tensors changes.
local atomo = require "atomo"
local matrix = require "support.exchange_matrix"

local M = {}

--- Returns an exchange of one of the matrix's topologies for the tensors named in `set`.
---@param o table        topology and what belongs to it (support.exchange_matrix)
---@param options table  other options of atomo.exchange
---@param set string[]
function M.opened(o, options, set)
  local _, ex = assert(matrix.exchange(o, options))
  ex:set_names(set)
  return ex
end

--- Returns push and step for tensors of these shapes, name -> shape. push(ex, number, set) pushes the gradients of step
--- `number` for the tensors named in `set`, the last one first, and returns them. step(ex, number, set) also finishes
--- the step, and returns the bytes of the averages. Gradients depend on the step, the name and the rank.
---@param shapes table<string, integer[]>
function M.of(shapes)
  local function push(ex, number, set)
    local grads = {}
    for k, name in ipairs(set) do
      atomo.manual_seed(1000 * number + 10 * name:byte() + atomo.mpi.world.rank)
      grads[k] = atomo.randn(shapes[name])
    end
    for k = #grads, 1, -1 do ex:push(k, grads[k]) end
    return grads
  end

  local function step(ex, number, set)
    local grads, parts = push(ex, number, set), {}
    ex:finish()
    for k, g in ipairs(grads) do parts[k] = g:bytes() end
    return table.concat(parts)
  end

  return push, step
end

return M
