--- Making tensors: empty, zeros, ones, full, arange, rand, randn, from tables.
-- Shapes come as (3, 4) or ({3, 4}), and with a dtype: (3, 4, "i32").
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local T = require "atomo.tensor.core"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local is_tensor, wrap, out, dtypes = T.is_tensor, T.wrap, T.out, T.dtypes

local dims8 = ffi.typeof "double[8]"

--- Returns C's number of a dtype. name: one of T.dtypes, nil (f32), or {dtype = name}; anything else raises.
function T.dtype_of(name, what)
  if type(name) == "table" then
    for key in pairs(name) do
      if key ~= "dtype" then
        raise(("%s: unknown option '%s', expected dtype; atomo.param(t) makes a parameter"):format(what, brief(key)))
      end
    end
    name = name.dtype
  end
  local d = dtypes[name or "f32"]
  if not d then
    local device = type(name) == "string" and (name:find "^cuda" or name == "cpu")
    raise(("%s: unknown dtype '%s', expected f32, i32, u8, f16 or bf16%s"):format(what, brief(name),
      device and "; all tensors are in main memory" or ""))
  end
  return d
end

--- Reads (3, 4), (3, 4, "i32"), ({3, 4}) or ({3, 4}, "i32"); returns a C array of sizes, their number, C's dtype.
local function shape_of(what, ...)
  local first = ...
  local sizes, dtype, ndim
  if type(first) == "table" then
    sizes, dtype = first, select(2, ...)
    ndim = #sizes
    for i = ndim + 1, 9 do -- a gap; without table.maxn, which is not compiled
      if sizes[i] ~= nil then ndim = i end
    end
  else
    sizes, ndim = {...}, select("#", ...) -- a size that is nil counts
    if type(sizes[ndim]) == "string" then dtype, ndim = sizes[ndim], ndim - 1 end
  end
  local c = dims8()
  if ndim > 8 then raise(("%s: %d dimensions, at most 8"):format(what, ndim)) end
  for i = 1, ndim do
    local n = number.whole(sizes[i], 0)
    if not n then
      raise(("%s: size %s in dimension %d, expected a whole number >= 0"):format(what, brief(sizes[i]), i))
    end
    c[i - 1] = n
  end
  return c, ndim, T.dtype_of(dtype, what)
end

function T.create(shape, ndim, dtype)
  local o = out()
  local status = C.atomo_tensor_new(dtype, ndim, shape, o)
  if status == -4 then -- ATOMO_ENOMEM: collect unreachable tensors and try again
    collectgarbage()
    C.atomo_mem_trim()
    status = C.atomo_tensor_new(dtype, ndim, shape, o)
  end
  check(status)
  return wrap(o[0])
end

--- An uninitialised tensor: T.empty(3, 4), T.empty({3, 4}, "i32").
---@param ... integer|integer[]|string sizes, or a list of sizes; then the dtype
---@return atomo.Tensor
---@usage atomo.empty(3, 4):numel() --> 12
function T.empty(...) return T.create(shape_of("empty", ...)) end

--- Makes a tensor of zeros.
---@param ... integer|integer[]|string sizes, or a list of sizes; then the dtype
---@return atomo.Tensor
---@usage atomo.zeros(2, 3, "i32"):dtype() --> i32
function T.zeros(...) return T.create(shape_of("zeros", ...)):zero_() end
--- Makes a tensor of ones.
---@param ... integer|integer[]|string sizes, or a list of sizes; then the dtype
---@return atomo.Tensor
---@usage atomo.ones(2, 3):sum():item() --> 6
function T.ones(...) return T.create(shape_of("ones", ...)):fill_(1) end

--- Makes a tensor with one value in every element. Raises for a value that the dtype does not hold.
---@param shape number[]
---@param value number
---@param dtype string?
---@return atomo.Tensor
---@usage atomo.full({2, 2}, 0.5):sum():item() --> 2
function T.full(shape, value, dtype)
  return T.create(shape_of("full", shape, dtype)):fill_(value)
end

--- arange(n): 0, 1, ..., n-1. arange(start, stop, step): from start to below stop, as in PyTorch. Always f32.
---@param start number first number; with one argument, the end, from 0
---@param stop number? end, not included
---@param step number? default 1
---@return atomo.Tensor f32
---@usage atomo.arange(4):totable()[4] --> 3
function T.arange(start, stop, step)
  if stop == nil then start, stop = 0, start end
  if step == nil then step = 1 end
  local from, to, by = number.of(start), number.of(stop), number.of(step)
  for _, v in ipairs {from or 0 / 0, to or 0 / 0, by or 0 / 0} do
    if v - v ~= 0 then
      raise(("arange: from %s to %s by %s, expected finite numbers"):format(brief(start), brief(stop),
        brief(step)))
    end
  end
  if by == 0 then raise "arange: step is 0" end
  local n = math.max(0, math.ceil((to - from) / by))
  local t = T.empty(n)
  local p = t:data()
  for i = 0, n - 1 do p[i] = from + i * by end
  return t
end

