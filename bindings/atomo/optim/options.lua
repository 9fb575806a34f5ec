--- Options of the optimizers: names, defaults and bounds (names and defaults are PyTorch's), and reading a group's.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"
local check_options = require "atomo.tensor.check_options"

local M = {}

-- name -> {default, smallest allowed}
local common = {lr = {nil, 0}, weight_decay = {0, 0}}
M.kinds = {
  sgd = {momentum = {0, 0}, dampening = {0, 0}, nesterov = {false}},
  adam = {lr = {1e-3, 0}, beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-8, 0}, amsgrad = {false}},
  adamw = {lr = {1e-3, 0}, weight_decay = {0.01, 0}, beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-8, 0},
    amsgrad = {false}},
  lars = {momentum = {0.9, 0}, trust = {0.001, 0}, eps = {1e-8, 0}},
  lamb = {beta1 = {0.9, 0}, beta2 = {0.999, 0}, eps = {1e-6, 0}},
}

--- Returns the sorted names of the options of a kind, including `params`, and `betas` if it has beta1 and beta2.
---@return string[]
function M.names(kind)
  local names = {"params", M.kinds[kind].beta1 and "betas" or nil}
  for name in pairs(common) do names[#names + 1] = name end
  for name in pairs(M.kinds[kind]) do
    if not common[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- Is `name` an option of any optimizer?
function M.is_option(name)
  if common[name] or name == "betas" then return true end
  for _, rules in pairs(M.kinds) do
    if rules[name] then return true end
  end
  return false
end

--- Raises unless v is a valid value of option `name`. key: the option's name in the error text, if different.
function M.check(kind, name, v, key)
  local rule = M.kinds[kind][name] or common[name]
  local least = rule[2]
  if least == nil then
    if type(v) ~= "boolean" then
      raise(("%s: %s is %s, expected true or false"):format(kind, key or name, brief(v)))
    end
  elseif type(v) ~= "number" or v ~= v or v < least or v == math.huge then
    raise(("%s: %s is %s, expected a number >= %g"):format(kind, key or name, brief(v), least))
  end
end

local function option(kind, name, rule, opts, defaults)
  local v = opts[name]
  if v == nil then v = defaults[name] end
  if v == nil then v = rule[1] end
  if v == nil then raise(("%s: '%s' is missing, expected a number, as in %s = 0.1"):format(kind, name, name)) end
  M.check(kind, name, v)
  return v
end

--- Returns opts with betas = {beta1, beta2} replaced by beta1 and beta2.
local function without_betas(kind, opts)
  local betas = opts.betas
  if betas == nil or not M.kinds[kind].beta1 then return opts end
  if type(betas) ~= "table" or #betas ~= 2 or opts.beta1 ~= nil or opts.beta2 ~= nil then
    raise(("%s: betas is %s, expected {beta1, beta2}, or beta1 and beta2 by themselves"):format(kind, brief(betas)))
  end
  local plain = {}
  for name, v in pairs(opts) do plain[name] = v end
  plain.betas, plain.beta1, plain.beta2 = nil, betas[1], betas[2]
  return plain
end

--- Raises for values that exclude each other.
local function check_together(kind, o)
  if kind == "sgd" and o.nesterov and (o.momentum == 0 or o.dampening ~= 0) then
    raise "sgd: nesterov needs momentum > 0 and dampening 0"
  end
  if o.beta1 and (o.beta1 >= 1 or o.beta2 >= 1) then
    raise(("%s: beta1 = %g, beta2 = %g, expected below 1"):format(kind, o.beta1, o.beta2))
  end
end

--- Raises unless all options of a group have valid values that can be combined.
function M.check_all(kind, o)
  for name in pairs(common) do M.check(kind, name, o[name]) end
  for name in pairs(M.kinds[kind]) do M.check(kind, name, o[name]) end
  check_together(kind, o)
end

--- Returns a group's options after checking names and values.
---@param kind string
---@param opts table
---@param defaults table  options of the optimizer
function M.read(kind, opts, defaults)
  local o = {}
  opts = without_betas(kind, opts)
  for name in pairs(opts) do -- before required ones: a misspelt name is why one is missing
    if name ~= "params" and not common[name] and not M.kinds[kind][name] then
      check_options.unknown(kind, name, M.names(kind))
    end
  end
  for name, rule in pairs(common) do o[name] = option(kind, name, M.kinds[kind][name] or rule, opts, defaults) end
  for name, rule in pairs(M.kinds[kind]) do o[name] = option(kind, name, rule, opts, defaults) end
  check_together(kind, o)
  return o
end

return M
