--- Local SGD: in a round every rank takes H steps with its own (inner) optimizer. Then the exchange averages the
-- changes of the parameters (start of the round minus its end) like gradients, by any compressor and topology, and an
-- outer SGD with Nesterov momentum applies the average (DiLoCo [Douillard et al. 2023]; lr 1 without momentum is the
-- plain averaging of parameters [Stich 2019]). Stages 4 to 9 run once per round.  The anchors are copies of the
-- parameters at the start of the round, bit-identical on all ranks. At its end the outer optimizer updates them, and
-- they are copied to the parameters. The inner optimizers' states differ between ranks.
local autograd = require "atomo.autograd"
local brief = require "atomo.core.brief"
local finite = require "atomo.train.finite"
local optim = require "atomo.optim"
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local gradient = require "atomo.autograd.gradient"
local new_trained = require "atomo.optim.trained"
local raise = require("atomo.ffi").raise

---@class atomo.LocalSgd
---@field optimizer atomo.Optimizer  the outer optimizer, of the anchors; a checkpoint saves its state
---@field dense_bytes number         bytes of all parameters in f32
local LocalSgd = {}
LocalSgd.__index = LocalSgd

local defaults = {lr = 0.7, momentum = 0.9}

local function option(opts, name)
  local v = opts[name]
  if v == nil then return defaults[name] end
  if type(v) ~= "number" or not (v >= 0 and v < math.huge) then
    raise(("train: outer %s is %s, expected a number >= 0"):format(name, brief(v)))
  end
  return v
end

---@param inner atomo.Optimizer  optimizer of the local steps
---@param exchange atomo.Exchange
---@param opts {lr: number?, momentum: number?}?  of the outer SGD; defaults 0.7, 0.9 (DiLoCo's)
---@param names string[]?  names of inner.params
local function new(inner, exchange, opts, names)
  opts = opts or {}
  for key in pairs(opts) do
    if defaults[key] == nil then
      O.unknown("train: outer", key, {"lr", "momentum"})
    end
  end
  return T.outside_scope(function()
    local self = setmetatable({inner = inner, exchanger = exchange, dense_bytes = 0, names = names, moved = {}},
      LocalSgd)
    local groups, momentum = {}, option(opts, "momentum")
    for g, group in ipairs(inner.groups) do
      groups[g] = {params = {}}
      for i, p in ipairs(group.params) do
        groups[g].params[i] = autograd.param(p:detach():clone())
        groups[g].params[i].requires_grad = p.requires_grad
        self.dense_bytes = self.dense_bytes + 4 * p:numel()
      end
    end
    self.optimizer = optim.sgd {params = groups, lr = option(opts, "lr"), momentum = momentum,
      nesterov = momentum > 0}
    self.trained = new_trained(self.optimizer.params, exchange, names)
    return self
  end)
end

--- Calls fn(anchor, parameter) for every parameter, without recording.
local function each(self, fn)
  autograd.no_grad(function()
    for i, anchor in ipairs(self.optimizer.params) do fn(anchor, self.inner.params[i]) end
  end)
end

--- Begins a round: parameters that are frozen now take no part in it, unless they train before it ends.
function LocalSgd:begin_round()
  each(self, function(anchor, p) anchor.requires_grad = p.requires_grad end)
end

--- Copies the parameters to the anchors, at the start of a run, when they are equal on all ranks.
function LocalSgd:anchor()
  each(self, function(anchor, p) anchor:copy_(p) end)
end

--- Copies the anchors to the parameters, at the end of a round or to give it up.
function LocalSgd:back()
  each(self, function(anchor, p) p:copy_(anchor) end)
end

--- Writes anchor minus parameter to the anchors' gradients; returns a text if they have NaN or Inf on this rank, else
--- nil.
---@return string?
function LocalSgd:difference()
  local moved, n = self.moved, #self.optimizer.params
  each(self, function(anchor, p) gradient.ensure(anchor):copy_(anchor):axpy_(-1, p) end)
  for i, anchor in ipairs(self.optimizer.params) do moved[i] = anchor.grad end
  return finite.look("parameter", moved, n, self.names)
end

--- Ends a round, after difference(): averages the differences over the ranks, updates the anchors, and copies them to
--- the parameters. Parameters that were frozen or unfrozen within the round are included. If the exchange fails or an
--- average is not finite, the anchors are not changed, and the reason is returned on all ranks. [collective]
---@return string?
function LocalSgd:step(step)
  each(self, function(anchor, p) anchor.requires_grad = anchor.requires_grad or p.requires_grad end)
  self.trained:update(step)
  local list = self.trained.list
  for i = #list, 1, -1 do self.exchanger:push(i, list[i].grad) end
  local moved = self.moved
  for i, anchor in ipairs(self.optimizer.params) do moved[i] = anchor.requires_grad and anchor.grad or false end
  local why = self.exchanger:average_or_why() or
    finite.look("the ranks' average of what moved", moved, #moved, self.names)
  if why then
    self.exchanger:drop()
  else
    self.exchanger:commit()
    self.optimizer:step()
    self:back()
  end
  return why
end

return new
