--- The backward pass: visits the nodes in reverse order of creation and passes gradients to their inputs. All state of
-- one pass is in one table, the run, which an error discards.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local blocks = require "atomo.core.blocks"
local leaf_grad = require "atomo.autograd.gradient"
local context = require "atomo.autograd.context"
local packing = require "atomo.autograd.packing"
local precision = require "atomo.autograd.precision"
local pending_gradients = require "atomo.autograd.pending"
local C, raise = f.C, f.raise
local is_tensor, pack, unpack_few, methods = T.is_tensor, context.pack, context.unpack_few, context.methods
local tape_owns, release, add_into = pending_gradients.tape_owns, pending_gradients.release, pending_gradients.add_into
local from_user, to_user = pending_gradients.from_user, pending_gradients.to_user
local check_unchanged, mark_shared = pending_gradients.check_unchanged, pending_gradients.mark_shared

local M = {}

local running = blocks.state(nil) -- value: the innermost run

-- ---- leaves ------------------------------------------------------------------------------------------------------

--- Records the leaf's .grad before this run for undo(), once; returns the record: "absent", "zero" or "sum" (nonzero).
local function touch(run, leaf)
  local was = run.touched[leaf]
  if not was then
    local g = leaf_grad.of(leaf, "backward")
    was = g == nil and "absent" or leaf_grad.is_zero(g) and "zero" or "sum"
    run.touched[leaf] = was
  end
  return was
end

--- Restores every .grad after a failed run, except of leaves that were already passed to on_ready.
local function undo(run)
  for leaf, was in pairs(run.touched) do
    if was == "absent" then
      leaf.grad = nil
    elseif was == "zero" and leaf.grad then
      leaf_grad.zero(leaf, "backward")
    end
  end
end

--- Adds g to the leaf's .grad; makes a .grad if there is none.
local function add_to_leaf(leaf, g)
  local had = leaf_grad.of(leaf, "backward")
  if had then
    if leaf_grad.is_zero(had) then had:copy_(g) else leaf_grad.dense(leaf):axpy_(1, g) end
  else
    leaf_grad.set(leaf, T.outside_scope(T.empty, leaf:shape()):copy_(g))
  end
end

--- Adds g to the leaf's .grad, now or at the end of the run; not if the leaf was frozen after forward. An addition to a
--- nonzero .grad cannot be undone, so it is deferred until nothing can fail any more (not in a nested run, nor with
--- on_ready). In a coroutine, all are: while it is suspended, others may change a .grad, which undo() would overwrite.
local function give_leaf(run, leaf, g)
  if g == leaf.grad then return end -- the operator wrote into .grad (grad_out)
  g.refs = (g.refs or 0) + 1
  if not leaf.requires_grad then return release(g) end
  local later = run.defers_all
  if later then leaf_grad.of(leaf, "backward") else later = touch(run, leaf) == "sum" and run.defers end
  if later then
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

--- Returns the .grad of argument i if the argument is a leaf and its .grad is known to be zero, else nil. The
--- operator's backward may write its gradient there and return it, which saves one pass over memory.
function methods.grad_out(ctx, i)
  local leaf, slot = ctx.edges[2 * i - 1], ctx.edges[2 * i]
  local g = leaf and slot == 0 and leaf_grad.of(leaf, ctx.op.name)
  if not (g and leaf.requires_grad and leaf_grad.is_zero(g) and g:is_contiguous()) then return nil end
  local run, storage = running.value, g.h.storage
  if run.defers_all then return nil end
  for k = 1, ctx.saved_count do -- a saved tensor, which backward reads, must not share the buffer
    local t = ctx.saved_tensors[k]
    if t and t.h.storage == storage then return nil end
  end
  touch(run, leaf)
  C.atomo_tensor_touch(g.h)
  return g
end

--- May the operator's backward overwrite gy, the gradient that it received, and return it?
function methods.may_overwrite(_, gy) return gy.refs ~= nil and tape_owns(gy) end

--- Returns the sum of the gradients that other uses of argument i have passed so far; nil if there is none or it is
--- shared. The operator's backward may add its gradient in place and return the sum.
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

