--- Optimizers: sgd, adam, adamw, lars, lamb. Options, groups, update formulas, clipping and weight averages are in the
-- other files of this folder.
-- Every constructor takes {params=, lr=, ...}; params is a list of parameters, or a list of groups
-- {params={...}, weight_decay=0, ...} whose options override the common ones. PyTorch's names, defaults and formulas.
--
-- A step uses the parameters' .grad (stage 9). It skips a parameter without a gradient or frozen (requires_grad =
-- false) and its state: no weight decay, no momentum, no step counted.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local length = require "atomo.core.list"
local assign = require "atomo.tensor.assign"
local check_options = require "atomo.tensor.check_options"
local check_apart = require "atomo.optim.apart"
local holders = require "atomo.nn.holders"
local new_group = require "atomo.optim.group"
local options = require "atomo.optim.options"
local steps = require "atomo.optim.update"
local number = require "atomo.core.number"
local suggest = require "atomo.core.suggest"
local raise = f.raise

local M = {}

---@class atomo.Optimizer
---@field lr number      learning rate of the next step; a group's rate is lr times its ratio
---@field groups atomo.Group[]
---@field steps integer  number of steps taken
---@field params atomo.Tensor[]  parameters of all groups, in order
local Optimizer = {}
Optimizer.__index = Optimizer

local fields = {"lr", "groups", "steps", "params"}

-- What to write for names of PyTorch's optimizers that are not offered.
local instead = {
  param_groups = "optimizer.groups, whose entries have the options as fields",
  add_param_group = "another optimizer, with all groups: params = {{params = ...}, {params = ...}}",
}
setmetatable(Optimizer, {__index = function(_, key)
  if instead[key] then raise(("optimizer.%s: an optimizer has no such name; write %s"):format(key, instead[key])) end
  return nil
end})

--- Raises for assignments that would be ignored silently: an option (options belong to groups), or a misspelt field.
function Optimizer:__newindex(key, value)
  if options.is_option(key) then
    raise(("%s: optimizer.%s is no field: set it of a group, optimizer.groups[i].%s"):format(self.kind, key, key))
  end
  local method = type(Optimizer[key]) == "function"
  local near = not method and type(key) == "string" and suggest(key, fields)
  if near then raise(("%s: optimizer.%s is no field (did you mean '%s'?)"):format(self.kind, brief(key), near)) end
  if method and type(value) ~= "function" then -- a function may replace a method
    raise(("%s: optimizer.%s is no field, but a method"):format(self.kind, key))
  end
  rawset(self, key, value)
end

