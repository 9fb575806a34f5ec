--- A group of an optimizer: parameters with common options, and their state. Each state (velocity, first moment, ...)
-- is one tensor, the block, which checkpoints save; each parameter has a 64-byte aligned view of it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local check_options = require "atomo.tensor.check_options"
local gradient = require "atomo.autograd.gradient"
local options = require "atomo.optim.options"
local raise = f.raise

local ALIGN = 16 -- alignment of a parameter's state, in floats

---@class atomo.Group
---@field params atomo.Tensor[]
---@field lr number        learning rate of the next step
---@field taken number[]   steps taken by each parameter; frozen ones and ones without gradient take none
---@field ratio number|false  group.lr / optimizer.lr, kept when the optimizer's rate changes; false: lr does not follow
---@field values table     options used by the last step; an option that differs was set by the user since
---@field first table|false  options, except lr, before the first step; false before it
---@field state table<string, atomo.Tensor>  blocks by name: "velocity", "first", ...
local Group = {}
Group.__index = Group

--- Raises for an unknown option, which would be ignored silently.
function Group:__newindex(name)
  if name == "betas" and rawget(self, "beta1") then
    raise(self.kind .. ": group.betas is no field of a group: set group.beta1 and group.beta2")
  end
  check_options.unknown(self.kind .. ": group", name, options.names(self.kind))
end

local function check_parameter(kind, i, p, seen)
  local leaf = T.is_tensor(p) and not p.node and (p.is_parameter or p.requires_grad)
  if not leaf then raise(("%s: parameter %d is no parameter: make it with atomo.param"):format(kind, i)) end
  if seen[p] then raise(("%s: parameter %d is listed twice"):format(kind, i)) end
  seen[p] = true
end

---@param kind string         "sgd", "adam", ...
---@param list table          {params=, lr=, ...}
---@param defaults table      options of the optimizer
---@param seen table          set of the optimizer's parameters so far; this group's are added
---@return atomo.Group
local function new(kind, list, defaults, seen)
  if type(list) ~= "table" or type(list.params) ~= "table" or #list.params == 0 then
    raise(kind .. ": a group has no params")
  end
  length(list.params, kind .. ": params of a group")
  local self = options.read(kind, list, defaults)
  self.kind, self.params, self.offset, self.taken, self.checked = kind, {}, {}, {}, {}
  self.state, self.views, self.names, self.values, self.first = {}, {}, {}, {}, false
  for _, name in ipairs(options.names(kind)) do
    if self[name] ~= nil and name ~= "params" then
      self.names[#self.names + 1], self.values[name] = name, self[name]
    end
  end
  self.ratio = self.lr == defaults.lr and 1 or defaults.lr > 0 and self.lr / defaults.lr
  self.first_ratio, self.n = self.ratio, 0
  for i, p in ipairs(list.params) do
    check_parameter(kind, i, p, seen)
    self.params[i], self.offset[i], self.taken[i], self.checked[i] = p, self.n, 0, false
    self.n = self.n + math.ceil(p:numel() / ALIGN) * ALIGN
    if p.requires_grad then gradient.ensure(p) end
  end
  return setmetatable(self, Group)
end

--- Returns the options that the next step uses, by name.
function Group:options()
  local o = {}
  for _, name in ipairs(self.names) do o[name] = self[name] end
  return o
end

--- Records the options, except lr, with which the first step begins.
function Group:begin()
  if self.first then return end
  self.first = self:options()
  self.first.lr = nil
end

--- Returns the options, except lr, that were set since the first step began, by name: a checkpoint holds them.
function Group:changed()
  local list = {}
  for name, value in pairs(self.first or {}) do
    if self[name] ~= value then list[name] = self[name] end
  end
  return list
end

--- Sets the options, except lr, to those of a state: saved ones, else those before the first step.
---@param saved table  a result of changed
function Group:restore(saved)
  self:begin()
  for name, value in pairs(self.first) do
    if saved[name] ~= nil then self[name] = saved[name] else self[name] = value end
  end
end

--- Checks the present options and records them in self.values, except lr, which rate() records.
local function check_values(self)
  local o = self:options()
  options.check_all(self.kind, o)
  for _, name in ipairs(self.names) do
    if name ~= "lr" then self.values[name] = o[name] end
  end
end

local function check_gradient(self, i, p)
  local name = ("parameter %d %s"):format(i, T.shape_text(p))
  if gradient.of(p, self.kind, name).h.storage == p.h.storage then
    raise(("%s: .grad of %s shares its memory; assign a :clone()"):format(self.kind, name))
  end
end

--- Was group.lr assigned since the last step?
function Group:is_set() return self.lr ~= self.values.lr end

local function resolve(self, set, common)
  if set then return self.lr, self.lr == common and 1 or common > 0 and self.lr / common end
  return self.ratio and common * self.ratio or self.lr, self.ratio
end

--- Returns the learning rate of the next step and its ratio to `common`, the optimizer's rate. If group.lr was assigned
--- since the last step, that value; else common * ratio.
function Group:rate_at(common) return resolve(self, self:is_set(), common) end

--- Raises if the step that begins now would fail: for an option that was set since the last step, or a gradient.
function Group:check()
  local names, values = self.names, self.values
  self:begin()
  for i = 1, #names do
    if self[names[i]] ~= values[names[i]] then check_values(self) end
  end
  for i = 1, #self.params do
    local p = self.params[i]
    local g = p.requires_grad and p.grad or false
    if g and g ~= self.checked[i] then check_gradient(self, i, p) end
    self.checked[i] = g
  end
end

--- Returns the learning rate of the step that begins now, and records it. Call check() before it.
function Group:rate(common)
  local values = self.values
  local lr, ratio = resolve(self, self:is_set(), common)
  self.lr, self.ratio, values.lr = lr, ratio, lr
  return lr
end

--- Returns the contiguous gradient of parameter i, which check() has seen; nil if the step skips it (frozen, or .grad
--- is nil).
function Group:gradient(i)
  local g = self.checked[i]
  if not g then return nil end
  return g:is_contiguous() and g or g:detach():contiguous()
end

local function make_block(self, name)
  local block, views = T.zeros(self.n), {}
  for i, p in ipairs(self.params) do views[i] = block:narrow(1, self.offset[i] + 1, p:numel()) end
  self.state[name], self.views[name] = block, views
end

--- Returns the views of state `name`, one per parameter; zeros are allocated on first use.
---@return atomo.Tensor[]
function Group:state_of(name)
  if not self.views[name] then T.outside_scope(make_block, self, name) end
  return self.views[name]
end

return new