--- Returns the nodes that root depends on, newest first, and a table leaf -> number of its uses in them.
local function collect(root)
  local nodes, uses, met, stack, depth = {}, {}, {[root] = true}, {root}, 1
  local last, in_order = math.huge, true
  while depth > 0 do
    local node = stack[depth]
    depth = depth - 1
    nodes[#nodes + 1] = node
    in_order, last = in_order and node.sequence < last, node.sequence
    if not node.ctx then
      raise(("backward: the graph through '%s' was freed by an earlier backward, which keeps it if called as " ..
        "y:backward(nil, {retain_graph=true})")
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
  if not in_order then table.sort(nodes, newer) end -- a graph without branches is already sorted
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

--- Raises if backward returned more gradients than forward has arguments.
local function check_count(op, gradients, count)
  for i = count + 1, table.maxn(gradients) do
    if gradients[i] ~= nil then
      raise(("%s: backward returned a gradient for argument %d, forward took %d"):format(op.name, i, count))
    end
  end
end

--- Returns pending gradients as tensors for a user-defined operator.
local function shared(pending, count)
  local list = {}
  for k = 1, count do list[k] = pending[k] and to_user(pending[k]) or nil end
  return list
end

--- Calls an operator's backward. That of a user may call operators, which get the precision of its forward.
local function call_backward(op, ctx, ...)
  if op.runs_user_code then return precision.run(ctx.product_precision, op.backward, ctx, ...) end
  return op.backward(ctx, ...)
end

local function gradients_of(node, pending)
  local op, ctx = node.op, node.ctx
  for k = 1, node.outputs do
    if pending[k] then check_unchanged(pending[k]) end
  end
  local given = op.trusted and pending or shared(pending, node.outputs)
  if not M.observer then return pack(call_backward(op, ctx, unpack_few(given, node.outputs))) end
  local start = C.atomo_time()
  local gradients = pack(call_backward(op, ctx, unpack_few(given, node.outputs)))
  M.observer("backward", op, ctx, C.atomo_time() - start, unpack(gradients, 1, ctx.count))
  return gradients
end

--- Runs one node's backward and passes the gradients to the nodes and leaves of its arguments.
local function pass(run, node, pending)
  local op, ctx = node.op, node.ctx
  run.added_to = nil
  local gradients = pending and gradients_of(node, pending)
  if ctx.unpacked then packing.release(ctx, gradients) end
  if gradients and not op.trusted then check_count(op, gradients, ctx.count) end
  if gradients and op.trusted then mark_shared(gradients, ctx.count, pending, node.outputs) end
  local added_to = run.added_to
  -- A use of a leaf is counted even if backward returned no gradient for it.
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
    if not retain_graph then
      if node.ctx.packed then packing.drop(node.ctx) end
      node.ctx = nil
    end
  end
  add_deferred(run)
end

--- Ends a run: undoes it and raises if it failed. A run nested in another leaves undoing to that one.
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

--- Runs the pass from result number `slot` of node root. gradient: a pending gradient.
---@param opts {retain_graph: boolean?, on_ready: function?}
function M.run(root, slot, gradient, opts)
  local nodes, uses = collect(root)
  local outer = running.value
  local run = {pending = {}, uses = uses, touched = {}, deferred = {}, on_ready = opts.on_ready,
    defers = not (outer or opts.on_ready), defers_all = false, added_to = nil}
  run.defers_all = run.defers and coroutine.running() ~= nil
  run.pending[root] = {}
  add_into(run.pending[root], slot, gradient)
  finish(run, outer, blocks.enter(running, run), pcall(pass_all, run, nodes, opts.retain_graph))
end

--- The pass from a leaf: adds the gradient to its .grad.
function M.leaf(leaf, gradient, on_ready)
  add_to_leaf(leaf, gradient)
  gradient:free()
  if on_ready then on_ready(leaf) end
end

M.from_user = from_user

--- Returns the sequence number of the oldest node that the result of `node` depends on.
function M.oldest(node)
  local nodes = collect(node)
  return nodes[#nodes].sequence
end

return M
