--- Reverse-mode differentiation: a tape in Lua over C kernels.
-- An operator is one `func{name=, forward=, backward=}`. Calling it records a node {op, ctx, inputs} when some input
-- requires a gradient; loss:backward() walks the nodes in reverse order of creation. A gradient is freed as soon as
-- it has been passed on, and a parameter is reported ready when the last use of it has been passed (step.lua hands it
-- to the exchange then).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local leaf_grad = require "atomo.gradient"
local C, raise = f.C, f.raise
local Tensor, is_tensor = T.Tensor, T.is_tensor

local M = {}

local recording = true
local observer -- of atomo.profile, or nil
local sequence = 0 -- nodes made so far: creation order is a topological order

T.recording = function() return recording end

--- Has see(pass, op, ctx, seconds, ...) called after every forward ("forward", with its results) and backward
-- ("backward", with the gradients) of a recorded operator; nil ends it. See atomo.profile.
function M.observe(see) observer = see end

-- The hot path of a step compiles (tests/spec/autograd_speed_spec.lua): no closures made, no pairs, unpack or {...}
-- for the usual number of arguments.

--- {...} that compiles, for up to 6 values.
local function pack(...)
  if select("#", ...) > 6 then return {...} end
  local a, b, c, d, e, g = ...
  return {a, b, c, d, e, g}
end

local function unpack_few(t, n)
  if n == 1 then return t[1] end
  if n == 2 then return t[1], t[2] end
  if n == 3 then return t[1], t[2], t[3] end
  return unpack(t, 1, n)
end

local function restore(saved, ok, ...)
  recording = saved
  if not ok then error((...), 0) end
  return ...
end

local function set_recording(on, fn, ...)
  local saved = recording
  recording = on
  return restore(saved, pcall(fn, ...))
end

--- Runs fn without recording; returns what it returns.
function M.no_grad(fn, ...) return set_recording(false, fn, ...) end

--- Runs fn recording, as it is by default: inside a backward or a no_grad.
function M.enable_grad(fn, ...) return set_recording(true, fn, ...) end

--- Marks t (or a copy of a table of numbers) as a parameter: backward fills t.grad. A parameter survives scopes.
function M.param(t)
  if not is_tensor(t) then t = T.outside_scope(T.tensor, t) end
  if t.node then raise "param: the tensor is the result of an operator; use t:detach()" end
  if t:dtype() ~= "f32" then raise(("param: tensor is %s, expected f32"):format(t:dtype())) end
  t.is_parameter, t.requires_grad = true, true
  return t:keep()
end

--- Whether this leaf requires a gradient (default true). A parameter that does not is frozen: it gets no gradient and
--- no step; it stays a parameter.
---@param on boolean?
function Tensor:requires_grad_(on)
  if self.node then raise "requires_grad_: the tensor is the result of an operator; use t:detach()" end
  if on ~= false and self:dtype() ~= "f32" then
    raise(("requires_grad_: tensor is %s, expected f32"):format(self:dtype()))
  end
  self.requires_grad = on ~= false
  return self
end

-- ---- operators ---------------------------------------------------------------------------------------------------

---@class atomo.Context   what forward leaves for backward; any field may be set on it
local Context = {}
Context.__index = Context

--- Saves tensors for backward. Their versions are remembered: a change in place in between is an error.
function Context:save(...)
  local saved, count, versions = pack(...), select("#", ...), {0, 0, 0, 0}
  for i = 1, count do
    local t = saved[i]
    if t then versions[i] = C.atomo_tensor_version(t.h) end
  end
  self.saved_tensors, self.saved_versions, self.saved_count = saved, versions, count
end

function Context:saved()
  local saved, versions = self.saved_tensors, self.saved_versions
  for i = 1, self.saved_count do
    if saved[i] and C.atomo_tensor_version(saved[i].h) ~= versions[i] then
      raise(("%s: a tensor %s that it saved for backward was changed in place since"):format(
        self.op.name, T.shape_text(saved[i])))
    end
  end
  return unpack_few(saved, self.saved_count)
end

--- Does argument i need a gradient?
function Context:needs(i)
  local t = self.args[i]
  return is_tensor(t) and t.requires_grad or false
end

--- The .grad buffer of argument i where it is a parameter's that trains, and known to be zero: backward may write its
--- gradient there and return it, which saves a pass. nil otherwise.
function Context:grad_out(i)
  local t = self.args[i]
  if not t.requires_grad or t.node ~= nil then return nil end
  local g = leaf_grad.of(t, self.op.name)
  if g and leaf_grad.is_zero(g) and g:is_contiguous() then
    C.atomo_tensor_touch(g.h)
    return g
  end
