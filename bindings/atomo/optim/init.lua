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
local check_options = require "atomo.tensor.check_options"
local check_apart = require "atomo.optim.apart"
local holders = require "atomo.nn.holders"
local new_group = require "atomo.optim.group"
local options = require "atomo.optim.options"
local shards = require "atomo.optim.shards"
local state = require "atomo.optim.state"
local steps = require "atomo.optim.update"
local suggest = require "atomo.core.suggest"
local raise = f.raise

local M = {}

---@class atomo.Optimizer
---@field lr number      learning rate of the next step; a group's rate is lr times its ratio
---@field groups atomo.Group[]
---@field steps integer  number of steps taken
---@field params atomo.Tensor[]  parameters of all groups, in order
---@field shards atomo.Shards|false  set by shard() on two ranks or more
local Optimizer = {}
Optimizer.__index = Optimizer

local fields = {"lr", "groups", "steps", "params"}

-- What to write for names of PyTorch's optimizers that are not offered.
local instead = {
  param_groups = "optimizer.groups, whose entries have the options as fields",
  get_lr = "optimizer.lr", learning_rate = "optimizer.lr", set_lr = "optimizer.lr = 0.1",
  zeroGrad = "optimizer:zero_grad()", parameters = "optimizer.params",
  defaults = "optimizer.groups, whose entries have the options as fields",
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
    shards = false, holders = holders.claim(params, given)}, Optimizer)
end

--- Updates parameter p. One that is not contiguous is copied, and the updated copy is copied back.
local function update_whole(update, group, i, p, lr, t)
  local g = group:gradient(i)
  if p:is_contiguous() then return update(group, i, p, g, lr, t) end
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

--- Raises if the step that begins now would fail, before any parameter is changed.
local function check_step(self)
  options.check(self.kind, "lr", self.lr)
  check_lists(self)
  holders.check(self.params, self.kind)
  for k = 1, #self.groups do self.groups[k]:check() end
end

--- Updates the parameters that have a gradient, or this rank's parts of them.
local function apply(self)
  local update, own = steps.update[self.kind], self.shards
  self.steps = self.steps + 1
  for k = 1, #self.groups do
    local group = self.groups[k]
    local lr, params, taken = group:rate(self.lr), group.params, group.taken
    for i = 1, #params do
      if group.checked[i] then
        local t = taken[i] + 1
        if own then own:update(update, group, i, lr, t) else update_whole(update, group, i, params[i], lr, t) end
        taken[i] = t
      end
    end
  end
end

--- Updates all parameters by the gradients in .grad. A sharded optimizer updates this rank's parts, and gets the others
--- from their ranks; the gradients must be the same on all ranks. [collective if sharded]
---@param closure nil refused
---@usage optimizer:step()
function Optimizer:step(closure)
  expect(self)
  if closure ~= nil then raise(self.kind .. ": step takes no closure: compute the gradients before it") end
  if not self.shards then
    check_step(self)
    return apply(self)
  end
  self.shards:begin(function() check_step(self) end)
  self.shards:finish(function() apply(self) end)
end

--- Shards the optimizer over comm's P ranks (ZeRO-1): from now on each rank keeps 1/P of the optimizer's state, and
--- step, state_dict and unshard are operations of all ranks, which every rank must call. Weights and state stay
--- bit-identical to those of an optimizer that is not sharded. State from earlier steps must be the same on all ranks.
--- With weights = "bf16", ranks send the changes of their weights rounded to bf16, which all add to their weights: half
--- the bytes; replicas stay bit-identical, but each change is off by up to 1/512 of itself. Raises for lars and lamb,
--- whose updates need norms of whole tensors. A second call with the same communicator sets `weights` only. With one
--- rank nothing changes.
---@param comm atomo.Comm
---@param opts {weights: "fp32"|"bf16"|nil}?  default "fp32"
---@return atomo.Optimizer self
---@usage atomo.optim.adam({params = m:parameters()}):shard(atomo.mpi.world).steps --> 0
function Optimizer:shard(comm, opts)
  expect(self)
  local weights = shards.check(self.kind, comm, opts)
  if self.shards and self.shards.comm ~= comm then
    raise(self.kind .. ": shard: it is sharded over another communicator; call unshard() before")
  end
  if self.shards then self.shards.weights = weights
  elseif comm.size > 1 then self.shards = shards.new(self, comm, weights) end
  return self
end

--- Gathers the whole state of a sharded optimizer on every rank, which is then no longer sharded. No effect on one that
--- is not. [collective]
---@return atomo.Optimizer self
---@usage optimizer:unshard().steps --> 0
function Optimizer:unshard()
  expect(self)
  if self.shards then self.shards:dissolve() end
  self.shards = false
  return self
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

--- Returns the state for a checkpoint: {steps=, lr=, ["1.velocity"]=tensor, ...}. For group 1 it has ["1.shapes"], the
--- shapes of its parameters; ["1.taken"], if a parameter has taken fewer steps than the optimizer; ["1.lr"] and
--- ["1.ratio"], if its rate was set after its creation; ["1.momentum"] and so on, if set after the first step.
--- Of a sharded optimizer every rank gets the whole state, in tensors of its own. [collective if sharded]
---@return table
---@usage optimizer:state_dict().steps --> 0
function Optimizer:state_dict()
  expect(self)
  return state.of(self)
end

--- Returns the part of state_dict's result that all ranks of a sharded optimizer have: all but the state of elements.
--- [local]
---@return table
---@usage optimizer:common_state().steps --> 0
function Optimizer:common_state()
  expect(self)
  return state.common(self)
end

--- Restores a result of state_dict, whether that optimizer was sharded or not, on any number of ranks. Raises if an
--- entry does not fit, and then changes nothing. If this optimizer is sharded, each rank keeps its part. [local]
---@param s table a result of state_dict
---@usage optimizer:load_state_dict(optimizer:state_dict())
function Optimizer:load_state_dict(s)
  expect(self)
  state.load(self, s)
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
