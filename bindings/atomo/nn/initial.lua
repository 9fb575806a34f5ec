--- nn.init: initial values, with the names and formulas of torch.nn.init. Random values come from the stream that
-- atomo.manual_seed seeds. All functions change their tensor in place, without recording, and return it.
-- Fans of a weight [out, kh, kw, in/groups] or [out, in]: fan_in = kh kw in/groups, fan_out = out kh kw.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local linalg = require "atomo.tensor.linalg"
local autograd = require "atomo.autograd"
local check_options = require("atomo.nn.functional.window").check_options
local ffi, raise = f.ffi, f.raise

local M = {}

local function number(who, name, v, default)
  if v == nil then v = default end
  if type(v) ~= "number" or v ~= v then
    raise(("init.%s: %s is %s, expected a number"):format(who, name, brief(v)))
  end
  return v
end

local function fans(who, w)
  local s = T.expect(w, ("init.%s: tensor"):format(who), "f32"):shape()
  if #s < 2 then
    raise(("init.%s: tensor is %s, which has no fan; expected 2 dimensions or more"):format(who, T.shape_text(w)))
  end
  local field = 1
  for i = 2, #s - 1 do field = field * s[i] end
  return field * s[#s], s[1] * field
end

local function fill(who, method, t, a, b)
  T.expect(t, ("init.%s: tensor"):format(who), "f32")
  return autograd.no_grad(t[method], t, a, b)
end

-- ---- plain values and distributions ------------------------------------------------------------------------------

--- Uniform in [lo, hi), default [0, 1).
---@param t atomo.Tensor
---@param lo number?
---@param hi number?
---@return atomo.Tensor t
---@usage nn.init.uniform_(atomo.zeros(4), -1, 1):numel() --> 4
function M.uniform_(t, lo, hi)
  return fill("uniform_", "uniform_", t, number("uniform_", "lo", lo, 0), number("uniform_", "hi", hi, 1))
end

--- Normal, by default with mean 0 and standard deviation 1.
---@param t atomo.Tensor
---@param mean number?
---@param std number?
---@return atomo.Tensor t
---@usage nn.init.normal_(atomo.zeros(4), 0, 0.02):numel() --> 4
function M.normal_(t, mean, std)
  return fill("normal_", "normal_", t, number("normal_", "mean", mean, 0), number("normal_", "std", std, 1))
end

--- Sets every element to a value.
---@param t atomo.Tensor
---@param value number
---@return atomo.Tensor t
---@usage nn.init.constant_(atomo.zeros(2), 3):get(1) --> 3
function M.constant_(t, value) return fill("constant_", "fill_", t, number("constant_", "value", value)) end
--- Sets every element to 0.
---@param t atomo.Tensor
---@return atomo.Tensor t
---@usage nn.init.zeros_(atomo.ones(4)):get(1) --> 0
function M.zeros_(t) return fill("zeros_", "fill_", t, 0) end
--- Sets every element to 1.
---@param t atomo.Tensor
---@return atomo.Tensor t
---@usage nn.init.ones_(atomo.zeros(4)):get(1) --> 1
function M.ones_(t) return fill("ones_", "fill_", t, 1) end

ffi.cdef "double erf(double);"
local erf = ffi.C.erf

--- Inverse of erf: Winitzki's approximation, refined by Newton's method.
local function erfinv(y)
  local a, l = 0.147, math.log(1 - y * y)
  local h = 2 / (math.pi * a) + l / 2
  local x = math.sqrt(math.max(0, math.sqrt(h * h - l / a) - h))
  if y < 0 then x = -x end
  for _ = 1, 3 do x = x - (erf(x) - y) * math.sqrt(math.pi) / 2 * math.exp(x * x) end
  return x
end

--- Normal, truncated to [lo, hi] (default -2 and 2; values, not multiples of std), by inverting the distribution
--- function. Raises unless std > 0 and the mean is within 2 std of the interval.
---@param t atomo.Tensor
---@param mean number? default 0
---@param std number? default 1
---@param lo number?
---@param hi number?
---@return atomo.Tensor t
---@usage nn.init.trunc_normal_(atomo.zeros(4)):abs():max():item() <= 2 --> true
function M.trunc_normal_(t, mean, std, lo, hi)
  local who = "trunc_normal_"
  mean, std = number(who, "mean", mean, 0), number(who, "std", std, 1)
  lo, hi = number(who, "lo", lo, -2), number(who, "hi", hi, 2)
  if not (std > 0 and lo < hi and mean >= lo - 2 * std and mean <= hi + 2 * std) then
    raise(("init.trunc_normal_: mean %g, std %g, interval [%g, %g]: expected std > 0 and a mean within 2 std of it")
      :format(mean, std, lo, hi))
  end
  local scale = std * math.sqrt(2)
  local from, to = erf((lo - mean) / scale), erf((hi - mean) / scale)
  local y = T.empty(T.expect(t, "init.trunc_normal_: tensor", "f32"):shape()):uniform_(from, to)
  local p = y:data()
  for i = 0, y:numel() - 1 do p[i] = math.min(math.max(mean + scale * erfinv(p[i]), lo), hi) end
  return autograd.no_grad(t.copy_, t, y)
end

-- ---- by the fans of a weight ----------------------------------------------------------------------------------------

local gains = {linear = 1, conv2d = 1, sigmoid = 1, tanh = 5 / 3, selu = 3 / 4, relu = math.sqrt(2)}

--- Returns the gain that preserves variance through a nonlinearity: linear, conv2d, sigmoid, tanh, selu, relu, or
--- leaky_relu with negative slope `param` (default 0.01).
---@param nonlinearity string
---@param param number?
---@return number
---@usage nn.init.calculate_gain "linear" --> 1
function M.calculate_gain(nonlinearity, param)
  if nonlinearity == "leaky_relu" then
    return math.sqrt(2 / (1 + number("calculate_gain", "param", param, 0.01) ^ 2))
  end
  return gains[nonlinearity] or raise(("init.calculate_gain: nonlinearity is '%s', expected linear, conv2d, " ..
    "sigmoid, tanh, selu, relu or leaky_relu"):format(brief(nonlinearity)))
end

--- Glorot & Bengio 2010: uniform with variance gain^2 2 / (fan_in + fan_out).
---@param w atomo.Tensor
---@param gain number?  default 1
---@return atomo.Tensor w
---@usage nn.init.xavier_uniform_(atomo.zeros(4, 3)):numel() --> 12
function M.xavier_uniform_(w, gain)
  local fan_in, fan_out = fans("xavier_uniform_", w)
  local bound = number("xavier_uniform_", "gain", gain, 1) * math.sqrt(6 / (fan_in + fan_out))
  return M.uniform_(w, -bound, bound)
end

--- As xavier_uniform_, with the normal distribution.
---@param w atomo.Tensor
---@param gain number? default 1
---@return atomo.Tensor w
---@usage nn.init.xavier_normal_(atomo.zeros(4, 3)):numel() --> 12
function M.xavier_normal_(w, gain)
  local fan_in, fan_out = fans("xavier_normal_", w)
  return M.normal_(w, 0, number("xavier_normal_", "gain", gain, 1) * math.sqrt(2 / (fan_in + fan_out)))
end

local kaiming = {a = true, mode = true, nonlinearity = true}

--- Checks opts; returns the variance gain^2 / fan.
local function kaiming_variance(who, w, opts)
  opts = opts == nil and {} or opts
  check_options("init." .. who, opts, kaiming)
  local fan_in, fan_out = fans(who, w)
  local mode = opts.mode or "fan_in"
  if mode ~= "fan_in" and mode ~= "fan_out" then
    raise(("init.%s: mode is '%s', expected fan_in or fan_out"):format(who, brief(mode)))
  end
  local fan, kind = mode == "fan_in" and fan_in or fan_out, opts.nonlinearity or "leaky_relu"
  if kind == "relu" then return 2 / fan end -- exact, unlike sqrt(2)^2 / fan
  return M.calculate_gain(kind, number(who, "a", opts.a, 0)) ^ 2 / fan
end

--- He et al. 2015: uniform with variance gain^2 / fan. PyTorch's defaults: a = 0 (the negative slope of leaky_relu),
--- mode = "fan_in", nonlinearity = "leaky_relu".
---@param w atomo.Tensor
---@param opts {a: number?, mode: "fan_in"|"fan_out"|nil, nonlinearity: string?}?
---@return atomo.Tensor w
---@usage nn.init.kaiming_uniform_(atomo.zeros(4, 3)):numel() --> 12
function M.kaiming_uniform_(w, opts)
  local bound = math.sqrt(3 * kaiming_variance("kaiming_uniform_", w, opts))
  return M.uniform_(w, -bound, bound)
end

--- As kaiming_uniform_, with the normal distribution.
---@param w atomo.Tensor
---@param opts {a: number?, mode: "fan_in"|"fan_out"|nil, nonlinearity: string?}?
---@return atomo.Tensor w
---@usage nn.init.kaiming_normal_(atomo.zeros(4, 3)):numel() --> 12
function M.kaiming_normal_(w, opts) return M.normal_(w, 0, math.sqrt(kaiming_variance("kaiming_normal_", w, opts))) end

--- Saxe et al. 2014: w as a matrix [out, rest] gets orthonormal rows, or columns if it has more rows than columns,
--- times gain (default 1).
---@param w atomo.Tensor
---@param gain number?
---@return atomo.Tensor w
---@usage nn.init.orthogonal_(atomo.zeros(3, 3)):norm():item() > 1.7 --> true
function M.orthogonal_(w, gain)
  fans("orthogonal_", w)
  gain = number("orthogonal_", "gain", gain, 1)
  if w:numel() == 0 then return w end
  local rows = w:size(1)
  local columns = w:numel() / rows
  local long, short = math.max(rows, columns), math.min(rows, columns)
  local q, r = linalg.qr(T.empty {long, short}:normal_())
  local sign = T.empty {1, short}
  for j = 1, short do sign:set(1, j, r:get(j, j) < 0 and -gain or gain) end -- with R's signs, Q is Haar-distributed
  q:mul_(sign)
  if rows < columns then q = q:t():contiguous() end
  return autograd.no_grad(w.copy_, w, q:view(w:shape()))
end

return M