end

local function any_requires_grad(...)
  for i = 1, select("#", ...) do
    local a = select(i, ...)
    if type(a) == "table" and getmetatable(a) == Tensor and a.requires_grad then return true end
  end
  return false
end

local function record(op, ctx, ...)
  sequence = sequence + 1
  local node = {op = op, ctx = ctx, sequence = sequence, outputs = select("#", ...)}
  for i = 1, select("#", ...) do
    local y = select(i, ...)
    if is_tensor(y) then
      y.requires_grad, y.node, y.slot = true, node, i
      node[i] = y.h.numel
    end
  end
  return ...
end

--- Gives every output that is one of the inputs a handle of its own, so that the graph stays acyclic.
local function fresh(args, count, y, ...)
  if is_tensor(y) then
    for i = 1, count do
      if args[i] == y then y = y:detach() end
    end
  end
  if select("#", ...) == 0 then return y end
  return y, fresh(args, count, ...)
end

local function seen(pass, ctx, start, ...)
  observer(pass, ctx.op, ctx, C.atomo_time() - start, ...)
  return ...
end

local function observed(ctx, ...)
  return seen("forward", ctx, C.atomo_time(), ctx.op.forward(ctx, ...))
end

local operators = {} -- atomo's own, in the order of loading

--- Names of atomo's own differentiable operators, one entry each (a name may come twice: add by a tensor, by a number).
---@return string[]
function M.operators()
  require "atomo.nn" -- loads the rest
  local names = {}
  for i, op in ipairs(operators) do names[i] = op.name end
  return names
end

local function operator(def)
  for _, key in ipairs {"forward", "backward"} do
    if type(def[key]) ~= "function" then raise(("func: '%s' is missing or no function"):format(key)) end
  end
  local op = {name = def.name or "func", forward = def.forward, backward = def.backward}
  return op, function(...)
    local ctx = setmetatable({op = op, args = pack(...), count = select("#", ...)}, Context)
    if not (recording and any_requires_grad(...)) then
      if not recording then return op.forward(ctx, ...) end
      return set_recording(false, op.forward, ctx, ...)
    end
    local run = observer and observed or op.forward
    return record(op, ctx, fresh(ctx.args, select("#", ...), set_recording(false, run, ctx, ...)))
  end
end

--- A differentiable operator.
-- forward(ctx, ...) computes the result(s) from tensors and plain values; nothing is recorded inside.
-- backward(ctx, gy, ...) gets the gradient of each result (nil for one that was not used) and returns one gradient per
-- argument of forward, nil for what needs none. Gradients have their argument's shape.
---@param def {name: string, forward: function, backward: function}
function M.func(def)
  local _, call = operator(def)
  return call
end

