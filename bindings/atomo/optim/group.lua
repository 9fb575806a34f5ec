--- A group of an optimizer: parameters with common options, and their state. Each state (velocity, first moment, ...)
-- is one tensor, the block, which checkpoints save; each parameter has a 64-byte aligned view of it. Of a sharded
-- optimizer (shards.lua) this rank has one range of each block, and views of the parameters' elements in it.
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
---@field n integer        floats of a whole block
---@field from integer     first float, from 0, of this rank's range of the blocks; 0 unless the optimizer is sharded
---@field to integer       float behind the range; n unless the optimizer is sharded
---@field state table<string, atomo.Tensor>  this rank's range of each block, by name: "velocity", "first", ...
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
  self.from, self.to = 0, self.n
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

--- Returns which elements of parameter i have their state in floats from .. to - 1 of a block: how many precede them
--- in the parameter, and how many they are.
---@return integer first
---@return integer count
function Group:part(i, from, to)
  local offset, n = self.offset[i], self.params[i]:numel()
  local first = math.max(0, from - offset)
  return first, math.max(0, math.min(n, to - offset) - first)
end

--- Is every block whole on this rank?
function Group:is_whole() return self.to - self.from == self.n end

--- Makes `block` this rank's range of state `name`.
local function place(self, name, block)
  local views = {}
  for i = 1, #self.params do
    local first, count = self:part(i, self.from, self.to)
    if count > 0 or self:is_whole() then
      views[i] = block:narrow(1, self.offset[i] + first - self.from + 1, count)
    end
  end
  self.state[name], self.views[name] = block, views
end

local function make_block(self, name) place(self, name, T.zeros(self.to - self.from)) end

--- Returns the views of state `name` by parameter; none for a parameter without elements in this rank's range. Zeros
--- are allocated on first use.
---@return table<integer, atomo.Tensor>
function Group:state_of(name)
  if not self.views[name] then T.outside_scope(make_block, self, name) end
  return self.views[name]
end

--- Keeps floats from .. to - 1 of each block, which are whole now.
function Group:keep(from, to)
  local blocks = self.state
  self.from, self.to, self.state, self.views = from, to, {}, {}
  T.outside_scope(function()
    for name, block in pairs(blocks) do place(self, name, block:narrow(1, from + 1, to - from):clone()) end
  end)
end

--- Replaces this rank's ranges of the blocks by whole blocks.
---@param blocks table<string, atomo.Tensor>
function Group:put_whole(blocks)
  self.from, self.to, self.state, self.views = 0, self.n, {}, {}
  T.outside_scope(function()
    for name, block in pairs(blocks) do place(self, name, block) end
  end)
end

return new
