--- The backward pass: walks the nodes in reverse order of creation and hands their gradients on. All that it knows
-- while it runs is in one table, the run: an error leaves nothing behind.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local blocks = require "atomo.core.blocks"
local leaf_grad = require "atomo.autograd.gradient"
local context = require "atomo.autograd.context"
local C, raise = f.C, f.raise
local is_tensor, pack, unpack_few, methods = T.is_tensor, context.pack, context.unpack_few, context.methods

local M = {}

local running = blocks.state(nil) -- value: the innermost run

-- A gradient in flight is a tensor of the tape's own: it counts the slots that hold it (refs), and is freed when the
-- last lets go. What a user's function gives or gets is never that tensor but another one over the same storage, which
-- is then `shared`: a user may see its elements, and they are not written to. (The storage's count of references alone
-- would not do: when a user's tensor is collected is chance, and bits must not be.)

local function tape_owns(g)
  return g.refs == 1 and not g.shared and C.atomo_tensor_is_sole(g.h) == 1 and g:is_contiguous()
end

--- A gradient of the tape's own over the storage of a user's tensor.
local function from_user(t)
  local g = t:detach()
  g.shared, g.version = true, C.atomo_tensor_version(t.h)
  return g
end

--- A tensor for the user with the elements of a gradient: over its storage where nobody else has that, since the user
--- may write to it.
local function to_user(g)
  if not tape_owns(g) then return g:detach():clone() end
  g.shared = true
  return g:detach()
end

--- Raises where a user's tensor was changed after its backward had returned it.
local function check_unchanged(g)
  if g.version and C.atomo_tensor_version(g.h) ~= g.version then
    raise(("backward: a gradient %s was changed in place while it was passed on; return a :clone() of what is changed")
      :format(T.shape_text(g)))
  end
end

--- Marks what a built-in operator made of a shared gradient without a copy.
local function mark_shared(gradients, count, given, outputs)
  for k = 1, outputs do
    local gy = given[k]
    for i = 1, gy and gy.shared and count or 0 do
      local g = gradients[i]
      if g and g.h.storage == gy.h.storage then g.shared = true end
    end
  end
end

local function release(g)
  g.refs = g.refs - 1
  if g.refs == 0 then g:free() end
end

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

-- ---- leaves ------------------------------------------------------------------------------------------------------

--- Notes what the leaf's .grad was before this run, for undo(); returns it: "absent", "zero" or "sum".
local function touch(run, leaf)
  local was = run.touched[leaf]
  if not was then
    local g = leaf_grad.of(leaf, "backward")
    was = g == nil and "absent" or leaf_grad.is_zero(g) and "zero" or "sum"
    run.touched[leaf] = was
  end
  return was
end

--- A run that failed leaves every .grad as it was, but for what on_ready has had already.
local function undo(run)
  for leaf, was in pairs(run.touched) do
    if was == "absent" then
      leaf.grad = nil
    elseif was == "zero" and leaf.grad then
      leaf_grad.zero(leaf, "backward")
    end
  end
end

--- Adds g to the leaf's .grad, or makes it that.
local function add_to_leaf(leaf, g)
  local had = leaf_grad.of(leaf, "backward")
  if had then
    if leaf_grad.is_zero(had) then had:copy_(g) else leaf_grad.dense(leaf):axpy_(1, g) end
  else
    leaf.grad = T.outside_scope(T.empty, leaf:shape()):copy_(g)
  end
end

--- A sum that holds something already can't be undone: what comes to it waits for the end of the run.
local function give_leaf(run, leaf, g)
  if g == leaf.grad then return end -- written there by the operator
  g.refs = (g.refs or 0) + 1
  if touch(run, leaf) == "sum" and run.defers then
    if not tape_owns(g) then
      local copy = g:detach():clone()
      copy.refs = 1
      release(g)
      g = copy
    end
    run.deferred[#run.deferred + 1] = leaf
    run.deferred[#run.deferred + 1] = g
    return
  end
  add_to_leaf(leaf, g)
  release(g)
end

local function add_deferred(run)
  local list = run.deferred
  for i = 1, #list, 2 do
    add_to_leaf(list[i], list[i + 1])
    release(list[i + 1])
  end
end

-- ---- what a built-in operator's backward may do to gradients -----------------------------------------------------

--- The .grad buffer of argument i where it is a leaf's and known to be zero: backward may write its gradient there and
--- return it, which saves a pass. nil otherwise.
function methods.grad_out(ctx, i)
  local leaf, slot = ctx.edges[2 * i - 1], ctx.edges[2 * i]
  local g = leaf and slot == 0 and leaf_grad.of(leaf, ctx.op.name)
  if not (g and leaf_grad.is_zero(g) and g:is_contiguous()) then return nil end
  local run, storage = running.value, g.h.storage
  for k = 1, ctx.saved_count do -- what backward reads isn't what it writes
    local t = ctx.saved_tensors[k]
    if t and t.h.storage == storage then return nil end
  end
  touch(run, leaf)
  C.atomo_tensor_touch(g.h)
  return g
end

--- May backward write into gy, the gradient that it was given, and return it as a gradient of its own?
function methods.may_overwrite(_, gy) return gy.refs ~= nil and tape_owns(gy) end

--- The sum of the gradients that other uses of argument i have passed on already: backward may add its own to it, in
--- place, and return it. nil where there is none, or it may not be written to.
function methods.gradient_so_far(ctx, i)
  local from, slot = ctx.edges[2 * i - 1], ctx.edges[2 * i]
  local run = running.value
  local pending = slot ~= 0 and run.pending[from]
  local sum = pending and pending[slot]
  if not (sum and tape_owns(sum)) then return nil end
  run.added_to = sum
  return sum
end

-- ---- the pass ----------------------------------------------------------------------------------------------------

local function newer(a, b) return a.sequence > b.sequence end

--- Nodes that lead to root, newest first, and how many uses of each leaf they hold.
local function collect(root)
  local nodes, uses, met, stack, depth = {}, {}, {[root] = true}, {root}, 1
  local last, in_order = math.huge, true
  while depth > 0 do
    local node = stack[depth]
    depth = depth - 1
    nodes[#nodes + 1] = node
    in_order, last = in_order and node.sequence < last, node.sequence
    if not node.ctx then
      raise(("backward: the graph through '%s' was freed by an earlier backward; pass {retain_graph=true} to keep it")
        :format(node.op.name))
    end
    local edges = node.ctx.edges
    for i = 1, 2 * node.ctx.count, 2 do
      local from = edges[i]
      if from then
        if edges[i + 1] == 0 then
          uses[from] = (uses[from] or 0) + 1
        elseif not met[from] then
          met[from] = true
          depth = depth + 1
          stack[depth] = from
        end
      end
    end
  end
  if not in_order then table.sort(nodes, newer) end -- a chain comes in order
  return nodes, uses
end

local function check_gradient(op, i, arg, g)
  if not is_tensor(g) then
    raise(("%s: backward returned a %s for argument %d, expected a tensor"):format(op.name, type(g), i))
  end
  local fits = g.h.ndim == arg.h.ndim
  for d = 0, arg.h.ndim - 1 do fits = fits and g.h.shape[d] == arg.h.shape[d] end
  if not fits or g.h.dtype ~= C.ATOMO_F32 then
    raise(("%s: backward returned a gradient %s%s for argument %d, which is %s"):format(op.name,
      fits and g:dtype() .. " " or "", T.shape_text(g), i, T.shape_text(arg)))
  end
end

--- Raises for a gradient of an argument that there is not.
local function check_count(op, gradients, count)
  for i = count + 1, table.maxn(gradients) do
    if gradients[i] ~= nil then
      raise(("%s: backward returned a gradient for argument %d, forward took %d"):format(op.name, i, count))
    end
  end
end

--- Gradients as a user-defined operator gets them.
local function shared(pending, count)
  local list = {}
  for k = 1, count do list[k] = pending[k] and to_user(pending[k]) or nil end
  return list
end

local function gradients_of(node, pending)
  local op, ctx = node.op, node.ctx
  for k = 1, node.outputs do
    if pending[k] then check_unchanged(pending[k]) end
  end
  local given = op.trusted and pending or shared(pending, node.outputs)
  if not M.observer then return pack(op.backward(ctx, unpack_few(given, node.outputs))) end
  local start = C.atomo_time()
  local gradients = pack(op.backward(ctx, unpack_few(given, node.outputs)))
  M.observer("backward", op, ctx, C.atomo_time() - start, unpack(gradients, 1, ctx.count))
  return gradients
end

--- Passes one node backwards: hands the gradients of its inputs on.
local function pass(run, node, pending)
  local op, ctx = node.op, node.ctx
  run.added_to = nil
  local gradients = pending and gradients_of(node, pending)
  if gradients and not op.trusted then check_count(op, gradients, ctx.count) end
  if gradients and op.trusted then mark_shared(gradients, ctx.count, pending, node.outputs) end
  local added_to = run.added_to
  -- Every use of a leaf counts down, whether a gradient came or not.
  for i = 1, ctx.count do
    local from, g = ctx.edges[2 * i - 1], gradients and gradients[i]
    if from then
      if g then
        check_gradient(op, i, ctx.inputs[i], g)
        if not op.trusted then g = from_user(g) end
      end
      if ctx.edges[2 * i] == 0 then
        if g then give_leaf(run, from, g) end
        run.uses[from] = run.uses[from] - 1
        if run.uses[from] == 0 and run.on_ready then
          run.touched[from] = "ready"
          run.on_ready(from)
        end
      elseif g and g ~= added_to then
        run.pending[from] = run.pending[from] or {}
        add_into(run.pending[from], ctx.edges[2 * i], g)
      end
    elseif g and op.trusted and is_tensor(g) and not g.refs then
      g:free()
    end
  end
end

local function pass_all(run, nodes, retain_graph)
  for i = 1, #nodes do
    local node = nodes[i]
    local pending = run.pending[node]
    run.pending[node] = nil
    pass(run, node, pending)
    if pending then
      for k = 1, node.outputs do
        if pending[k] then release(pending[k]) end
      end
    end
    if not retain_graph then node.ctx = nil end
  end
  add_deferred(run)
end

--- After a run: hands what it touched on to the run around it, or undoes it.
local function finish(run, outer, saved, ok, ...)
  blocks.leave(running, saved)
  if not ok then
    undo(run)
    error((...), 0)
  end
  if outer then
    for leaf, was in pairs(run.touched) do outer.touched[leaf] = outer.touched[leaf] or was end
  end
end

--- Walks back from result `slot` of root with its gradient, one of the tape's own.
---@param opts {retain_graph: boolean?, on_ready: function?}
function M.run(root, slot, gradient, opts)
  local nodes, uses = collect(root)
  local outer = running.value
  local run = {pending = {}, uses = uses, touched = {}, deferred = {}, on_ready = opts.on_ready,
    defers = not (outer or opts.on_ready), added_to = nil}
  run.pending[root] = {}
  add_into(run.pending[root], slot, gradient)
  finish(run, outer, blocks.enter(running, run), pcall(pass_all, run, nodes, opts.retain_graph))
end

--- The same where the tensor that backward starts from is a leaf.
function M.leaf(leaf, gradient, on_ready)
  add_to_leaf(leaf, gradient)
  gradient:free()
  if on_ready then on_ready(leaf) end
end

M.from_user = from_user

return M
