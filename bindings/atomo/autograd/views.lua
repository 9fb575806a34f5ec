--- Views and recorded in-place changes. A view has a `base`, the tensor whose node stands for their shared elements. A
-- recorded in-place change gives the base a new node and increments its counter `rebased`. A view whose `seen` differs
-- from it is stale: it gets a new node, derived from the base's, when it is next used.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, raise = f.ffi, f.raise

local M = {}

local floats = ffi.typeof "float *"

--- Makes y a view of x. link: "view" if a view operator made y while recording, "no_grad" if nothing was recorded,
--- "operator" if a user-defined operator made it. Only "view" can be updated by refresh.
function M.link(y, x, link)
  local base = x.base
  y.base, y.seen = base or x, rawget(base or x, "rebased")
  y.link = base and x.link ~= "view" and x.link or link
  return y
end

--- Returns the layout of base and of its view y in memory (start, extent, offset in elements), from which the same view
--- of a gradient of base is made.
function M.layout(base, y)
  local b, v = base.h, y.h
  local first, last = 0, 0
  for d = 0, b.ndim - 1 do
    local reach = (b.shape[d] - 1) * b.stride[d]
    if reach > 0 then last = last + reach else first = first + reach end
  end
  return {base = base:detach(), view = y:detach(), start = -first, extent = b.numel > 0 and last - first + 1 or 0,
    offset = tonumber(ffi.cast(floats, v.data) - ffi.cast(floats, b.data))}
end

--- Has a recorded in-place change of y's base happened since y was made or last used?
function M.is_stale(y) return rawget(y.base, "rebased") ~= y.seen end

local reasons = {
  no_grad = "a view that was made under no_grad",
  operator = "a user-defined operator's result that shares memory with its argument or another result",
  param = "a parameter that is a view",
}

--- Updates the node of a stale view y by applying the operator view(base, layout). Raises if y cannot be updated.
function M.refresh(y, view)
  local why = y.requires_grad and not y.node and reasons.param or reasons[y.link]
  if why then
    raise(("%s %s: the tensor that it shows was changed in place while recording; make it again, or change a :clone()")
      :format(why, T.shape_text(y)))
  end
  local base = y.base
  if not T.is_tensor(base) then
    raise(("a view %s of a tensor that was changed in place and freed since"):format(T.shape_text(y)))
  end
  y.seen = rawget(base, "rebased")
  local again = view(base, M.layout(base, y))
  y.requires_grad, y.node, y.slot = again.requires_grad, again.node, again.slot
  again:free()
end

return M
