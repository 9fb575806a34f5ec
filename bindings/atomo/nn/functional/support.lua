--- What the operators of atomo.F share: contiguous inputs, output slots, options of losses.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise
local wrap, out = T.wrap, T.out

local S = {}

--- t, or a contiguous copy of it; raises unless it is an f32 tensor.
function S.dense(t, what)
  if C.atomo_tensor_is_contiguous(T.expect(t, what, "f32").h) == 1 then return t end
  return t:contiguous()
end

--- The C handle of t, nil for nil.
function S.handle(t) return t and t.h or nil end

--- An output slot for the gradient of argument i: the parameter's own .grad buffer where that may be written to.
function S.gradient_slot(ctx, i)
  local own, o = ctx:grad_out(i), out()
  if own then o[0] = own.h end
  return o, own
end

function S.taken(o, own) return own or wrap(o[0]) end

local constants = {}

--- weight and bias [channels] of a norm; where one is missing, a constant 1 or 0 that costs nothing to make again.
function S.affine(weight, bias, channels)
  if weight and bias then return weight, bias end
  local c = constants[channels]
  if not c then
    c = T.outside_scope(function() return {one = T.ones(channels):keep(), zero = T.zeros(channels):keep()} end)
    constants[channels] = c
  end
  return weight or c.one, bias or c.zero
end

--- Contiguous i32 labels or indices.
function S.indices(t, what)
  T.expect(t, what, "i32")
  return t:is_contiguous() and t or t:contiguous()
end

--- A number of opts, its default where it is absent.
function S.number(layer, opts, name, default)
  local v = opts[name]
  if v == nil then v = default end
  if type(v) ~= "number" or v ~= v then
    raise(("%s: %s is %s, expected a number"):format(layer, name, tostring(v)))
  end
  return v
end

--- A whole number of opts, its default where it is absent.
function S.whole(layer, opts, name, default, least)
  local v = opts[name]
  if v == nil then return default end
  return number.expect_whole(v, layer .. ": " .. name, least or -2 ^ 31, 2 ^ 31 - 1)
end

local reductions = {mean = C.ATOMO_REDUCE_MEAN, sum = C.ATOMO_REDUCE_SUM, none = C.ATOMO_REDUCE_NONE}

--- "mean" (the default), "sum" or "none" as C's number.
function S.reduction(layer, opts)
  local r = reductions[opts.reduction or "mean"]
  if not r then raise(("%s: reduction is '%s', expected mean, sum or none"):format(layer, tostring(opts.reduction))) end
  return r
end

return S
