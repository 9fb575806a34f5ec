--- Making tensors of regular numbers: linspace, eye, randperm.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local T = require "atomo.tensor.core"
require "atomo.tensor.make"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise

--- Returns v, a finite number that fits f32; raises otherwise.
local function finite(v, what)
  local n = number.element(v, "f32", what)
  if n - n ~= 0 then raise(("%s is %s, expected a finite number"):format(what, brief(v))) end
  return n
end

--- Returns `steps` numbers evenly from start to stop, both included; f32.
---@param start number
---@param stop number
---@param steps integer  at least 0; with 1, the number is start
---@return atomo.Tensor
---@usage atomo.linspace(0, 1, 5):get(2) --> 0.25
function T.linspace(start, stop, steps)
  start, stop = finite(start, "linspace: start"), finite(stop, "linspace: stop")
  local n = number.expect_whole(steps, "linspace: steps", 0)
  local t = T.empty(n)
  local p, by = t:data(), n > 1 and (stop - start) / (n - 1) or 0
  for i = 0, n - 1 do -- each half from its own end, so that both ends are exact
    p[i] = i < n / 2 and start + i * by or stop - (n - 1 - i) * by
  end
  return t
end

--- Returns the matrix [n, m] with 1 on its diagonal and 0 elsewhere: eye(3), eye(3, 4), eye(3, "i32").
---@param n integer
---@param m integer|string|nil  columns, default n
---@param dtype string?         "f32" (default), "i32" or "u8"
---@return atomo.Tensor
---@usage atomo.eye(3):sum():item() --> 3
function T.eye(n, m, dtype)
  if type(m) == "string" or type(m) == "table" then m, dtype = nil, m end
  n = number.expect_whole(n, "eye: rows", 0)
  m = m == nil and n or number.expect_whole(m, "eye: columns", 0)
  local t = T.zeros({n, m}, T.dtype_names[T.dtype_of(dtype, "eye")])
  local p = t:data()
  for i = 0, math.min(n, m) - 1 do p[i * m + i] = 1 end
  return t
end

--- Returns the numbers from 1 to n in a random order, i32: indices for index_select. Draws from math.random's stream,
--- which atomo.manual_seed restarts.
---@param n integer
---@return atomo.Tensor
---@usage atomo.randperm(5):float():sum():item() --> 15
function T.randperm(n)
  n = number.expect_whole(n, "randperm: n", 0)
  if n >= 2 ^ 31 then raise(("randperm: n is %d, at most 2^31 - 1 (i32)"):format(n)) end
  local t = T.empty(n, "i32")
  local p = t:data()
  for i = 0, n - 1 do
    local j = math.floor(C.atomo_random_double() * (i + 1)) -- the new number goes to place j, the one there to the end
    p[i] = p[j]
    p[j] = i + 1
  end
  return t
end

return T
