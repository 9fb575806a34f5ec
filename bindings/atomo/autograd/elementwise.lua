--- atomo.elementwise: compiles a user-defined elementwise expression to one vectorised pass, and derives its gradient.
--   local hard_swish = atomo.elementwise("hard_swish", function(x) return x * (x + 3):clamp(0, 6) / 6 end)
-- The function is called once, with symbols in place of tensors; the expression that it returns becomes a program for
-- atomo_fused. Equal subexpressions are one node. The gradient with respect to each input is a second program.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local brief = require "atomo.core.brief"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local Symbol = {}

-- method name -> operation code of C
local unaries, binaries = {}, {}
for name in ("neg abs exp log sqrt square reciprocal sign floor ceil round trunc tanh sigmoid relu sin " ..
  "cos"):gmatch "%S+" do
  unaries[name] = C["ATOMO_" .. name:upper()]
end
for name in ("add sub mul div pow remainder maximum minimum eq ne lt le gt ge"):gmatch "%S+" do
  binaries[name] = C["ATOMO_" .. name:upper()]
end

-- ---- the expression ----------------------------------------------------------------------------------------------

local function is_symbol(v) return getmetatable(v) == Symbol end

--- Returns the node of an operation on a and b, always the same one for the same operands. op: an operation's name,
--- "input" (a: its number) or "constant" (a: its value).
local function node(graph, op, a, b)
  local key = ("%s %s %s"):format(op, is_symbol(a) and "n" .. a.id or ("%.17g"):format(a or 0),
    b and "n" .. b.id or "")
  local found = graph[key]
  if not found then
    graph.count = graph.count + 1
    found = setmetatable({graph = graph, op = op, a = a, b = b or false, id = graph.count, only_right = false}, Symbol)
    graph[key] = found
  end
  return found
end

local function constant(graph, v) return node(graph, "constant", v) end

--- Converts v, a number or a symbol, to a symbol of the graph. what: its name in error texts.
local function symbol(graph, v, what)
  if type(v) == "number" then return constant(graph, v) end
  if not is_symbol(v) then raise(("elementwise: %s is a %s, expected an input or a number"):format(what, type(v))) end
  return v
end

--- Returns the operands of node s.
local function operands(s)
  if s.b then return {s.a, s.b} end
  return {is_symbol(s.a) and s.a or nil}
end

local function is_number(s, v) return s.op == "constant" and s.a == v end

local function combine(op, a, b)
  local graph = is_symbol(a) and a.graph or b.graph
  a, b = symbol(graph, a, op .. ": operand 1"), symbol(graph, b, op .. ": operand 2")
  if op == "mul" and (is_number(a, 1) or is_number(b, 1)) then return is_number(a, 1) and b or a end
  if (op == "add" or op == "mul") and a.op == "constant" then a, b = b, a end -- a right constant needs no register
  return node(graph, op, a, b)
end

local methods = {}
for op in pairs(unaries) do
  methods[op] = function(x) return node(x.graph, op, x) end
end
for op in pairs(binaries) do
  methods[op] = function(x, y) return combine(op, x, y) end
end
-- Internal operations for gradients and clamp. where / unless: g if the condition is true / false, else 0;
-- quotient: floor(a / b). at_least, at_most: maximum, minimum whose gradient goes to the first operand if both are
-- equal.
binaries.where, binaries.unless, binaries.quotient = C.ATOMO_WHERE, C.ATOMO_UNLESS, C.ATOMO_QUOTIENT
binaries.at_least, binaries.at_most = C.ATOMO_MAXIMUM, C.ATOMO_MINIMUM
local function where(g, condition) return combine("where", g, condition) end
local function unless(g, condition) return combine("unless", g, condition) end

function methods.clamp(x, lo, hi)
  if lo then x = combine("at_least", x, lo) end
  return hi and combine("at_most", x, hi) or x
end

function Symbol.__index(_, name)
  return methods[name] or raise(("elementwise: '%s' is no elementwise operation"):format(brief(name)))
end
for event, op in pairs {__add = "add", __sub = "sub", __mul = "mul", __div = "div", __pow = "pow",
  __mod = "remainder"} do
  Symbol[event] = function(a, b) return combine(op, a, b) end
end
function Symbol.__unm(x) return node(x.graph, "neg", x) end

-- ---- its gradient ------------------------------------------------------------------------------------------------

