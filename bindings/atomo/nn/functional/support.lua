--- Shared by the operators of atomo.F: contiguous inputs, output slots, options of losses.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise
local wrap, out = T.wrap, T.out

local S = {}

--- Returns t if it is contiguous, else a contiguous copy; raises unless t is an f32 tensor.
function S.dense(t, what)
  if C.atomo_tensor_is_contiguous(T.expect(t, what, "f32").h) == 1 then return t end
  return t:contiguous()
end

--- Returns t's C handle, nil for nil.
function S.handle(t) return t and t.h or nil end

--- Returns an output slot for the gradient of argument i, and the parameter's .grad if the slot holds it, to be written
--- directly; S.taken(slot, grad) returns the tensor that C wrote.
function S.gradient_slot(ctx, i)
  local own, o = ctx:grad_out(i), out()
  if own then o[0] = own.h end
  return o, own
end

function S.taken(o, own) return own or wrap(o[0]) end

local FAR = 8 -- standard deviations: rounding to bf16, by 2^-9, is then 1/64 of one

--- Is a mean further from 0 than 8 standard deviations, so that x rounded to bf16 would be of no use in a norm's
--- backward? mean, invstd: f32, of the same size.
function S.is_far(mean, invstd)
  local m, s = T.pointer_types.f32(mean.h.data), T.pointer_types.f32(invstd.h.data)
  for i = 0, mean.h.numel - 1 do
    if math.abs(m[i]) * s[i] > FAR then return true end
  end
  return false
end

local constants = {}

--- Returns weight and bias [channels] of a norm; a missing one is a cached constant 1 or 0.
function S.affine(weight, bias, channels)
  if weight and bias then return weight, bias end
  local c = constants[channels]
  if not c then
    c = T.outside_scope(function() return {one = T.ones(channels):keep(), zero = T.zeros(channels):keep()} end)
    constants[channels] = c
  end
  return weight or c.one, bias or c.zero
end

--- Returns t contiguous; raises unless it is an i32 tensor (labels or indices).
function S.indices(t, what)
  T.expect(t, what, "i32")
  return t:is_contiguous() and t or t:contiguous()
end

--- Returns opts[name], a number; the default if absent.
function S.number(layer, opts, name, default)
  local v = opts[name]
  if v == nil then v = default end
  if type(v) ~= "number" or v ~= v then
    raise(("%s: %s is %s, expected a number"):format(layer, name, brief(v)))
  end
  return v
end

--- Returns opts[name], a whole number >= least; the default if absent.
function S.whole(layer, opts, name, default, least)
  local v = opts[name]
  if v == nil then return default end
  return number.expect_whole(v, layer .. ": " .. name, least or -2 ^ 31, 2 ^ 31 - 1)
end

local reductions = {mean = C.ATOMO_REDUCE_MEAN, sum = C.ATOMO_REDUCE_SUM, none = C.ATOMO_REDUCE_NONE}

--- Returns C's number of opts.reduction: "mean" (default), "sum" or "none".
function S.reduction(layer, opts)
  local r = reductions[opts.reduction or "mean"]
  if not r then raise(("%s: reduction is '%s', expected mean, sum or none"):format(layer, brief(opts.reduction))) end
  return r
end

return S
