--- An optimizer's state by parameter name, for checkpoints. It can be loaded with groups and parameters in another
-- order. {kind=, steps=, lr=, parameters = names, ["velocity/NAME"] = tensor}, and for some parameters: ["taken/NAME"],
-- steps taken if fewer than the optimizer's; ["lr/NAME"], ["ratio/NAME"], if the group's rate was set after its
-- creation; ["set/NAME"], a rate that was set after the last step; ["momentum/NAME"] and so on, an option that was set
-- after the first step.
local T = require "atomo.tensor"
local slice = require "atomo.optim.slice"
local state = require "atomo.optim.state"
local updates = require "atomo.optim.update"
local raise = require("atomo.ffi").raise

local M = {}

--- Calls fn(group, number of the group, index of the parameter in it, parameter's name) for all parameters.
local function each(optimizer, names, fn)
  local k = 0
  for g, group in ipairs(optimizer.groups) do
    for i in ipairs(group.params) do
      k = k + 1
      fn(group, g, i, names and names[k] or ("parameter %d"):format(k))
    end
  end
end

--- Adds the parameters' views of all blocks, by name; only on rank 0 if the optimizer is sharded, whose blocks are
--- gathered there.
local function add_blocks(optimizer, names, named)
  local name_of = {}
  each(optimizer, names, function(group, _, i, name)
    name_of[group] = name_of[group] or {}
    name_of[group][i] = name
  end)
  state.each_block(optimizer, function(group, _, key, block)
    if not block then return end
    for i, p in ipairs(group.params) do
      named[key .. "/" .. name_of[group][i]] = slice(block, group.offset[i], p:numel())
    end
    if optimizer.shards then block:free() end -- the views keep its memory
  end, 0)
end

--- Returns the state of an optimizer in the form above; if it is sharded, rank 0 returns it, the others what is common
--- to all. [collective if sharded]
---@param optimizer atomo.Optimizer
---@param names string[]?   names of optimizer.params; nil: numbers are used as names
---@return table
function M.state(optimizer, names)
  local list, named = {}, {kind = optimizer.kind, steps = optimizer.steps, lr = optimizer.lr}
  add_blocks(optimizer, names, named)
  each(optimizer, names, function(group, _, i, name)
    list[#list + 1] = name
    if group.taken[i] ~= optimizer.steps then named["taken/" .. name] = group.taken[i] end
    local set = group:is_set()
    if set or group.ratio ~= group.first_ratio then
      named["lr/" .. name], named["ratio/" .. name] = group.values.lr, group.ratio or nil
      named["set/" .. name] = set and group.lr or nil
    end
    for option, value in pairs(group:changed()) do named[option .. "/" .. name] = value end
  end)
  named.parameters = table.concat(list, "\n")
  return named
end

local function lines(text)
  local set = {}
  for line in text:gmatch "[^\n]+" do set[line] = true end
  return set
end

--- Returns the names in set a that are not in b, joined by commas; nil if there are none.
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

--- Copies the saved state `key` of parameter i into s[key], this rank's range of the group's block.
local function fill(s, named, group, key, i, name, where)
  local t = named[key:match "%a+$" .. "/" .. name]
  if not t then return end
  local n = group.params[i]:numel()
  if not T.is_tensor(t) or t:numel() ~= n then
    raise(("%s: %s of %s has %s elements, the parameter %d"):format(where, key:match "%a+$", name,
      T.is_tensor(t) and t:numel() or "no", n))
  end
  s[key] = s[key] or T.zeros(group.to - group.from)
  local first, count = group:part(i, group.from, group.to)
  if count == 0 then return end
  slice(s[key], group.offset[i] + first - group.from, count):copy_(t:view(n):narrow(1, first + 1, count))
end

--- Returns the names of a group's options, with "ratio".
local function keys_of(group)
  local list = {unpack(group.names)}
  list[#list + 1] = "ratio"
  return list
end

--- Restores a result of M.state. Raises if an entry does not fit, and then changes nothing. where: first words of error
--- texts.
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
    for _, key in ipairs(keys_of(group)) do
      local own, mine = named[key .. "/" .. name], g .. "." .. key
      if i > 1 and own ~= s[mine] then
        raise(("%s: %s has another saved %s than the others in its group"):format(where, name,
          key == "ratio" and "lr" or key))
      end
      s[mine] = own
    end
  end)
  for g, list in ipairs(taken) do s[g .. ".taken"] = T.tensor(list, "i32") end
  state.load(optimizer, s, true)
  each(optimizer, names, function(group, _, _, name) group.lr = named["set/" .. name] or group.lr end)
end

return M