--- Returns g, halved where a equals b.
local function shared(g, a, b) return g * (1 - a:eq(b) * 0.5) end

-- op -> function(g, a, b, y) that returns the gradients of operands a and b of node y, whose gradient is g. The
-- formulas are those of the tensor operators (ops/*.lua), with the same values at 0, NaN and equal operands.
local slopes = {
  neg = function(g) return -g end,
  abs = function(g, x) return g * x:sign() end,
  exp = function(g, _, _, y) return g * y end,
  log = function(g, x) return g / x end,
  sqrt = function(g, _, _, y) return g / y * 0.5 end,
  square = function(g, x) return g * x * 2 end,
  reciprocal = function(g, _, _, y) return -(g * y * y) end,
  tanh = function(g, _, _, y) return g * (1 - y * y) end,
  sigmoid = function(g, _, _, y) return g * y * (1 - y) end,
  relu = function(g, x) return unless(g, x:le(0)) end,
  sin = function(g, x) return g * x:cos() end,
  cos = function(g, x) return -(g * x:sin()) end,
  add = function(g) return g, g end,
  sub = function(g) return g, -g end,
  mul = function(g, a, b) return g * b, g * a end,
  div = function(g, a, b) return g / b, -(g * (a / b / b)) end,
  pow = function(g, a, b, y)
    if b.op == "constant" then return b.a == 0 and b or g * b.a * a ^ (b.a - 1) end
    return unless(g * b * a ^ (b - 1), b:eq(0)), unless(g * y * a:log(), a:eq(0) * b:ge(0))
  end,
  remainder = function(g, a, b) return g, -(g * combine("quotient", a, b)) end,
  maximum = function(g, a, b) return unless(shared(g, a, b), a:lt(b)), unless(shared(g, a, b), b:lt(a)) end,
  minimum = function(g, a, b) return unless(shared(g, a, b), a:gt(b)), unless(shared(g, a, b), b:gt(a)) end,
  at_least = function(g, a, b) return where(g, a:ge(b)), where(g, a:lt(b)) end,
  at_most = function(g, a, b) return where(g, a:le(b)), where(g, a:gt(b)) end,
} -- operations not listed (comparisons, sign, floor, ceil, round, trunc) have gradient 0

--- Returns the expression for the gradient with respect to input k. seed: the symbol of root's gradient.
local function gradient(graph, root, seed, k)
  local nodes, sums = {}, {[root] = seed}
  for _, s in pairs(graph) do
    if is_symbol(s) and s.id <= root.id then nodes[s.id] = s end
  end
  local result
  for id = root.id, 1, -1 do -- a node's id is larger than those of its operands
    local y = nodes[id]
    local g = y and sums[y]
    if g and y.op == "input" and y.a == k then result = g end
    local slope = g and slopes[y.op]
    if slope then
      local both = {slope(g, y.a, y.b, y)}
      for i, operand in ipairs(operands(y)) do
        if operand.op ~= "constant" then
          sums[operand] = sums[operand] and sums[operand] + both[i] or both[i]
        end
      end
    end
  end
  return result or constant(graph, 0)
end

-- ---- the program -------------------------------------------------------------------------------------------------

--- Returns the nodes that root depends on in order of evaluation, and per operand the index of the last node using it.
local function schedule(root)
  local wanted, order, last = {}, {}, {}
  local function visit(s)
    if wanted[s] or s.op == "input" then return end
    wanted[s] = true
    for _, operand in ipairs(operands(s)) do visit(operand) end
    order[#order + 1] = s
  end
  visit(root)
  for i, s in ipairs(order) do
    for _, operand in ipairs(operands(s)) do last[operand] = i end
  end
  return order, last
end

--- Compiles root to a program of atomo_fused: {step =, count =, registers =}.
local function compile(name, root, inputs)
  if root.op == "input" then root = node(root.graph, "mul", root, constant(root.graph, 1)) end
  local order, last = schedule(root)
  local steps, places, free, registers, count = ffi.new("atomo_step[?]", #order), {}, {}, 0, 0
  local function place(s) return s.op == "input" and -s.a or places[s] end
  local function allocate()
    if #free > 0 then return table.remove(free) end
    registers = registers + 1
    return registers - 1
  end
  for i, s in ipairs(order) do
    -- A constant that is only used as a right operand needs no register; any other is stored in one when first used.
    local direct = s.b and s.b.op == "constant"
    if s.op ~= "constant" or s == root or not s.only_right then
      local step = steps[count]
      count = count + 1
      step.a, step.b = -1, -1
      if s.op == "constant" then
        step.kind, step.value = C.ATOMO_STEP_FILL, s.a
      elseif unaries[s.op] then
        step.kind, step.op, step.a = C.ATOMO_STEP_UNARY, unaries[s.op], place(s.a)
      elseif direct then
        step.kind, step.op, step.a, step.value = C.ATOMO_STEP_SCALAR, binaries[s.op], place(s.a), s.b.a
      else
        step.kind, step.op, step.a, step.b = C.ATOMO_STEP_BINARY, binaries[s.op], place(s.a), place(s.b)
      end
      places[s] = allocate()
      step.to = places[s]
    end
    for operand, at in pairs(last) do
      if at == i and places[operand] then
        free[#free + 1] = places[operand]
        places[operand] = nil
      end
    end
  end
  if count > 256 or registers > 64 then
    raise(("elementwise: %s takes %d steps and %d intermediate results, at most 256 and 64"):format(name, count,
      registers))
  end
  return {step = steps, count = count, registers = math.max(registers, 1), inputs = inputs}
end

--- Sets only_right on constants that are used as right operands only.
local function mark(root)
  local order = schedule(root)
  for _, s in ipairs(order) do s.only_right = s.op == "constant" end
  for _, s in ipairs(order) do
    if is_symbol(s.a) then s.a.only_right = false end
  end
end

local handles = ffi.typeof("const atomo_tensor *[?]")

local function run(program, tensors)
  local list, o = handles(program.inputs), T.out()
  for i = 1, program.inputs do list[i - 1] = tensors[i].h end
  check(C.atomo_fused(program.step, program.count, program.registers, list, program.inputs, o))
  return T.wrap(o[0])
end

--- Makes a differentiable operator on f32 tensors of equal shape from fn's expression: one vectorised, threaded pass.
--- fn may use + - * / ^ %, unary minus, and the tensor methods abs exp log sqrt square reciprocal sign floor ceil round
--- trunc tanh sigmoid relu sin cos pow clamp maximum minimum remainder eq ne lt le gt ge. Raises for any other method.
---@param name string
---@param fn fun(x: any, ...): any
---@return fun(...: atomo.Tensor): atomo.Tensor
---@usage local swish = atomo.elementwise("swish_ref", function(x) return x * x:sigmoid() end) swish(atomo.ones(3))
local function elementwise(name, fn)
  if type(name) ~= "string" then raise(("elementwise: name is a %s, expected a string"):format(type(name))) end
  if type(fn) ~= "function" then raise(("elementwise: %s: got a %s, expected a function"):format(name, type(fn))) end
  local inputs = debug.getinfo(fn, "u").nparams
  if inputs < 1 or inputs > C.ATOMO_FUSED_INPUTS - 1 then
    raise(("elementwise: %s takes %d arguments, expected 1 to %d"):format(name, inputs, C.ATOMO_FUSED_INPUTS - 1))
  end
  local graph, args = {count = 0}, {}
  for i = 1, inputs + 1 do args[i] = node(graph, "input", i) end -- the last: the gradient
  local root = symbol(graph, fn(unpack(args, 1, inputs)), name .. "'s result")
  mark(root)
  local forward, backward = compile(name, root, inputs), {}
  local function slope(k)
    if not backward[k] then
      local g = gradient(graph, root, args[inputs + 1], k)
      mark(g)
      backward[k] = compile(name, g, inputs + 1)
    end
    return backward[k]
  end
  return (autograd.builtin {
    name = name,
    forward = function(ctx, ...)
      local tensors = {...}
      for i = 1, inputs do
        tensors[i] = T.expect(tensors[i], ("%s: argument %d"):format(name, i), "f32"):contiguous()
      end
      ctx:save(unpack(tensors, 1, inputs))
      return run(forward, tensors)
    end,
    backward = function(ctx, gy)
      local tensors, gradients = {ctx:saved()}, {}
      tensors[inputs + 1] = gy:contiguous()
      for k = 1, inputs do gradients[k] = ctx:needs(k) and run(slope(k), tensors) or nil end
      return unpack(gradients, 1, inputs)
    end,
  })
end

return {elementwise = elementwise}
