--- Matrix decompositions (LAPACKE) and Fourier transforms (FFTW) of f32 tensors. autograd/ops/linalg.lua makes of
-- them the functions of atomo, which record, and describes them.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local C, check = f.C, f.check
local wrap, out = T.wrap, T.out

local M = {}

function M.svd(a)
  local u, s, vt = out(), out(), out()
  check(C.atomo_svd(T.expect(a, "svd: a").h, u, s, vt))
  return wrap(u[0]), wrap(s[0]), wrap(vt[0])
end

function M.eigh(a)
  local w, v = out(), out()
  check(C.atomo_eigh(T.expect(a, "eigh: a").h, w, v))
  return wrap(w[0]), wrap(v[0])
end

function M.qr(a)
  local q, r = out(), out()
  check(C.atomo_qr(T.expect(a, "qr: a").h, q, r))
  return wrap(q[0]), wrap(r[0])
end

function M.rfft(t)
  local o = out()
  check(C.atomo_rfft(T.expect(t, "rfft: t").h, o))
  return wrap(o[0])
end

function M.irfft(t, n)
  local o = out()
  T.expect(t, "irfft: t")
  if n == nil and t:dim() >= 2 then n = 2 * (t:size(-2) - 1) end
  check(C.atomo_irfft(t.h, number.expect_whole(n or 0, "irfft: n"), o))
  return wrap(o[0])
end

return M
