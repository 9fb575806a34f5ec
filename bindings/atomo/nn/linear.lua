--- nn.Linear and nn.Flatten.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local F = require "atomo.nn.functional"
local number = require "atomo.core.number"
local count = require("atomo.nn.functional.check").count
local O = require "atomo.tensor.check_options"
local parameter = require "atomo.nn.parameter"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module
local raise = f.raise

---@class atomo.Linear: atomo.Module
---@field weight atomo.Tensor [out, in]
---@field bias atomo.Tensor?  [out]
local Linear = Module:extend "Linear"

--- nn.Linear(in, out, {bias=true}): y [..., out] = x [..., in] weight^T + bias. Initial weight and bias are uniform in
--- +-1/sqrt(in), as in PyTorch.
---@param in_features integer
---@param out_features integer
---@param opts {bias: boolean?}?
---@usage nn.Linear(3, 4)(atomo.ones(2, 3)):size(2) --> 4
function Linear:init(in_features, out_features, opts)
  opts = opts == nil and {} or opts
  window.check_options("Linear", opts, {bias = O.flag})
  in_features = count("Linear", "in_features", in_features)
  out_features = count("Linear", "out_features", out_features)
  self.in_features, self.out_features = in_features, out_features
  local fill = parameter.uniform(in_features)
  self.weight = parameter.new({out_features, in_features}, fill)
  if opts.bias ~= false then self.bias = parameter.new({out_features}, fill) end
end

function Linear:forward(x) return F.linear(x, self.weight, self.bias) end

function Linear:describe()
  return ("in_features=%d, out_features=%d, bias=%s"):format(self.in_features, self.out_features,
    self.bias and "True" or "False")
end

--- nn.Flatten(start_dim = 2, end_dim = -1): joins these dimensions (1-based, negative from the end) to one: [N, ...] ->
--- [N, product of the others]. Images [N,H,W,C] flatten in the order h, w, c.
---@param start_dim integer? default 2
---@param end_dim integer? default -1
---@usage nn.Flatten()(x):size(2) --> 192
local Flatten = Module:extend "Flatten"

function Flatten:init(start_dim, end_dim)
  self.start_dim, self.end_dim = start_dim or 2, end_dim or -1
  for _, name in ipairs {"start_dim", "end_dim"} do
    local d = number.whole(self[name])
    if not d or d == 0 then
      raise(("Flatten: %s is %s, expected 1, 2, ... or -1, -2, ..."):format(name, brief(self[name])))
    end
    self[name] = d
  end
end

function Flatten:forward(x)
  local n = T.expect(x, "Flatten: input"):dim()
  local first = self.start_dim < 0 and n + 1 + self.start_dim or self.start_dim
  local last = self.end_dim < 0 and n + 1 + self.end_dim or self.end_dim
  if first < 1 or last > n or first > last then
    raise(("Flatten: input is %s, it has no dimensions %d to %d"):format(T.shape_text(x), self.start_dim, self.end_dim))
  end
  local sizes, joined = {}, 1
  for i = 1, n do
    if i >= first and i <= last then joined = joined * x:size(i) end
    if i < first or i > last then sizes[#sizes + 1] = x:size(i) elseif i == last then sizes[#sizes + 1] = joined end
  end
  return x:reshape(sizes)
end

function Flatten:describe() return ("start_dim=%d, end_dim=%d"):format(self.start_dim, self.end_dim) end

return {Linear = Linear, Flatten = Flatten}
