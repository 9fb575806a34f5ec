--- Reverse-mode differentiation: a tape in Lua over C kernels.
-- An operator is one `func{name=, forward=, backward=}`. Calling it records a node {op, ctx} if some input requires a
-- gradient; loss:backward() visits the nodes in reverse order of creation. A gradient is freed as soon as it has been
-- passed on. A parameter's gradient is ready when backward has passed its last use; step.lua then pushes it to the
-- exchange.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local blocks = require "atomo.core.blocks"
local expect_function = require "atomo.core.callable"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local context = require "atomo.autograd.context"
local packing = require "atomo.autograd.packing"
local precision = require "atomo.autograd.precision"
local views = require "atomo.autograd.views"
local backward = require "atomo.autograd.backward"
local leaf_grad = require "atomo.autograd.gradient"
local C, raise = f.C, f.raise
local Tensor, is_tensor = T.Tensor, T.is_tensor

local M = {}

local recording = blocks.state(true)
local sequence = 0 -- number of nodes made so far; creation order is a topological order

T.recording = function() return recording.value end

--- Sets a function that is called after each forward and backward of a recorded operator; nil removes it. It is called
-- as see("forward", op, ctx, seconds, results...) and see("backward", op, ctx, seconds, gradients...). For
-- atomo.profile.
function M.observe(see) backward.observer = see end

-- The JIT compiles recording and backward (tests/spec/autograd/autograd_speed_spec.lua): they create no closures and
-- use no pairs, unpack or {...} for the usual number of arguments.

--- Returns the number of nodes recorded so far; later nodes have a higher sequence number.
function M.nodes_made() return sequence end

--- Runs fn(...) without recording; returns its results.
---@param fn function
---@param ... any its arguments
---@return any fn's results
---@usage atomo.no_grad(function() return atomo.param({1}) * 2 end).requires_grad --> nil
function M.no_grad(fn, ...)
  expect_function("no_grad", fn)
  return blocks.run(recording, false, fn, ...)
end

--- Runs fn(...) with recording, which is on by default and off inside no_grad and backward; returns its results.
---@param fn function
---@param ... any its arguments
---@return any fn's results
---@usage atomo.enable_grad(function() return 7 end) --> 7
function M.enable_grad(fn, ...)
  expect_function("enable_grad", fn)
  return blocks.run(recording, true, fn, ...)
end

--- Makes t a parameter and returns it: backward fills t.grad. A table of numbers becomes a new tensor. A parameter is
--- not freed at the end of an atomo.scope. Raises unless t is f32 and no operator's result.
---@param t atomo.Tensor|number[]
---@return atomo.Tensor
---@usage local w = atomo.param(atomo.zeros(3)) w:sum():backward()
function M.param(t)
  if not is_tensor(t) then t = T.outside_scope(T.tensor, t) end
  if t.node then raise "param: the tensor is the result of an operator; use t:detach()" end
  if t:dtype() ~= "f32" then raise(("param: tensor is %s, expected f32"):format(t:dtype())) end
  t.is_parameter, t.requires_grad, t.base = true, true, nil
  return t:keep()
end

--- Sets whether this leaf requires a gradient (default true). With false a parameter is frozen: it stays a parameter,
--- but backward and the optimizer skip it.
---@param on boolean?
---@return atomo.Tensor self
---@usage atomo.param({1}):requires_grad_(false).requires_grad --> false
function Tensor:requires_grad_(on)
  T.self_handle(self)
  if on ~= nil and type(on) ~= "boolean" then
    raise(("requires_grad_: %s, expected true or false"):format(number.text(on)))
  end
  if self.node then raise "requires_grad_: the tensor is the result of an operator; use t:detach()" end
  if on ~= false and self:dtype() ~= "f32" then
    raise(("requires_grad_: tensor is %s, expected f32"):format(self:dtype()))
  end
  self.requires_grad = on ~= false
  if self.requires_grad then self.base = nil end
  return self
end

-- ---- operators ---------------------------------------------------------------------------------------------------

local function refresh(t) return M.enable_grad(views.refresh, t, M.view_of) end

--- Does t need a gradient? First updates the node of a view whose base was changed in place.
function M.tracked(t)
  if t.base and views.is_stale(t) then T.outside_scope(refresh, t) end
  return t.requires_grad
end
local tracked = M.tracked
T.tracked = tracked

local function any_tracked(...)
  local any = false
  for i = 1, select("#", ...) do
    local a = select(i, ...)
    if type(a) == "table" and getmetatable(a) == Tensor and tracked(a) then any = true end
  end
  return any
end

--- Returns the edges of a call: see context.new.
local function edges_of(inputs, count)
  local edges = {false, 0, false, 0, false, 0}
  for i = 1, count do
    local a = inputs[i]
    if type(a) == "table" and getmetatable(a) == Tensor and a.requires_grad then
      edges[2 * i - 1], edges[2 * i] = a.node or a, a.node and a.slot or 0
    else
      edges[2 * i - 1], edges[2 * i] = false, 0
    end
  end
  return edges
end

