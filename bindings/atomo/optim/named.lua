--- An optimizer's state by the names of its parameters, for checkpoints: the order of groups and parameters may be
-- another when it is loaded. {kind=, steps=, lr=, parameters = names, ["velocity/NAME"] = tensor, ["taken/NAME"] =
-- steps, where they are not the optimizer's, ["lr/NAME"], ["ratio/NAME"] = of a rate that was set later, ["set/NAME"] =
-- one that was set since the last step}.
local T = require "atomo.tensor"
local updates = require "atomo.optim.update"
local raise = require("atomo.ffi").raise

local M = {}

--- fn(group, its number, parameter's place in it, name)
local function each(optimizer, names, fn)
  local k = 0
  for g, group in ipairs(optimizer.groups) do
    for i in ipairs(group.params) do
      k = k + 1
      fn(group, g, i, names and names[k] or ("parameter %d"):format(k))
    end
  end
end

---@param optimizer atomo.Optimizer
---@param names string[]?   of optimizer.params; nil: their numbers
---@return table
function M.state(optimizer, names)
  local list, named = {}, {kind = optimizer.kind, steps = optimizer.steps, lr = optimizer.lr}
  each(optimizer, names, function(group, _, i, name)
    list[#list + 1] = name
    for key, block in pairs(group.state) do
      named[key .. "/" .. name] = block:narrow(1, group.offset[i] + 1, group.params[i]:numel())
    end
    if group.taken[i] ~= optimizer.steps then named["taken/" .. name] = group.taken[i] end
    local set = group:is_set()
    if set or group.ratio ~= group.first_ratio then
      named["lr/" .. name], named["ratio/" .. name] = group.values.lr, group.ratio or nil
      named["set/" .. name] = set and group.lr or nil
    end
  end)
  named.parameters = table.concat(list, "\n")
  return named
end

local function lines(text)
  local set = {}
  for line in text:gmatch "[^\n]+" do set[line] = true end
  return set
end

--- Names of a that b lacks.
local function lacking(a, b)
  local list = {}
  for name in pairs(a) do
    if not b[name] then list[#list + 1] = name end
  end
  table.sort(list)
  return #list > 0 and table.concat(list, ", ") or nil
end

local function check_made_for(optimizer, names, named, where)
  if type(named.kind) ~= "string" or type(named.parameters) ~= "string" then
    raise(where .. " does not hold the state of an optimizer")
  elseif named.kind ~= optimizer.kind then
    raise(("%s holds the state of %s, this run's optimizer is %s"):format(where, named.kind, optimizer.kind))
  end
  local mine, theirs = {}, lines(named.parameters)
  each(optimizer, names, function(_, _, _, name) mine[name] = true end)
  local missing, other = lacking(mine, theirs), lacking(theirs, mine)
  if not (missing or other) then return end
  raise(("%s holds the state of other parameters: %s%s%s"):format(where, missing and "it lacks " .. missing or "",
    missing and other and "; " or "", other and "this optimizer has no " .. other or ""))
end

--- One block of a group's state out of its parameters' tensors.
local function fill(s, named, group, key, i, name, where)
  local t = named[key:match "%a+$" .. "/" .. name]
  if not t then return end
  local n = group.params[i]:numel()
  if not T.is_tensor(t) or t:numel() ~= n then
    raise(("%s: %s of %s has %s elements, the parameter %d"):format(where, key:match "%a+$", name,
      T.is_tensor(t) and t:numel() or "no", n))
  end
  s[key] = s[key] or T.zeros(group.n)
  s[key]:narrow(1, group.offset[i] + 1, n):copy_(t:view(n))
end

--- Puts back what M.state gave; where: begins the words of errors. Nothing changes unless all of it fits.
---@param optimizer atomo.Optimizer
---@param names string[]?
---@param named table
---@param where string
function M.load(optimizer, names, named, where)
  check_made_for(optimizer, names, named, where)
  local s, taken = {steps = named.steps, lr = named.lr}, {}
  each(optimizer, names, function(group, g, i, name)
    for key in pairs(updates.state[optimizer.kind]) do fill(s, named, group, g .. "." .. key, i, name, where) end
    taken[g] = taken[g] or {}
    taken[g][i] = named["taken/" .. name] or named.steps
    for _, key in ipairs {"lr", "ratio"} do
      local own, mine = named[key .. "/" .. name], g .. "." .. key
      if i > 1 and own ~= s[mine] then
        raise(("%s: %s has another saved learning rate than the others in its group"):format(where, name))
      end
      s[mine] = own
    end
  end)
  for g, list in ipairs(taken) do s[g .. ".taken"] = T.tensor(list, "i32") end
  optimizer:load_state_dict(s)
  each(optimizer, names, function(group, _, _, name) group.lr = named["set/" .. name] or group.lr end)
end

return M