local function new(kind, opts, more)
  if more ~= nil then raise(kind .. ": got a second argument, expected one table: {params = ..., lr = ...}") end
  if type(opts) ~= "table" or type(opts.params) ~= "table" or #opts.params == 0 then
    raise(kind .. ": params is missing or empty, expected a list of parameters or of groups")
  end
  length(opts.params, kind .. ": params")
  local lists = T.is_tensor(opts.params[1]) and {{params = opts.params}} or opts.params
  local defaults, groups, params, given, seen = options.read(kind, opts, {}), {}, {}, {}, {}
  for i, list in ipairs(lists) do
    groups[i] = new_group(kind, list, defaults, seen)
    given[i] = list.params
    for _, p in ipairs(list.params) do params[#params + 1] = p end
  end
  check_apart(kind, params)
  return setmetatable({kind = kind, lr = defaults.lr, groups = groups, steps = 0, params = params,
    holders = holders.claim(params, given)}, Optimizer)
end

--- Updates a parameter that is not contiguous: updates a copy, then copies it back.
local function step_strided(update, group, i, p, g, lr, t)
  local dense = p:detach():contiguous()
  update(group, i, dense, g, lr, t)
  p:detach():copy_(dense)
  dense:free()
end

--- Raises unless self is an optimizer: a method may be called with "." in place of ":".
local function expect(self)
  if type(self) == "table" and self.groups then return end
  raise(("an optimizer's method was called on a %s: write optimizer:method(...), with a colon"):format(type(self)))
end

--- Raises if parameters were added to the optimizer's lists or removed: they have no state.
local function check_lists(self)
  local total = 0
  for k, group in ipairs(self.groups) do
    total = total + #group.offset
    if #group.params ~= #group.offset then
      raise(("%s: groups[%d].params has %d parameters, the group was made with %d: make a new optimizer"):format(
        self.kind, k, #group.params, #group.offset))
    end
  end
  if #self.params ~= total then
    raise(("%s: optimizer.params has %d parameters, the optimizer was made with %d: make a new one"):format(self.kind,
      #self.params, total))
  end
end

--- Updates all parameters by the gradients in .grad.
---@param closure nil refused
---@usage optimizer:step()
function Optimizer:step(closure)
  expect(self)
  if closure ~= nil then raise(self.kind .. ": step takes no closure: compute the gradients before it") end
  local update = steps.update[self.kind]
  options.check(self.kind, "lr", self.lr)
  check_lists(self)
  holders.check(self.params, self.kind)
  for k = 1, #self.groups do self.groups[k]:check() end -- before any parameter is changed
  self.steps = self.steps + 1
  for k = 1, #self.groups do
    local group = self.groups[k]
    local lr, params, taken = group:rate(self.lr), group.params, group.taken
    for i = 1, #params do
      local p, g = params[i], group:gradient(i)
      if g then
        local t = taken[i] + 1
        if p:is_contiguous() then update(group, i, p, g, lr, t) else step_strided(update, group, i, p, g, lr, t) end
        taken[i] = t
      end
    end
  end
end

--- Sets all gradients to zero; nil stays nil. With {set_to_none = true} it sets them to nil, as in PyTorch, so that the
--- next step skips parameters that backward does not reach.
---@param opts {set_to_none: boolean?}?
---@usage optimizer:zero_grad {set_to_none = true}
function Optimizer:zero_grad(opts)
  expect(self)
  if opts ~= nil then check_options.check(self.kind .. ": zero_grad", opts, {set_to_none = check_options.flag}) end
  local none = opts and opts.set_to_none
  for i = 1, #self.params do
    if none then self.params[i].grad = nil else self.params[i]:zero_grad() end
  end
end

--- Returns the parameters that are not frozen, in the order of params.
---@return atomo.Tensor[]
function Optimizer:trained()
  expect(self)
  local list = {}
  for _, p in ipairs(self.params) do
    if p.requires_grad then list[#list + 1] = p end
  end
  return list
end

-- ---- state -------------------------------------------------------------------------------------------------------

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

--- Returns the state for a checkpoint: {steps=, lr=, ["1.velocity"]=tensor, ...}. For group 1 it has ["1.shapes"], the
--- shapes of its parameters; ["1.taken"], if a parameter has taken fewer steps than the optimizer; ["1.lr"] and
--- ["1.ratio"], if its rate was set after its creation; ["1.momentum"] and so on, if set after the first step.
---@return table
---@usage optimizer:state_dict().steps --> 0
function Optimizer:state_dict()
  expect(self)
  local s = {steps = self.steps, lr = self.lr}
  for i, group in ipairs(self.groups) do
    for name, block in pairs(group.state) do s[i .. "." .. name] = block end
    s[i .. ".taken"], s[i .. ".shapes"] = taken_of(group, self.steps), shapes_of(group)
    local lr, ratio = group:rate_at(self.lr)
    if ratio ~= group.first_ratio then s[i .. ".lr"], s[i .. ".ratio"] = lr, ratio or nil end
    for name, value in pairs(group:changed()) do s[i .. "." .. name] = value end
  end
  return s
end

--- Returns a text that says what is wrong with entry `key` of a state, nil if it fits.
local function problem_of(self, key, value, steps_of_all)
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
  local n = block and group.n or #group.params
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

--- Copies the blocks of all groups from s; a block that s lacks becomes zero.
local function load_blocks(self, s)
  local targets, values, absent = {}, {}, {}
  for i, group in ipairs(self.groups) do
    for name in pairs(steps.state[self.kind]) do
      local value = s[i .. "." .. name]
      if value then
        group:state_of(name)
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

--- Restores a result of state_dict. Raises if an entry does not fit, and then changes nothing.
---@param s table a result of state_dict
---@usage optimizer:load_state_dict(optimizer:state_dict())
function Optimizer:load_state_dict(s)
  expect(self)
  if type(s) ~= "table" or type(s.steps) ~= "number" or type(s.lr) ~= "number" then
    raise "load_state_dict: expected the result of an optimizer's state_dict(): steps and lr are missing"
  end
  number.expect_whole(s.steps, "load_state_dict: steps", 0)
  options.check(self.kind, "lr", s.lr)
  for key, value in pairs(s) do
    local problem = key ~= "steps" and key ~= "lr" and problem_of(self, brief(key), value, s.steps)
    if problem then raise("load_state_dict: " .. problem) end
  end
  check_complete(self, s)
  load_blocks(self, s)
  for i, group in ipairs(self.groups) do load_group(group, i, s) end
  self.steps, self.lr = s.steps, s.lr
end

--- Options: lr, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false
---@param opts table params, lr and the options above
---@param ... nil refused: options are one table
---@return atomo.Optimizer
---@usage atomo.optim.sgd({params = m:parameters(), lr = 0.1, momentum = 0.9}).lr --> 0.1
function M.sgd(opts, ...) return new("sgd", opts, ...) end
--- Options: lr = 1e-3, betas = {0.9, 0.999} (or beta1, beta2), eps = 1e-8, weight_decay = 0 (added to the gradient),
--- amsgrad = false (true: divide by the largest second moment so far)
---@param opts table params, lr and the options above
---@param ... nil refused: options are one table
---@return atomo.Optimizer
---@usage atomo.optim.adam({params = m:parameters()}).lr --> 0.001
function M.adam(opts, ...) return new("adam", opts, ...) end
--- Options as adam; weight_decay = 0.01, decoupled from the gradient [Loshchilov and Hutter 2019]
---@param opts table params, lr and the options above
---@param ... nil refused: options are one table
---@return atomo.Optimizer
---@usage atomo.optim.adamw({params = m:parameters()}).lr --> 0.001
function M.adamw(opts, ...) return new("adamw", opts, ...) end
--- Options: lr, momentum = 0.9, weight_decay = 0, trust = 0.001 [You, Gitman, Ginsburg 2017]
---@param opts table params, lr and the options above
---@param ... nil refused: options are one table
---@return atomo.Optimizer
---@usage atomo.optim.lars({params = m:parameters(), lr = 0.1}).lr --> 0.1
function M.lars(opts, ...) return new("lars", opts, ...) end
--- Options: lr, betas = {0.9, 0.999}, eps = 1e-6, weight_decay = 0 (decoupled). Each tensor's update has Adam's
--- direction and a length proportional to the norm of its weights [You et al. 2020]
---@param opts table params, lr and the options above
---@param ... nil refused: options are one table
---@return atomo.Optimizer
---@usage atomo.optim.lamb({params = m:parameters(), lr = 0.01}).lr --> 0.01
function M.lamb(opts, ...) return new("lamb", opts, ...) end

for _, part in ipairs {"clip", "ema", "groups"} do
  for name, fn in pairs(require("atomo.optim." .. part)) do M[name] = fn end
end

return require("atomo.core.strict").module(M, "optim")