local function record(op, ctx, ...)
  sequence = sequence + 1
  local node = {op = op, ctx = ctx, sequence = sequence, outputs = select("#", ...)}
  for i = 1, select("#", ...) do
    local y = select(i, ...)
    if is_tensor(y) and y.h.dtype == C.ATOMO_F32 then y.requires_grad, y.node, y.slot = true, node, i end
  end
  return ...
end

local function seen(ctx, start, ...)
  backward.observer("forward", ctx.op, ctx, C.atomo_time() - start, ...)
  return ...
end

local function observed(ctx, ...) return seen(ctx, C.atomo_time(), ctx.op.forward(ctx, ...)) end

--- Raises for a result of a user's forward that is a table with a tensor: it would lose the tensor's gradient.
local function refuse_table(ctx, y)
  for _, item in pairs(y) do
    if is_tensor(item) then
      raise(("%s: forward returned a table of tensors, which get no gradient: return them one by one"):format(
        ctx.op.name))
    end
  end
end

--- Replaces the results of a user's forward by new tensors over the same storage; those that share an argument's
--- storage, or an earlier result's, are linked to it as views. earlier: list of results, nil if there is one.
local function own_results(ctx, earlier, y, ...)
  if type(y) == "table" and not (ctx.op.trusted or getmetatable(y)) then refuse_table(ctx, y) end
  if is_tensor(y) then
    local own = y:detach()
    for i = 1, ctx.count do
      local arg = ctx.inputs[i]
      if is_tensor(arg) and arg.h.storage == own.h.storage then views.link(own, arg, "operator") end
    end
    for i = 1, earlier and #earlier or 0 do
      if not own.base and earlier[i].h.storage == own.h.storage then views.link(own, earlier[i], "operator") end
    end
    if earlier then earlier[#earlier + 1] = own end
    y = own
  end
  if select("#", ...) == 0 then return y end
  return y, own_results(ctx, earlier, ...)
end

--- Returns the results of a user's forward; raises if it changed an argument that requires a gradient.
local function after_user(ctx, before, ...)
  for i = 1, ctx.count do
    if before[i] and C.atomo_tensor_version(ctx.inputs[i].h) ~= before[i] then
      raise(("%s: forward changed argument %d %s in place, which requires a gradient; change a :clone() of it")
        :format(ctx.op.name, i, T.shape_text(ctx.inputs[i])))
    end
  end
  if not ctx.op.trusted then ctx:close() end
  return own_results(ctx, select("#", ...) > 1 and {} or nil, ...)
end

local function forward_of_user(ctx, ...)
  local before = {}
  for i = 1, ctx.count do before[i] = ctx:needs(i) and C.atomo_tensor_version(ctx.inputs[i].h) end
  return after_user(ctx, before, (backward.observer and observed or ctx.op.forward)(ctx, ...))
end

--- Links result y of a view operator to its base x, unless the operator had to copy.
local function linked(x, link, y)
  if y.h.storage == x.h.storage then views.link(y, x, link) end
  return y
end

--- Packs what a built-in operator saved, if activations are kept in bf16; returns its results.
local function packed(ctx, ...)
  if precision.keeps_packed() then packing.pack(ctx, ...) end
  return ...
end

--- Is a tensor that requires a gradient in this plain table, at any depth?
local function holds_tracked(list, met)
  met[list] = true
  for _, item in pairs(list) do
    if is_tensor(item) then
      if tracked(item) then return true end
    elseif type(item) == "table" and not getmetatable(item) and not met[item] and holds_tracked(item, met) then
      return true
    end
  end
  return false
end

--- Raises if an argument of a user-defined operator is a table with tensors that require a gradient: they would get
--- none.
local function refuse_tracked_tables(op, ...)
  for i = 1, select("#", ...) do
    local a = select(i, ...)
    if type(a) == "table" and not getmetatable(a) and holds_tracked(a, {}) then
      raise(("%s: argument %d is a table with a tensor that requires a gradient, which would get none: pass tensors " ..
        "as arguments of their own, or a :detach()"):format(op.name, i))
    end
  end
end

local function call(op, ...)
  local ctx, on = context.new(op, ...), recording.value
  if on and not op.trusted then refuse_tracked_tables(op, ...) end
  if not (on and any_tracked(...)) then
    if op.is_view then return linked((...), on and "view" or "no_grad", op.forward(ctx, ...)) end
    if not on then return op.forward(ctx, ...) end
    return M.no_grad(op.forward, ctx, ...)
  end
  ctx.edges = edges_of(ctx.inputs, ctx.count)
  if op.runs_user_code then return record(op, ctx, M.no_grad(forward_of_user, ctx, ...)) end
  local run = backward.observer and observed or op.forward
  if op.is_view then return packed(ctx, linked((...), "view", record(op, ctx, M.no_grad(run, ctx, ...)))) end
  return packed(ctx, record(op, ctx, M.no_grad(run, ctx, ...)))
end

local function operator(def, trusted)
  for _, key in ipairs {"forward", "backward"} do
    if type(def[key]) ~= "function" then raise(("func: '%s' is missing or no function"):format(key)) end
  end
  local op = {name = def.name or "func", forward = def.forward, backward = def.backward, is_view = def.is_view,
    reads_packed = def.reads_packed, is_exact = def.is_exact, trusted = trusted,
    runs_user_code = not trusted or def.runs_user_code}
  op.has_products = op.runs_user_code or precision.operators[op.name] ~= nil
  return op, function(...) return call(op, ...) end
end

--- Makes a differentiable operator, a function of forward's arguments.
-- forward(ctx, ...) computes the result(s) from tensors and plain values; nothing is recorded inside.
-- backward(ctx, gy, ...) gets the gradient of each result (nil if the result was not used) and returns one gradient per
-- argument of forward, each in its argument's shape, or nil if the argument needs none. Tensors in a table, as argument
-- or result, would get no gradient, and are refused. Keep what backward needs by
-- ctx:save(...) or in fields of ctx; if it is changed in place before backward, backward raises.
---@param def {name: string, forward: function, backward: function}
---@return fun(...: any): any the operator
---@usage local double = atomo.func {name = "double", forward = function(_, x) return x * 2 end, backward =
---@usage function(_, g) return g * 2 end} double(atomo.ones(2))
function M.func(def)
  O.check("func", def, {name = true, forward = true, backward = true})
  local _, result = operator(def, false)
  return result
end

--- Makes a built-in operator. It must keep tensors by ctx:save() only, and its backward must return tensors that it
--- made or received. def.is_view: forward returns a view of its first argument. def.runs_user_code: forward calls a
--- user's function and returns its results. def.reads_packed: {[k] = true} if backward passes the k-th saved tensor on
--- to kernels only that also read it packed (autograd/packing.lua): then it may be u8, of twice the last size.
--- def.is_exact(k, saved): must the k-th of the saved tensors stay f32 in bf16?
function M.builtin(def)
  local op, result = operator(def, true)
  return result, op
end

local operators = {} -- built-in operators in the order of loading

--- Makes a built-in operator and lists it in M.operators(); each has a gradcheck in
--- tests/spec/autograd/operators_spec.lua.
function M.operator(def)
  local result, op = M.builtin(def)
  operators[#operators + 1] = op
  op.index = #operators
  return result
end

--- Names of the built-in operators that are loaded. A name may occur twice: add of a tensor, add of a number.
---@return string[]
function M.operators()
  local names = {}
  for i, op in ipairs(operators) do names[i] = op.name end
  return names
end

-- ---- backward ----------------------------------------------------------------------------------------------------

--- Returns the pending gradient that backward starts from.
local function gradient_of(t, gradient)
  if gradient == nil then
    if t.h.numel ~= 1 then
      raise(("backward: tensor %s is no scalar: reduce it with :sum() or :mean(), or pass its gradient"):format(
        T.shape_text(t)))
    end
    return T.empty_like(t):fill_(1)
  end
  if type(gradient) == "table" and not is_tensor(gradient) then
    raise "backward: the gradient is a table; options come second: y:backward(nil, {retain_graph = true})"
  end
  if not is_tensor(gradient) or T.shape_text(gradient) ~= T.shape_text(t) or gradient:dtype() ~= "f32" then
    raise(("backward: the gradient is %s, the tensor %s"):format(
      is_tensor(gradient) and gradient:dtype() .. " " .. T.shape_text(gradient) or type(gradient), T.shape_text(t)))
  end
  return backward.from_user(gradient)
end

local backward_options = {on_ready = true, retain_graph = O.flag}

--- Adds this tensor's gradients to the .grad of every parameter that it depends on. If backward raises, every .grad is
--- restored, except of parameters that on_ready was called for.
---@param gradient atomo.Tensor?  of this tensor, in its shape; default 1 for a tensor with one element
---@param opts {retain_graph: boolean?, on_ready: (fun(leaf: atomo.Tensor))?}?  on_ready is called with a parameter as
--- soon as its .grad is complete; retain_graph allows a second backward through the same graph
---@usage local w = atomo.param {2, 3} w:square():sum():backward() assert(w.grad:get(1) == 4)
function Tensor:backward(gradient, opts)
  T.self_handle(self)
  opts = opts == nil and {} or opts
  O.check("backward", opts, backward_options)
  if opts.on_ready ~= nil then expect_function("backward: on_ready", opts.on_ready) end
  if not tracked(self) then
    raise("backward: nothing that led to this tensor requires a gradient; make what is trained by " ..
      "atomo.param(t), and compute outside of atomo.no_grad")
  end
  gradient = gradient_of(self, gradient)
  if self.node then
    M.no_grad(backward.run, self.node, self.slot, gradient, opts)
  else
    M.no_grad(backward.leaf, self, gradient, opts.on_ready)
  end
end

--- Sets .grad to zero (the buffer stays); nil stays nil.
---@usage local w = atomo.param {1} w:sum():backward() w:zero_grad()
function Tensor:zero_grad()
  T.self_handle(self)
  leaf_grad.zero(self, "zero_grad")
  return self
end

return M
