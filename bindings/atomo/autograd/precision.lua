--- The precision of matrix products: "fp32", or "bf16", which rounds their operands to bf16. Sums, results, gradients
-- and weights are f32 in both. An operator's backward uses the precision of its forward (ctx.product_precision).
local f = require "atomo.ffi"
local blocks = require "atomo.core.blocks"
local expect_function = require "atomo.core.callable"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise

local M = {}

--- The operators whose operands bf16 rounds, with these operands: the table of docs/guide.md. All other operators, such
--- as norms, softmax, losses, reductions and element-wise ones, compute in fp32.
M.operators = {
  attention = "query, key, value, probabilities and their gradients; the softmax is fp32",
  conv2d = "input, weight and the gradient of the result; the bias, groups and Winograd's convolutions are fp32",
  conv_transpose2d = "as conv2d",
  gru = "state, recurrent weight and the gradient of the gates; the gates are fp32",
  linear = "input, weight and the gradient of the result; the bias is fp32",
  linear_cross_entropy = "input, weight and the gradient of the logits; softmax and loss are fp32",
  lstm = "state, recurrent weight and the gradient of the gates; the gates and the cell state are fp32",
  matmul = "both operands and the gradient of the result",
}

local codes = {fp32 = C.ATOMO_PRECISION_FP32, f32 = C.ATOMO_PRECISION_FP32, bf16 = C.ATOMO_PRECISION_BF16}
local names = {[C.ATOMO_PRECISION_FP32] = "fp32", [C.ATOMO_PRECISION_BF16] = "bf16"}

local default = C.ATOMO_PRECISION_FP32 -- outside all blocks
local packs = false                    -- activations are kept in bf16
local inside = blocks.state(nil)       -- value: that of the innermost block; nil: there is none

--- Returns C's number of a precision; raises if it has no such name.
---@param what string  in the error: "set_precision"
---@param name any
---@return integer
function M.code(what, name)
  local code = type(name) == "string" and codes[name]
  if not code then raise(("%s: %s, expected 'fp32' or 'bf16'"):format(what, number.text(name))) end
  return code
end

--- Returns C's number of the precision that holds now.
---@return integer
function M.current() return inside.value or default end

--- Runs fn(...) with the precision of a number; returns fn's results.
---@param code integer
---@param fn function
function M.run(code, fn, ...) return blocks.run(inside, code, fn, ...) end

--- Returns a function that runs fn in fp32, for a user's code whose products must be exact.
function M.in_fp32(fn)
  return function(...) return M.run(C.ATOMO_PRECISION_FP32, fn, ...) end
end

--- Sets the precision of matrix products: "fp32" (default), or "bf16", which rounds their operands (docs/guide.md has
--- the table of operators). Inside atomo.autocast the precision of that call holds until it returns.
---@param name "fp32"|"bf16"
---@usage atomo.set_precision "fp32"
function M.set_precision(name) default = M.code("set_precision", name) end

--- Sets what layers keep for their backward where the precision is bf16: "fp32" (default), or "bf16", which takes about
--- half the memory and some time (docs/guide.md).
---@param name "fp32"|"bf16"
---@usage atomo.set_activations "fp32"
function M.set_activations(name)
  packs = M.code("set_activations", name) == C.ATOMO_PRECISION_BF16
  C.atomo_mem_compact(packs and 1 or 0)
end

--- Returns what set_activations has set.
---@return "fp32"|"bf16"
---@usage atomo.activations() --> fp32
function M.activations() return packs and "bf16" or "fp32" end

--- Are activations kept in bf16 now?
---@return boolean
function M.keeps_packed() return packs and M.current() == C.ATOMO_PRECISION_BF16 end

--- Returns the name of a number of a precision.
---@param code integer
---@return "fp32"|"bf16"
function M.name(code) return names[code] end

--- Returns the precision of matrix products that holds now.
---@return "fp32"|"bf16"
---@usage atomo.precision() --> fp32
function M.precision() return names[M.current()] end

--- Runs fn(...) with matrix products in bf16, or in another precision, named first; returns fn's results. The precision
--- before is restored, also when fn raises. The backward of what fn computes has the same precision, wherever it runs.
---@param precision function|"fp32"|"bf16"  or fn
---@param ... any  fn if a precision was given, and fn's arguments
---@return any fn's results
---@usage atomo.autocast(atomo.precision) --> bf16
function M.autocast(precision, ...)
  if type(precision) ~= "string" then
    expect_function("autocast", precision)
    return M.run(C.ATOMO_PRECISION_BF16, precision, ...)
  end
  expect_function("autocast", (...))
  return M.run(M.code("autocast", precision), ...)
end

--- Says how this machine multiplies in bf16: "bf16 by AMX", or that it is, or may be, slow.
---@return string text
---@return boolean fast
function M.describe()
  local unit = f.ffi.string(C.atomo_build_info "bf16")
  if unit == "AMX" then return "bf16 by AMX", true end
  if unit ~= "by conversion" then
    return ("bf16 by %s, which may be slower than fp32: bench_nn.lua --precision both measures it"):format(unit), false
  end
  local has_onednn = f.ffi.string(C.atomo_build_info "onednn") ~= "none"
  return ("bf16 by conversion: %s, so it is no faster than fp32"):format(
    has_onednn and "this CPU does not multiply bf16" or "this build has no oneDNN"), false
end

return M