--- Makes a tensor of uniform random numbers in [0, 1).
---@param ... integer|integer[]|string sizes, or a list of sizes
---@return atomo.Tensor f32
---@usage atomo.rand(2, 3):max():item() < 1 --> true
function T.rand(...)
  local t = T.create(shape_of("rand", ...))
  check(C.atomo_fill_uniform(t.h, 0, 1))
  return t
end

--- Makes a tensor of normal random numbers of mean 0 and standard deviation 1.
---@param ... integer|integer[]|string sizes, or a list of sizes
---@return atomo.Tensor f32
---@usage atomo.randn(2, 3):numel() --> 6
function T.randn(...)
  local t = T.create(shape_of("randn", ...))
  check(C.atomo_fill_normal(t.h, 0, 1))
  return t
end

--- Seeds every random stream of this process: rand, randn, initialisation, math.random. seed: 0 to 2^53.
---@param seed integer
---@usage atomo.manual_seed(0)
function T.manual_seed(seed)
  local n = number.whole(seed, 0)
  if not n then raise(("manual_seed: seed is %s, expected a whole number from 0 to 2^53"):format(brief(seed))) end
  C.atomo_manual_seed(n)
end

local function nested_shape(v, shape, level)
  if type(v) ~= "table" then return shape end
  shape[level] = length(v, "tensor")
  if #v > 0 then nested_shape(v[1], shape, level + 1) end
  return shape
end

local function fill_nested(v, shape, level, p, at, dtype)
  if level > #shape then
    if type(v) == "boolean" then v = v and 1 or 0 end
    p[at] = number.element(v, dtype, "tensor: element " .. at + 1)
    return at + 1
  end
  if type(v) ~= "table" or length(v, "tensor") ~= shape[level] then
    raise(("tensor: ragged table: a row of dimension %d has %s entries, the first has %d"):format(
      level, type(v) == "table" and #v or "no", shape[level]))
  end
  for i = 1, #v do at = fill_nested(v[i], shape, level + 1, p, at, dtype) end
  return at
end

--- Makes a tensor from a (nested) table of numbers, a number (a scalar), or a tensor (a copy). dtype: f32 by default.
--- atomo.tensor({{1,2},{3,4}}, "i32")
---@param value number|table|atomo.Tensor
---@param dtype "f32"|"i32"|"u8"|"f16"|"bf16"|nil
---@return atomo.Tensor
---@usage atomo.tensor({{1, 2}, {3, 4}}):get(2, 1) --> 3
function T.tensor(value, dtype)
  if is_tensor(value) then
    return value:to(T.dtype_names[T.dtype_of(dtype or value:dtype(), "tensor")], true)
  end
  if type(value) ~= "table" and not number.of(value) then
    raise(("tensor: got a %s, expected a table of numbers, a number or a tensor"):format(type(value)))
  end
  local shape = nested_shape(value, {}, 1)
  local sizes, ndim, d = shape_of("tensor", shape, dtype)
  local name = T.dtype_names[d]
  local half = name == "f16" or name == "bf16"
  local t = T.create(sizes, ndim, half and C.ATOMO_F32 or d)
  fill_nested(value, shape, 1, t:data(), 0, name)
  return half and t:to(name) or t
end

--- A tensor of the same shape and dtype, uninitialised.
---@param t atomo.Tensor
---@return atomo.Tensor
---@usage atomo.empty_like(atomo.ones(2, 3)):size(2) --> 3
function T.empty_like(t)
  if not T.is_tensor(t) then T.expect(t, "empty_like: tensor") end
  return T.create(t.h.shape, t.h.ndim, t.h.dtype)
end
--- Makes a tensor of zeros of the same shape and dtype.
---@param t atomo.Tensor
---@return atomo.Tensor
---@usage atomo.zeros_like(atomo.ones(2)):sum():item() --> 0
function T.zeros_like(t) return T.empty_like(T.expect(t, "zeros_like: tensor")):zero_() end
--- Makes a tensor of ones of the same shape and dtype.
---@param t atomo.Tensor
---@return atomo.Tensor
---@usage atomo.ones_like(atomo.zeros(2)):sum():item() --> 2
function T.ones_like(t) return T.empty_like(T.expect(t, "ones_like: tensor")):fill_(1) end
--- Makes a tensor of the same shape and dtype with one value in every element.
---@param t atomo.Tensor
---@param value number
---@return atomo.Tensor
---@usage atomo.full_like(atomo.zeros(2), 3):sum():item() --> 6
function T.full_like(t, value) return T.empty_like(T.expect(t, "full_like: tensor")):fill_(value) end
--- Makes a tensor of uniform random numbers in [0, 1) of the same shape.
---@param t atomo.Tensor
---@return atomo.Tensor f32
---@usage atomo.rand_like(atomo.zeros(2)):numel() --> 2
function T.rand_like(t) return T.rand(T.expect(t, "rand_like: tensor"):shape()) end
--- Makes a tensor of normal random numbers of mean 0 and standard deviation 1 of the same shape.
---@param t atomo.Tensor
---@return atomo.Tensor f32
---@usage atomo.randn_like(atomo.zeros(2)):numel() --> 2
function T.randn_like(t) return T.randn(T.expect(t, "randn_like: tensor"):shape()) end

return T
