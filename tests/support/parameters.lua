-- An optimizer's parameters as one flat tensor, a copy.
local atomo = require "atomo"

return function(optimizer)
  local parts = {}
  for i, p in ipairs(optimizer.params) do parts[i] = p:detach():contiguous():view(-1) end
  return atomo.cat(parts, 1)
end
