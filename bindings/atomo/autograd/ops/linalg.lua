--- The Fourier transforms and matrix decompositions of tensor/linalg.lua for tensors that require a gradient. The
-- transforms have one; a backward that meets a decomposition raises, in place of losing its part of the gradient.
local T = require "atomo.tensor"
local linalg = require "atomo.tensor.linalg"
local autograd = require "atomo.autograd"
local raise = require("atomo.ffi").raise

local M = {}

-- ---- Fourier transforms ------------------------------------------------------------------------------------------

--- Returns g [..., k, 2] in which every frequency that has a mirror image, of a signal of n elements, is multiplied by
--- factor.
local function mirrored(g, n, factor)
  local k = g:size(-2)
  local weight = T.full({k, 1}, factor)
  weight:set(1, 1, 1)
  if n % 2 == 0 then weight:set(k, 1, 1) end
  return g * weight
end

local transform = autograd.operator {
  name = "rfft",
  forward = function(_, t) return linalg.rfft(t) end,
  backward = function(ctx, g)
    local n = ctx.inputs[1]:size(-1)
    return linalg.irfft(mirrored(g, n, 0.5), n) * n
  end,
}

local inverse = autograd.operator {
  name = "irfft",
  forward = function(_, t, n) return linalg.irfft(t, n) end,
  backward = function(_, g)
    local n = g:size(-1)
    return mirrored(linalg.rfft(g), n, 2) / n
  end,
}

local function tracked(t) return T.is_tensor(t) and T.recording() and autograd.tracked(t) end

--- Real FFT over the last dimension: [..., n] -> [..., floor(n/2)+1, 2], (re, im) pairs, unnormalised.
---@param t atomo.Tensor [..., n]
---@return atomo.Tensor [..., floor(n/2)+1, 2]
---@usage atomo.rfft(atomo.ones(8)):size(1) --> 5
function M.rfft(t) return (tracked(t) and transform or linalg.rfft)(t) end

--- Inverse of rfft: [..., floor(n/2)+1, 2] -> [..., n].
---@param n integer?  length of the signal, default 2 * (size - 1)
---@param t atomo.Tensor [..., floor(n/2)+1, 2]
---@return atomo.Tensor [..., n]
---@usage atomo.irfft(atomo.rfft(atomo.ones(6)), 6):size(1) --> 6
function M.irfft(t, n) return (tracked(t) and inverse or linalg.irfft)(t, n) end

-- ---- decompositions ----------------------------------------------------------------------------------------------

--- Makes an operator of a decomposition. A backward that meets it raises.
local function recorded(name)
  return (autograd.builtin {
    name = name,
    forward = function(_, a) return linalg[name](a) end,
    backward = function()
      raise(("%s: it has no gradient; where none is wanted, pass it t:detach()"):format(name))
    end,
  })
end

local svd, eigh, qr = recorded "svd", recorded "eigh", recorded "qr"

--- a [m,n] = u [m,k] diag(s) vt [k,n], k = min(m, n); s descending. Refuses NaN and Inf.
---@param a atomo.Tensor [m, n]
---@return atomo.Tensor u [m, k]
---@return atomo.Tensor s [k], descending
---@return atomo.Tensor vt [k, n]
---@usage local u, s, vt = atomo.svd(atomo.randn(4, 3)) assert(s:size(1) == 3 and u:size(1) == 4 and vt:size(2) == 3)
function M.svd(a) return (tracked(a) and svd or linalg.svd)(a) end

--- Symmetric a [n,n] = v diag(w) v^T; w ascending, eigenvectors in v's columns. Reads the lower triangle.
---@param a atomo.Tensor [n, n], symmetric
---@return atomo.Tensor w [n], ascending
---@return atomo.Tensor v [n, n], eigenvectors in the columns
---@usage atomo.eigh(atomo.tensor {{2, 0}, {0, 1}}):totable()[1] --> 1
function M.eigh(a) return (tracked(a) and eigh or linalg.eigh)(a) end

--- a [m,n] = q [m,k] r [k,n], k = min(m, n); q's columns orthonormal, r upper triangular.
---@param a atomo.Tensor [m, n]
---@return atomo.Tensor q [m, k]
---@return atomo.Tensor r [k, n]
---@usage atomo.qr(atomo.randn(4, 3)):size(2) --> 3
function M.qr(a) return (tracked(a) and qr or linalg.qr)(a) end

return M
