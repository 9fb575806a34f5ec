--- nn.Linear: y = x weight^T + bias, and nn.Flatten before it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.functional"
local init = require "atomo.nn.initial"
local window = require "atomo.nn.window"
local Module = require("atomo.nn.module").Module
local raise = f.raise

---@class atomo.Linear: atomo.Module
---@field weight atomo.Tensor [out, in]
---@field bias atomo.Tensor?  [out]
local Linear = Module:extend "Linear"

--- nn.Linear(in, out, {bias=true}); weight and bias start uniform on +-1/sqrt(in), as PyTorch's.
function Linear:init(in_features, out_features, opts)
  opts = opts or {}
  window.check_options("Linear", opts, {bias = true})
  for name, v in pairs {in_features = in_features or false, out_features = out_features or false} do
    if type(v) ~= "number" or v % 1 ~= 0 or v < 1 then
      raise(("Linear: %s is %s, expected a whole number >= 1"):format(name, tostring(v)))
    end
  end
  self.in_features, self.out_features = in_features, out_features
  local function fill(t) init.uniform_(t, in_features) end
  self.weight = init.parameter({out_features, in_features}, fill)
  if opts.bias ~= false then self.bias = init.parameter({out_features}, fill) end
end

function Linear:forward(x) return F.linear(x, self.weight, self.bias) end

function Linear:describe()
  return ("in_features=%d, out_features=%d, bias=%s"):format(self.in_features, self.out_features,
    self.bias and "True" or "False")
end

--- [N, ...] -> [N, product of the rest]. Images flatten as (h, w, c).
local Flatten = Module:extend "Flatten"

function Flatten:forward(x)
  T.expect(x, "Flatten: input")
  if x:dim() < 2 then raise(("Flatten: input is %s, expected 2 dimensions or more"):format(T.shape_text(x))) end
  local rest = 1
  for i = 2, x:dim() do rest = rest * x:size(i) end
  return x:reshape(x:size(1), rest)
end

return {Linear = Linear, Flatten = Flatten}
