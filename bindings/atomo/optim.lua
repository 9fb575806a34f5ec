--- Optimizers: sgd, adam, adamw, lars, lamb (clipping, averages of weights and groups are in optim/). State and
-- parameters lie in flat blocks; a step is one pass (stage 9).
-- Every constructor takes {params=, lr=, ...}; params is a list of parameters, or a list of groups
-- {params={...}, weight_decay=0, ...} whose options override the common ones. PyTorch's names, defaults and formulas.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local flatten = require "atomo.flat"
local C, check, raise = f.C, f.check, f.raise

local M = {}

---@class atomo.Optimizer
---@field lr number      of the coming step; a group's own lr is relative to it
---@field groups table[]
---@field steps integer  taken so far
local Optimizer = {}
Optimizer.__index = Optimizer

-- name -> {default, smallest allowed}
local common = {lr = {nil, 0}, weight_decay = {0, 0}}
local kinds = {
  sgd = {momentum = {0, 0}, dampening = {0, 0}, nesterov = {false}},
  adam = {lr = {1e-3, 0}, beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-8, 0}, amsgrad = {false}},
  adamw = {lr = {1e-3, 0}, weight_decay = {0.01, 0}, beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-8, 0},
    amsgrad = {false}},
  lars = {momentum = {0.9, 0}, trust = {0.001, 0}, eps = {1e-8, 0}},
  lamb = {beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-6, 0}},
}

