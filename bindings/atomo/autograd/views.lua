--- Views and in-place changes that are recorded. A view knows its base, the tensor that owns the graph of their shared
-- elements. A recorded change in place gives the base a new node; its views find out by `rebased`, a counter, and take
-- a node of their own from the base's when they are next used.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, raise = f.ffi, f.raise

local M = {}

local floats = ffi.typeof "float *"

--- Says that y shows elements of x. link: "view" where the tape knows how, "no_grad" where nothing was recorded,
--- "operator" where a user-defined operator made it.
function M.link(y, x, link)
  local base = x.base
  y.base, y.seen = base or x, rawget(base or x, "rebased")
  y.link = base and x.link ~= "view" and x.link or link
  return y
end

--- Where y's elements lie in base's: what a view of a gradient of base is made from.
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

--- Has the base of view y been changed in place, recorded, since y was made or last used?
function M.is_stale(y) return rawget(y.base, "rebased") ~= y.seen end

local reasons = {
  no_grad = "a view that was made under no_grad",
  operator = "a user-defined operator's result that shares its argument's memory",
  param = "a parameter that is a view",
}

--- Gives a stale view the node that it has now: that of what it shows of its base. view(base, layout) is the operator.
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
