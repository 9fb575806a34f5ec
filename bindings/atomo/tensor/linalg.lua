--- Matrix decompositions (LAPACKE) and Fourier transforms (FFTW) of f32 tensors. They have no gradient.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local C, check = f.C, f.check
local wrap, out = T.wrap, T.out

local M = {}

--- a [m,n] = u [m,k] diag(s) vt [k,n], k = min(m, n); s descending. Refuses NaN and Inf.
---@param a atomo.Tensor [m, n]
---@return atomo.Tensor u [m, k]
---@return atomo.Tensor s [k], descending
---@return atomo.Tensor vt [k, n]
---@usage local u, s, vt = atomo.svd(atomo.randn(4, 3)) assert(s:size(1) == 3 and u:size(1) == 4 and vt:size(2) == 3)
function M.svd(a)
  local u, s, vt = out(), out(), out()
  check(C.atomo_svd(T.expect(a, "svd: a").h, u, s, vt))
  return wrap(u[0]), wrap(s[0]), wrap(vt[0])
end

--- Symmetric a [n,n] = v diag(w) v^T; w ascending, eigenvectors in v's columns. Reads the lower triangle.
---@param a atomo.Tensor [n, n], symmetric
---@return atomo.Tensor w [n], ascending
---@return atomo.Tensor v [n, n], eigenvectors in the columns
---@usage atomo.eigh(atomo.tensor {{2, 0}, {0, 1}}):totable()[1] --> 1
function M.eigh(a)
  local w, v = out(), out()
  check(C.atomo_eigh(T.expect(a, "eigh: a").h, w, v))
  return wrap(w[0]), wrap(v[0])
end

--- a [m,n] = q [m,k] r [k,n], k = min(m, n); q's columns orthonormal, r upper triangular.
---@param a atomo.Tensor [m, n]
---@return atomo.Tensor q [m, k]
---@return atomo.Tensor r [k, n]
---@usage atomo.qr(atomo.randn(4, 3)):size(2) --> 3
function M.qr(a)
  local q, r = out(), out()
  check(C.atomo_qr(T.expect(a, "qr: a").h, q, r))
  return wrap(q[0]), wrap(r[0])
end

--- Real FFT over the last dimension: [..., n] -> [..., floor(n/2)+1, 2], (re, im) pairs, unnormalised.
---@param t atomo.Tensor [..., n]
---@return atomo.Tensor [..., floor(n/2)+1, 2]
---@usage atomo.rfft(atomo.ones(8)):size(1) --> 5
function M.rfft(t)
  local o = out()
  check(C.atomo_rfft(T.expect(t, "rfft: t").h, o))
  return wrap(o[0])
end

--- Inverse of rfft: [..., floor(n/2)+1, 2] -> [..., n].
---@param n integer?  length of the signal, default 2 * (size - 1)
---@param t atomo.Tensor [..., floor(n/2)+1, 2]
---@return atomo.Tensor [..., n]
---@usage atomo.irfft(atomo.rfft(atomo.ones(6)), 6):size(1) --> 6
function M.irfft(t, n)
  local o = out()
  T.expect(t, "irfft: t")
  if n == nil and t:dim() >= 2 then n = 2 * (t:size(-2) - 1) end
  check(C.atomo_irfft(t.h, number.expect_whole(n or 0, "irfft: n"), o))
  return wrap(o[0])
end

return M