--- A func of atomo's own: one of M.operators(), all of which have a gradcheck (tests/spec/operators_spec.lua).
function M.operator(def)
  local op, call = operator(def)
  operators[#operators + 1] = op
  op.index = #operators
  return call
end

-- ---- backward ----------------------------------------------------------------------------------------------------

--- Does nothing but its one slot hold gradient g? Then it may be written to.
local function is_own(g)
  return g.refs == 1 and not g.borrowed and C.atomo_tensor_is_sole(g.h) == 1 and g:is_contiguous()
end

--- May backward write into gy, the gradient that it was given, and return it as a gradient of its own?
function Context:may_overwrite(gy) return gy.refs ~= nil and is_own(gy) end

--- The sum of the gradients that other uses of argument i have passed on already: backward may add its own to it, in
--- place, and return it. nil where there is none, or it may not be written to.
function Context:gradient_so_far(i)
  local arg = self.args[i]
  local pending = arg.node and arg.node.pending
  local sum = pending and pending[arg.slot]
  if not (sum and is_own(sum)) then return nil end
  self.added_to = sum
  return sum
end

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
    for i = 1, node.ctx.count do
      local arg = node.ctx.args[i]
      if is_tensor(arg) and arg.requires_grad then
        local from = arg.node
        if from == nil then
          uses[arg] = (uses[arg] or 0) + 1
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

-- A gradient in flight counts the slots that hold it (refs): it is freed when the last lets go, and added to in place
-- only when one slot holds it and no other tensor views its storage.
local function release(g)
  g.refs = g.refs - 1
  if g.refs == 0 and not g.borrowed then g:free() end
end

local function add_into(pending, slot, g)
  local had = pending[slot]
  g.refs = (g.refs or 0) + 1
  if not had then
    pending[slot] = g
    return
  end
  if is_own(had) then
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

--- Adds g to the leaf's .grad, or makes it that.
local function add_to_leaf(leaf, g)
  local had = leaf_grad.of(leaf, "backward")
  if g == had then return end
  if had then
    if leaf_grad.is_zero(had) then had:copy_(g) else leaf_grad.dense(leaf):axpy_(1, g) end
  else
    leaf.grad = T.outside_scope(T.empty, leaf:shape()):copy_(g)
  end
  g.refs = (g.refs or 0) + 1
  release(g)
end

local function check_gradient(op, i, arg, g)
  if not is_tensor(g) then
    raise(("%s: backward returned a %s for argument %d, expected a tensor"):format(op.name, type(g), i))
  end
  local fits = g.h.ndim == arg.h.ndim
  for d = 0, arg.h.ndim - 1 do fits = fits and g.h.shape[d] == arg.h.shape[d] end
  if not fits then
    raise(("%s: backward returned a gradient %s for argument %d, which is %s"):format(
      op.name, T.shape_text(g), i, T.shape_text(arg)))
  end
end

--- Passes one node backwards: hands the gradients of its inputs on.
local function pass(node, pending, uses, on_ready)
  local op, ctx = node.op, node.ctx
  local gradients
  if pending then
    local start = observer and C.atomo_time()
    gradients = pack(op.backward(ctx, unpack_few(pending, node.outputs)))
    if observer then seen("backward", ctx, start, unpack(gradients, 1, ctx.count)) end
  end
  -- Every use of a leaf counts down, whether a gradient came or not.
  for i = 1, ctx.count do
    local arg = ctx.args[i]
    if is_tensor(arg) and arg.requires_grad then
      local g = gradients and gradients[i]
      if g then check_gradient(op, i, arg, g) end
      local from = arg.node
      if from == nil then
        if g then add_to_leaf(arg, g) end
        uses[arg] = uses[arg] - 1
        if uses[arg] == 0 and on_ready then on_ready(arg) end
      elseif g and g ~= ctx.added_to then
        from.pending = from.pending or {}
        add_into(from.pending, arg.slot, g)
      end
    elseif gradients and is_tensor(gradients[i]) and not gradients[i].refs then
      gradients[i]:free()
    end
  end
  ctx.added_to = nil
end

local function pass_all(nodes, uses, opts)
  for i = 1, #nodes do
    local node = nodes[i]
    local pending = node.pending
    node.pending = nil
    pass(node, pending, uses, opts.on_ready)
    if pending then
      for k = 1, node.outputs do
        if pending[k] then release(pending[k]) end
      end
    end
    if not opts.retain_graph then node.ctx = nil end
  end
end

--- Fills .grad of every parameter that this tensor depends on (added to what is there).
---@param gradient atomo.Tensor?  of this tensor; may be left out for a scalar
---@param opts {retain_graph: boolean?, on_ready: (fun(leaf: atomo.Tensor))?}?  on_ready: called when the last use of a
--- parameter has been passed
function Tensor:backward(gradient, opts)
  opts = opts or {}
  if not self.requires_grad then
    raise "backward: nothing that led to this tensor requires a gradient"
  end
  if gradient == nil then
    if self.h.numel ~= 1 then
      raise(("backward: tensor %s is no scalar, pass the gradient"):format(T.shape_text(self)))
    end
    gradient = T.empty_like(self:detach()):fill_(1)
  elseif not is_tensor(gradient) or T.shape_text(gradient) ~= T.shape_text(self) then
    raise(("backward: the gradient is %s, the tensor %s"):format(
      is_tensor(gradient) and T.shape_text(gradient) or type(gradient), T.shape_text(self)))
  else
    gradient.borrowed = true
  end
  local root = self.node
  if not root then
    add_to_leaf(self, gradient)
    if opts.on_ready then opts.on_ready(self) end
    return
  end
  local nodes, uses = collect(root)
  root.pending = {}
  add_into(root.pending, self.slot, gradient)
  set_recording(false, pass_all, nodes, uses, opts)
  gradient.borrowed = nil
end

--- Sets .grad to zero (the buffer stays); nil stays nil.
function Tensor:zero_grad()
  leaf_grad.zero(self, "zero_grad")
  return self
end

return M
