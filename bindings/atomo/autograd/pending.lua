--- Pending gradients of a backward pass: sums of what the uses of a result have passed so far.
--
-- A pending gradient is a tensor owned by the tape. `refs` counts the slots that hold it; it is freed at 0. A
-- user-defined operator never gets or returns this tensor, but another one over the same storage. The pending gradient
-- is then marked `shared` and never written again, because the user may still read it. (Testing the storage's reference
-- count instead would depend on when the garbage collector runs, and so would the order of rounding.)
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, raise = f.C, f.raise

--- Does the tape alone hold g and its storage, so that it may write to it?
local function tape_owns(g)
  return g.refs == 1 and not g.shared and C.atomo_tensor_is_sole(g.h) == 1 and g:is_contiguous()
end

--- Returns a pending gradient over the storage of a user's tensor.
local function from_user(t)
  local g = t:detach()
  g.shared, g.version = true, C.atomo_tensor_version(t.h)
  return g
end

--- Returns a tensor for the user from a pending gradient, without a copy if the tape alone holds the storage (the user
--- may write to it), else a copy.
local function to_user(g)
  if not tape_owns(g) then return g:detach():clone() end
  g.shared = true
  return g:detach()
end

--- Raises if a tensor that a user's backward returned was changed afterwards.
local function check_unchanged(g)
  if g.version and C.atomo_tensor_version(g.h) ~= g.version then
    raise(("backward: a gradient %s was changed in place while it was passed on; return a :clone() of what is changed")
      :format(T.shape_text(g)))
  end
end

--- Marks those gradients as shared that a built-in operator returned as views of a shared gradient.
local function mark_shared(gradients, count, given, outputs)
  for k = 1, outputs do
    local gy = given[k]
    for i = 1, gy and gy.shared and count or 0 do
      local g = gradients[i]
      if g and g.h.storage == gy.h.storage then g.shared = true end
    end
  end
end

--- Gives up one slot's hold of g.
local function release(g)
  g.refs = g.refs - 1
  if g.refs == 0 then g:free() end
end

--- Adds g to slot number `slot` of a node's pending gradients.
local function add_into(pending, slot, g)
  local had = pending[slot]
  g.refs = (g.refs or 0) + 1
  if not had then
    pending[slot] = g
    return
  end
  check_unchanged(had)
  if tape_owns(had) then
    had:axpy_(1, g)
    release(g)
  else
    local sum = had:detach():clone()
    sum.refs = 1
    sum:axpy_(1, g)
    pending[slot] = sum
    release(had)
    release(g)
  end
end

return {tape_owns = tape_owns, from_user = from_user, to_user = to_user, check_unchanged = check_unchanged,
  mark_shared = mark_shared, release = release, add_into = add_into}