local function known_options(kind)
  local names = {"params", kinds[kind].beta1 and "betas" or nil}
  for name in pairs(common) do names[#names + 1] = name end
  for name in pairs(kinds[kind]) do
    if not common[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function option(kind, name, rule, opts, defaults)
  local v = opts[name]
  if v == nil then v = defaults[name] end
  if v == nil then v = rule[1] end
  if v == nil then raise(("%s: '%s' is missing"):format(kind, name)) end
  if type(rule[1]) == "boolean" then
    if type(v) ~= "boolean" then raise(("%s: %s is %s, expected true or false"):format(kind, name, tostring(v))) end
  elseif type(v) ~= "number" or v ~= v or v < rule[2] or v == math.huge then
    raise(("%s: %s is %s, expected a number >= %g"):format(kind, name, tostring(v), rule[2]))
  end
  return v
end

--- opts with PyTorch's betas = {beta1, beta2} as the two.
local function without_betas(kind, opts)
  local betas = opts.betas
  if betas == nil or not kinds[kind].beta1 then return opts end
  if type(betas) ~= "table" or #betas ~= 2 or opts.beta1 ~= nil or opts.beta2 ~= nil then
    raise(("%s: betas is %s, expected {beta1, beta2}, or beta1 and beta2 by themselves"):format(kind, tostring(betas)))
  end
  local plain = {}
  for name, v in pairs(opts) do plain[name] = v end
  plain.betas, plain.beta1, plain.beta2 = nil, betas[1], betas[2]
  return plain
end

--- A group's options, each checked; unknown names are refused.
local function read_group(kind, opts, defaults)
  local group = {}
  opts = without_betas(kind, opts)
  for name, rule in pairs(common) do
    group[name] = option(kind, name, kinds[kind][name] or rule, opts, defaults)
  end
  for name, rule in pairs(kinds[kind]) do group[name] = option(kind, name, rule, opts, defaults) end
  for name in pairs(opts) do
    if name ~= "params" and group[name] == nil then
      raise(("%s: unknown option '%s', options are %s"):format(kind, tostring(name),
        table.concat(known_options(kind), ", ")))
    end
  end
  if kind == "sgd" and group.nesterov and (group.momentum == 0 or group.dampening ~= 0) then
    raise "sgd: nesterov needs momentum > 0 and dampening 0"
  end
  if group.beta1 and (group.beta1 >= 1 or group.beta2 >= 1) then
    raise(("%s: beta1 = %g, beta2 = %g, expected below 1"):format(kind, group.beta1, group.beta2))
  end
  return group
end

local function new(kind, opts)
  if type(opts) ~= "table" or type(opts.params) ~= "table" or #opts.params == 0 then
    raise(kind .. ": params is missing or empty, expected a list of parameters or of groups")
  end
  local self = setmetatable({kind = kind, groups = {}, steps = 0, params = {}}, Optimizer)
  local lists = T.is_tensor(opts.params[1]) and {{params = opts.params}} or opts.params
  local defaults = read_group(kind, opts, {})
  self.lr = defaults.lr
  for _, list in ipairs(lists) do
    if type(list.params) ~= "table" or #list.params == 0 then raise(kind .. ": a group has no params") end
    local group = read_group(kind, list, defaults)
    group.lr_factor = defaults.lr > 0 and group.lr / defaults.lr or 1
    group.flat = flatten(list.params)
    self.groups[#self.groups + 1] = group
    for _, p in ipairs(list.params) do self.params[#self.params + 1] = p end
  end
  return self
end

--- State blocks of a group, made on first use: zeros of the flat size.
local function state(group, ...)
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    group[name] = group[name] or T.outside_scope(T.zeros, group.flat.n)
  end
end

local update = {}

function update.sgd(group, lr, t)
  local flat = group.flat
  if group.momentum > 0 then state(group, "velocity") end
  check(C.atomo_optim_sgd(flat.value.h, flat.grad.h, group.velocity and group.velocity.h or nil, lr, group.momentum,
    group.dampening, group.weight_decay, 1, group.nesterov and 1 or 0, t == 1 and 1 or 0))
end

local function adam_step(decoupled)
  return function(group, lr, t)
    local flat = group.flat
    state(group, "first", "second")
    if group.amsgrad then state(group, "largest") end
    check(C.atomo_optim_adam(flat.value.h, flat.grad.h, group.first.h, group.second.h,
      group.amsgrad and group.largest.h or nil, lr, group.beta1, group.beta2,
      group.eps, group.weight_decay, decoupled, t))
  end
end
update.adam = adam_step(0)
update.adamw = adam_step(1)

--- A state block cut into views, one a parameter; made once.
local function views_of(group, name)
  local key = name .. "_views"
  group[key] = group[key] or T.outside_scope(function()
    local views = {}
    for i, p in ipairs(group.flat.params) do views[i] = group[name]:narrow(1, group.flat.offset[i] + 1, p:numel()) end
    return views
  end)
  return group[key]
end

--- Layer-wise rate [You, Gitman, Ginsburg 2017]: trust * |w| / (|g| + weight_decay * |w|) for tensors of two or more
--- dimensions, 1 for biases and norms; the velocity takes the scaled gradient.
function update.lars(group, lr, t)
  state(group, "velocity")
  local velocity = views_of(group, "velocity")
  for i, p in ipairs(group.flat.params) do
    local scale = 1
    if p:dim() >= 2 then
      local w, g = p:norm_value(), p.grad:norm_value()
      if w > 0 and g > 0 then scale = group.trust * w / (g + group.weight_decay * w + group.eps) end
    end
    check(C.atomo_optim_sgd(p.h, p.grad.h, velocity[i].h, lr, group.momentum, 0, group.weight_decay, scale, 0,
      t == 1 and 1 or 0))
  end
end

function update.lamb(group, lr, t)
  state(group, "first", "second")
  local m, v = views_of(group, "first"), views_of(group, "second")
  for i, p in ipairs(group.flat.params) do
    check(C.atomo_optim_lamb(p.h, p.grad.h, m[i].h, v[i].h, lr, group.beta1, group.beta2, group.eps,
      group.weight_decay, t))
  end
end

--- Applies the gradients in .grad to the parameters.
function Optimizer:step()
  self.steps = self.steps + 1
  for _, group in ipairs(self.groups) do
    update[self.kind](group, self.lr * group.lr_factor, self.steps)
    C.atomo_tensor_touch(group.flat.value.h)
  end
end

function Optimizer:zero_grad()
  for _, group in ipairs(self.groups) do group.flat:zero_grad() end
end

local state_names = {"velocity", "first", "second", "largest"}

--- What a checkpoint needs: {steps=, lr=, ["1.velocity"]=tensor, ...}.
function Optimizer:state_dict()
  local s = {steps = self.steps, lr = self.lr}
  for i, group in ipairs(self.groups) do
    for _, name in ipairs(state_names) do
      if group[name] then s[i .. "." .. name] = group[name] end
    end
  end
  return s
end

function Optimizer:load_state_dict(s)
  for key, value in pairs(s) do
    if T.is_tensor(value) then
      local i, name = key:match "^(%d+)%.(%a+)$"
      local group = self.groups[tonumber(i)]
      if not group then raise(("load_state_dict: '%s' belongs to no group of this optimizer"):format(key)) end
      if value:numel() ~= group.flat.n then
        raise(("load_state_dict: '%s' has %d elements, the parameters %d"):format(key, value:numel(), group.flat.n))
      end
      state(group, name)
      group[name]:copy_(value)
    end
  end
  self.steps, self.lr = s.steps, s.lr
end

--- lr, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false
function M.sgd(opts) return new("sgd", opts) end
--- lr = 1e-3, betas = {0.9, 0.999} (or beta1, beta2), eps = 1e-8, weight_decay = 0 (added to the gradient), amsgrad =
--- false (divide by the largest second moment so far)
function M.adam(opts) return new("adam", opts) end
--- as adam, weight_decay = 0.01 decoupled from the gradient [Loshchilov and Hutter 2019]
function M.adamw(opts) return new("adamw", opts) end
--- lr, momentum = 0.9, weight_decay = 0, trust = 0.001
function M.lars(opts) return new("lars", opts) end
--- lr, betas = {0.9, 0.999}, eps = 1e-6, weight_decay = 0 (decoupled): Adam's direction with the length of the
--- weights, a tensor each [You et al. 2020]
function M.lamb(opts) return new("lamb", opts) end

for _, part in ipairs {"clip", "ema", "groups"} do
  for name, fn in pairs(require("atomo.optim." .. part)) do M[name] = fn end
end

return M
