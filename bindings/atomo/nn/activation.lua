--- Layers without parameters: Identity, elementwise activations, Softmax and LogSoftmax along one dimension, Dropout,
-- Dropout2d.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

local M = {}

--- Makes a layer class without options, whose forward is fn.
local function layer(name, fn)
  local class = Module:extend(name)
  function class:init(...) O.none(name, ...) end
  function class:forward(x) return fn(x) end
  M[name] = class
end
layer("Identity", function(x) return x end)
layer("ReLU", function(x) return F.relu(x) end)
layer("SiLU", function(x) return F.silu(x) end)
layer("Tanh", function(x) return F.tanh(x) end)
layer("Sigmoid", function(x) return F.sigmoid(x) end)
layer("ReLU6", function(x) return F.relu6(x) end)
layer("SELU", function(x) return F.selu(x) end)
layer("Mish", function(x) return F.mish(x) end)
layer("Hardswish", function(x) return F.hardswish(x) end)
layer("Hardsigmoid", function(x) return F.hardsigmoid(x) end)
layer("LogSigmoid", function(x) return F.logsigmoid(x) end)

--- Makes a layer of fn(x, option, ...). options: {{name, default}, ...}, numbers given in this order; the layer tries
--- fn when it is made, so that an error names that line.
local function with_numbers(name, fn, options)
  local class = Module:extend(name)
  function class:init(...)
    local given = select("#", ...)
    if given > #options then
      f.raise(("%s: got %d arguments, it takes %d (%s first)"):format(name, given, #options, options[1][1]))
    end
    for i, option in ipairs(options) do
      local v = (select(i, ...))
      if v == nil then v = option[2] end
      self[option[1]] = v
    end
    self:forward(T.zeros(1))
  end
  function class:forward(x) return fn(x, self[options[1][1]], options[2] and self[options[2][1]]) end
  function class:describe()
    local texts = {}
    for i, option in ipairs(options) do texts[i] = ("%s=%g"):format(option[1], self[option[1]]) end
    return table.concat(texts, ", ")
  end
  M[name] = class
end
with_numbers("Softplus", F.softplus, {{"beta", 1}, {"threshold", 20}})
with_numbers("ELU", F.elu, {{"alpha", 1}})
with_numbers("Hardtanh", F.hardtanh, {{"min_val", -1}, {"max_val", 1}})

--- nn.LeakyReLU(negative_slope = 0.01)
---@param negative_slope number?
---@usage nn.LeakyReLU(0.5)(atomo.tensor {-2}):item() --> -1
local LeakyReLU = Module:extend "LeakyReLU"
function LeakyReLU:init(negative_slope)
  self.negative_slope = negative_slope or 0.01
  if type(self.negative_slope) ~= "number" then
    f.raise(("LeakyReLU: negative_slope is a %s, expected a number"):format(type(negative_slope)))
  end
end
function LeakyReLU:forward(x) return F.leaky_relu(x, self.negative_slope) end
function LeakyReLU:describe() return ("negative_slope=%g"):format(self.negative_slope) end
M.LeakyReLU = LeakyReLU

--- nn.GELU({approximate = "none" or "tanh"})
---@param opts {approximate: "none"|"tanh"|nil}?
---@usage nn.GELU()(atomo.zeros(1)):item() --> 0
local GELU = Module:extend "GELU"
function GELU:init(opts)
  opts = opts == nil and {} or opts
  window.check_options("GELU", opts, {approximate = O.one_of("none", "tanh")})
  self.approximate = opts.approximate or "none"
end
function GELU:forward(x) return F.gelu(x, self.approximate) end
function GELU:describe() return ("approximate='%s'"):format(self.approximate) end
M.GELU = GELU

--- nn.Softmax(dim = -1), nn.LogSoftmax(dim = -1): dimensions count from 1, or from the end.
local function over_dimension(name, fn)
  local class = Module:extend(name)
  function class:init(dim)
    self.dim = number.whole(dim or -1)
    if not self.dim or self.dim == 0 then
      f.raise(("%s: dim is %s, expected 1, 2, ... or -1, -2, ..."):format(name, brief(dim)))
    end
  end
  function class:forward(x) return fn(x, self.dim) end
  function class:describe() return ("dim=%d"):format(self.dim) end
  M[name] = class
end
over_dimension("Softmax", F.softmax)
over_dimension("LogSoftmax", F.log_softmax)

--- nn.Dropout(p = 0.5), nn.Dropout2d(p = 0.5): in training zero each element (each channel of each image) with
--- probability p and scale the rest by 1/(1-p).
local function dropping(name, fn)
  local class = Module:extend(name)
  function class:init(p) self.p = F.check_dropout(name, p or 0.5) end
  function class:forward(x) return fn(x, self.p, self.training) end
  function class:describe() return ("p=%g"):format(self.p) end
  M[name] = class
end
dropping("Dropout", F.dropout)
dropping("Dropout2d", F.dropout2d)

return M
