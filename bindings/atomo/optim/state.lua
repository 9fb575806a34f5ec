--- An optimizer's state for checkpoints by number of its groups, and its loading: Optimizer:state_dict.
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local assign = require "atomo.tensor.assign"
local number = require "atomo.core.number"
local options = require "atomo.optim.options"
local steps = require "atomo.optim.update"
local raise = require("atomo.ffi").raise

local M = {}

--- Returns the steps taken by a group's parameters as an i32 tensor; nil if all have taken steps_of_all.
local function taken_of(group, steps_of_all)
  local differ = false
  for _, t in ipairs(group.taken) do differ = differ or t ~= steps_of_all end
  return differ and T.tensor(group.taken, "i32") or nil
end

--- Returns the shapes of a group's parameters as an i32 tensor: the number of dimensions and the sizes of each.
local function shapes_of(group)
  local list = {}
  for _, p in ipairs(group.params) do
    list[#list + 1] = p:dim()
    for d = 1, p:dim() do list[#list + 1] = p:size(d) end
  end
  return T.tensor(list, "i32")
end

--- Returns a text such as "[64,3,3,3] [64]" of a result of shapes_of; "no shapes" if it is none.
local function shapes_text(t)
  if not T.is_tensor(t) or t:dtype() ~= "i32" or t:dim() ~= 1 then return "no shapes" end
  local texts, at = {}, 1
  while at <= t:numel() do
    local sizes, dims = {}, t:get(at)
    if dims < 0 or at + dims > t:numel() then return "no shapes" end
    for d = 1, dims do sizes[d] = t:get(at + d) end
    texts[#texts + 1], at = T.shape_text(sizes), at + dims + 1
  end
  return table.concat(texts, " ")
end

--- Returns the state that all ranks have in common if the optimizer is sharded: all but the blocks. [local]
function M.common(self)
  local s = {steps = self.steps, lr = self.lr}
  for i, group in ipairs(self.groups) do
    s[i .. ".taken"], s[i .. ".shapes"] = taken_of(group, self.steps), shapes_of(group)
    local lr, ratio = group:rate_at(self.lr)
    if ratio ~= group.first_ratio then s[i .. ".lr"], s[i .. ".ratio"] = lr, ratio or nil end
    for name, value in pairs(group:changed()) do s[i .. "." .. name] = value end
  end
  return s
end

--- Calls fn(group, number of the group, name, block) for each block of an optimizer. If it is sharded, the blocks are
--- gathered on rank `root`, or on all; on the other ranks the block is nil. [collective if sharded]
---@param self atomo.Optimizer
---@param fn fun(group: atomo.Group, k: integer, name: string, block: atomo.Tensor?)
---@param root integer?
function M.each_block(self, fn, root)
  if self.shards then return self.shards:each_block(fn, root) end
  for k, group in ipairs(self.groups) do
    for name, block in pairs(group.state) do fn(group, k, name, block) end
  end
end

--- Returns an optimizer's state: Optimizer:state_dict. [collective if sharded]
function M.of(self)
  local s = M.common(self)
  M.each_block(self, function(_, k, name, block) s[k .. "." .. name] = block end)
  return s
end

--- Returns a text that says what is wrong with entry `key` of a state, nil if it fits. cut: see M.load.
local function problem_of(self, key, value, steps_of_all, cut)
  local i, name = key:match "^(%d+)%.([%w_]+)$"
  local group = self.groups[tonumber(i)]
  if not group then return ("'%s' belongs to no group of this optimizer"):format(key) end
  if name == "ratio" or group.values[name] ~= nil then
    options.check(self.kind, name == "ratio" and "lr" or name, value, key)
    return nil
  elseif name == "shapes" then
    local mine, saved = shapes_text(shapes_of(group)), shapes_text(value)
    return saved ~= mine and ("'%s' is %s, this group's parameters are %s"):format(key, saved, mine) or nil
  end
  local block = steps.state[self.kind][name]
  if not block and name ~= "taken" then
    return ("'%s' is no state of %s: it was saved by another optimizer"):format(key, self.kind)
  end
  local n = not block and #group.params or cut and group.to - group.from or group.n
  if not T.is_tensor(value) or value:numel() ~= n then
    return ("'%s' has %s elements, the %s %d"):format(key, T.is_tensor(value) and value:numel() or "no",
      block and "parameters" or "group", n)
  end
  if block and value:dtype() ~= "f32" then return ("'%s' is %s, expected f32"):format(key, value:dtype()) end
  for k = 1, block and 0 or n do
    if not number.whole(value:get(k), 0, steps_of_all) then
      return ("'%s' holds %s, expected whole numbers from 0 to %d"):format(key, tostring(value:get(k)), steps_of_all)
    end
  end
end

--- Raises if a parameter has taken steps according to s, but s lacks its state.
local function check_complete(self, s)
  for i, group in ipairs(self.groups) do
    local taken = s[i .. ".taken"]
    local most = taken and taken:max():item() or s.steps
    for name, wanted in pairs(steps.state[self.kind]) do
      if most > 0 and wanted(group) and s[i .. "." .. name] == nil then
        raise(("load_state_dict: '%d.%s' is missing: %s needs it after %d steps"):format(i, name, self.kind, most))
      end
    end
  end
end

--- Copies this rank's ranges of the blocks of all groups from s; a block that s lacks becomes zero. cut: see M.load.
local function load_blocks(self, s, cut)
  local targets, values, absent = {}, {}, {}
  for i, group in ipairs(self.groups) do
    for name in pairs(steps.state[self.kind]) do
      local value = s[i .. "." .. name]
      if value then
        group:state_of(name)
        if not (cut or group:is_whole()) then
          value = value:contiguous():view(group.n):narrow(1, group.from + 1, group.to - group.from)
        end
        targets[#targets + 1], values[#values + 1] = group.state[name], value
      elseif group.state[name] then
        absent[#absent + 1] = group.state[name]
      end
    end
  end
  assign(targets, values)
  for _, block in ipairs(absent) do block:zero_() end
end

local function load_group(group, i, s)
  local taken, own, saved = s[i .. ".taken"], s[i .. ".lr"], {}
  for _, name in ipairs(group.names) do
    if name ~= "lr" then saved[name] = s[i .. "." .. name] end
  end
  group:restore(saved)
  for k = 1, #group.params do group.taken[k] = taken and taken:get(k) or s.steps end
  group.ratio = group.first_ratio
  if own then group.ratio = s[i .. ".ratio"] or false end
  group.lr = own or group.ratio and s.lr * group.ratio or group.lr
  group.values.lr = group.lr
end

--- Restores a result of M.of: Optimizer:load_state_dict.
---@param self atomo.Optimizer
---@param s table
---@param cut boolean?  the blocks of s are this rank's ranges, not whole
function M.load(self, s, cut)
  if type(s) ~= "table" or type(s.steps) ~= "number" or type(s.lr) ~= "number" then
    raise "load_state_dict: expected the result of an optimizer's state_dict(): steps and lr are missing"
  end
  number.expect_whole(s.steps, "load_state_dict: steps", 0)
  options.check(self.kind, "lr", s.lr)
  for key, value in pairs(s) do
    local problem = key ~= "steps" and key ~= "lr" and problem_of(self, brief(key), value, s.steps, cut)
    if problem then raise("load_state_dict: " .. problem) end
  end
  check_complete(self, s)
  load_blocks(self, s, cut)
  for i, group in ipairs(self.groups) do load_group(group, i, s) end
  self.steps, self.lr = s.steps, s.lr
end

return M
