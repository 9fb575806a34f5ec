--- Copies a list of values to a list of targets as if all at once: loading a state whose tensors are those of the
-- object itself, in another order, gives each target the value that it was to get.

---@param targets atomo.Tensor[]
---@param values atomo.Tensor[]  of the targets' shapes; may share memory with targets
return function(targets, values)
  local changes, given = {}, {}
  for _, t in ipairs(targets) do changes[tostring(t.h.storage)] = true end
  for i, value in ipairs(values) do
    given[i] = value ~= targets[i] and changes[tostring(value.h.storage)] and value:clone() or value
  end
  for i, t in ipairs(targets) do t:copy_(given[i]:detach()) end -- nothing is recorded of a parameter's value
end
