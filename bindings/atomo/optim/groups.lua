--- Parameter groups: which parameters decay. Biases and the weights of norms (one dimension) usually should not.
local raise = require("atomo.ffi").raise

--- Two groups for any optimizer's params: matrices and convolutions with its weight_decay, the rest with none.
--   atomo.optim.adamw {params = atomo.optim.no_decay_groups(model), lr = 1e-3, weight_decay = 0.1}
---@param model atomo.Module
---@return table[]
---@usage #atomo.optim.no_decay_groups(m) --> 2
local function no_decay_groups(model)
  if type(model) ~= "table" or type(model.parameters) ~= "function" then
    raise(("no_decay_groups: got a %s, expected a module"):format(type(model)))
  end
  local decay, rest, groups = {}, {}, {}
  for _, p in ipairs(model:parameters()) do
    local list = p:dim() >= 2 and decay or rest
    list[#list + 1] = p
  end
  if #decay > 0 then groups[1] = {params = decay} end
  if #rest > 0 then groups[#groups + 1] = {params = rest, weight_decay = 0} end
  return groups
end

return {no_decay_groups = no_decay_groups}
