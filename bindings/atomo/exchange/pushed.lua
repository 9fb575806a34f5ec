--- Checks gradients between push and finish. The exchange reads a gradient at any time in between, and writes the
-- average into it at the end. So it must not change meanwhile, and no two may share memory: averages would depend on
-- the timing of threads.
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local M = {}

function M.new()
  local address = {}
  local function lower(a, b) return address[a] < address[b] end
  return {address = address, lower = lower, order = {}, apart = false}
end

--- Records address and version of gradient i when it is pushed. versions: table of this step's versions.
function M.note(pushed, versions, i, grad)
  local address = tonumber(f.ffi.cast("uintptr_t", grad:data()))
  versions[i] = C.atomo_tensor_version(grad.h)
  if pushed.address[i] ~= address then pushed.address[i], pushed.apart = address, false end
end

local function label(names, i) return names and names[i] and ("%d (%s)"):format(i, names[i]) or tostring(i) end

--- Raises if two gradients share memory: sorted by address, each must end before the next one begins.
local function check_apart(pushed, grads, names)
  local order, address = pushed.order, pushed.address
  for k = #order, 1, -1 do order[k] = nil end
  for i = 1, #grads do
    if grads[i]:numel() > 0 then order[#order + 1] = i end
  end
  table.sort(order, pushed.lower)
  for k = 2, #order do
    local a, b = order[k - 1], order[k]
    if address[a] + 4 * grads[a]:numel() > address[b] then
      raise(("exchange: gradients %s and %s share memory; push a :clone() of one"):format(
        label(names, math.min(a, b)), label(names, math.max(a, b))))
    end
  end
  pushed.apart = true
end

--- Raises for gradients that were changed since their push, and for those that share memory.
---@param versions number[]
---@param grads atomo.Tensor[]
---@param names string[]|false
function M.check(pushed, versions, grads, names)
  for i = 1, #grads do
    if C.atomo_tensor_version(grads[i].h) ~= versions[i] then
      raise(("exchange: gradient %s was changed in place after push; change it before push, or after finish"):format(
        label(names, i)))
    end
  end
  if not pushed.apart then check_apart(pushed, grads, names) end
end

return M
