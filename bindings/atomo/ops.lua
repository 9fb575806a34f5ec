--- The differentiable operators of tensors: arithmetic, elementwise functions, reductions, views, products.
-- Each is one autograd.func; broadcasting's backward sums back to the operand's shape.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local Tensor, wrap, out, is_tensor, dimension = T.Tensor, T.wrap, T.out, T.is_tensor, T.dimension
local func = autograd.func

local M = {}

local function unary(op, a)
  local o = out()
  check(C.atomo_unary(op, a.h, o))
  return wrap(o[0])
end

local function binary(op, a, b)
  local o = out()
  check(C.atomo_binary(op, a.h, b.h, o))
  return wrap(o[0])
end

local function scalar(op, a, s, reverse)
  local o = out()
  check(C.atomo_scalar(op, a.h, s, reverse and 1 or 0, o))
  return wrap(o[0])
end

--- g summed over what broadcasting had repeated; g itself where shapes agree.
local function sum_to(g, like)
  local same = g.h.ndim == like.h.ndim
  for d = 0, like.h.ndim - 1 do same = same and g.h.shape[d] == like.h.shape[d] end
  if same then return g end
  local o = out()
  check(C.atomo_sum_to(g.h, like.h, o))
  return wrap(o[0])
end

--- a * b summed to like's shape; the product is freed.
local function mul_to(a, b, like)
  local p = binary(C.ATOMO_MUL, a, b)
  local s = sum_to(p, like)
  if s ~= p then p:free() end
  return s
end

-- ---- arithmetic with broadcasting --------------------------------------------------------------------------------

local tensor_add = func {
  name = "add",
  forward = function(ctx, a, b) return binary(C.ATOMO_ADD, a, b) end,
  backward = function(ctx, g)
    local a, b = unpack(ctx.args)
    return ctx:needs(1) and sum_to(g, a) or nil, ctx:needs(2) and sum_to(g, b) or nil
  end,
}

local tensor_sub = func {
  name = "sub",
  forward = function(ctx, a, b) return binary(C.ATOMO_SUB, a, b) end,
  backward = function(ctx, g)
    local a, b = unpack(ctx.args)
    local gb = ctx:needs(2) and scalar(C.ATOMO_MUL, sum_to(g, b), -1) or nil
    return ctx:needs(1) and sum_to(g, a) or nil, gb
  end,
}

local tensor_mul = func {
  name = "mul",
  forward = function(ctx, a, b)
    ctx:save(a, b)
    return binary(C.ATOMO_MUL, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    return ctx:needs(1) and mul_to(g, b, a) or nil, ctx:needs(2) and mul_to(g, a, b) or nil
  end,
}

local tensor_div = func {
  name = "div",
  forward = function(ctx, a, b)
    ctx:save(a, b)
    return binary(C.ATOMO_DIV, a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local ga = binary(C.ATOMO_DIV, g, b)
    local gb
    if ctx:needs(2) then -- -g a / b^2
      local q = binary(C.ATOMO_DIV, binary(C.ATOMO_MUL, ga, a), b)
      gb = sum_to(scalar(C.ATOMO_MUL, q, -1), b)
    end
    return ctx:needs(1) and sum_to(ga, a) or nil, gb
  end,
}

--- Elementwise larger (or smaller): where equal, each gets half, as in PyTorch.
local function extremum(name, op, wins)
  return func {
    name = name,
    forward = function(ctx, a, b)
      ctx:save(a, b)
      return binary(op, a, b)
    end,
    backward = function(ctx, g)
      local a, b = ctx:saved()
      local half = scalar(C.ATOMO_MUL, binary(C.ATOMO_EQ, a, b), 0.5)
      local share_a = binary(C.ATOMO_ADD, binary(wins, a, b), half)
      local share_b = scalar(C.ATOMO_SUB, share_a, 1, true)
      return ctx:needs(1) and mul_to(g, share_a, a) or nil, ctx:needs(2) and mul_to(g, share_b, b) or nil
    end,
  }
end
local tensor_max = extremum("maximum", C.ATOMO_MAXIMUM, C.ATOMO_GT)
local tensor_min = extremum("minimum", C.ATOMO_MINIMUM, C.ATOMO_LT)

--- op(a, s) or op(s, a) with a number s; slope(ctx, g, a, s, reverse) gives the gradient.
local function scalar_op(name, op, slope)
  return func {
    name = name,
    forward = function(ctx, a, s, reverse)
      ctx:save(a)
      return scalar(op, a, s, reverse)
    end,
    backward = function(ctx, g)
      local a = ctx:saved()
      return slope(g, a, ctx.args[2], ctx.args[3])
    end,
  }
end
local scalar_add = scalar_op("add", C.ATOMO_ADD, function(g) return g end)
local scalar_sub = scalar_op("sub", C.ATOMO_SUB, function(g, _, _, reverse)
  return reverse and scalar(C.ATOMO_MUL, g, -1) or g
end)
local scalar_mul = scalar_op("mul", C.ATOMO_MUL, function(g, _, s) return scalar(C.ATOMO_MUL, g, s) end)
local scalar_div = scalar_op("div", C.ATOMO_DIV, function(g, a, s, reverse)
  if not reverse then return scalar(C.ATOMO_DIV, g, s) end
  return scalar(C.ATOMO_MUL, binary(C.ATOMO_DIV, g, binary(C.ATOMO_MUL, a, a)), -s) -- s / a
end)
local scalar_pow = scalar_op("pow", C.ATOMO_POW, function(g, a, s, reverse)
  if reverse then -- s^a
    return scalar(C.ATOMO_MUL, binary(C.ATOMO_MUL, g, scalar(C.ATOMO_POW, a, s, true)), math.log(s))
  end
  return binary(C.ATOMO_MUL, g, scalar(C.ATOMO_MUL, scalar(C.ATOMO_POW, a, s - 1), s))
end)
local scalar_max = scalar_op("maximum", C.ATOMO_MAXIMUM, function(g, a, s)
  return binary(C.ATOMO_MUL, g, scalar(C.ATOMO_GT, a, s))
end)
local scalar_min = scalar_op("minimum", C.ATOMO_MINIMUM, function(g, a, s)
  return binary(C.ATOMO_MUL, g, scalar(C.ATOMO_LT, a, s))
end)

local function arithmetic(name, with_tensor, with_scalar)
  return function(a, b)
    if is_tensor(a) then
      if is_tensor(b) then return with_tensor(a, b) end
      if type(b) == "number" then return with_scalar(a, b, false) end
    elseif type(a) == "number" and is_tensor(b) then
      return with_scalar(b, a, true)
    end
    raise(("%s: %s and %s, expected tensors or numbers"):format(name, type(a), type(b)))
  end
end
Tensor.__add = arithmetic("add", tensor_add, scalar_add)
Tensor.__sub = arithmetic("sub", tensor_sub, scalar_sub)
Tensor.__mul = arithmetic("mul", tensor_mul, scalar_mul)
Tensor.__div = arithmetic("div", tensor_div, scalar_div)
Tensor.__pow = arithmetic("pow", function(a, b) return (b * a:log()):exp() end, scalar_pow)
Tensor.__unm = function(a) return scalar_mul(a, -1, false) end
Tensor.add, Tensor.sub, Tensor.mul, Tensor.div = Tensor.__add, Tensor.__sub, Tensor.__mul, Tensor.__div
Tensor.pow, Tensor.neg = Tensor.__pow, Tensor.__unm
Tensor.maximum = arithmetic("maximum", tensor_max, scalar_max)
Tensor.minimum = arithmetic("minimum", tensor_min, scalar_min)

for name, op in pairs {eq = C.ATOMO_EQ, ne = C.ATOMO_NE, lt = C.ATOMO_LT, le = C.ATOMO_LE, gt = C.ATOMO_GT,
  ge = C.ATOMO_GE} do
  --- Comparison: f32 0 or 1.
  Tensor[name] = function(a, b)
    if type(b) == "number" then return scalar(op, a, b) end
    return binary(op, a, T.expect(b, name .. ": operand"))
  end
end

-- ---- elementwise functions ---------------------------------------------------------------------------------------

--- slope(g, x, y) gives the gradient from the input x and the result y.
local function elementwise(name, op, slope)
  Tensor[name] = func {
    name = name,
    forward = function(ctx, x)
      T.expect(x, name .. ": tensor")
      local y = unary(op, x)
      ctx:save(x)
      ctx.y = y.h ~= nil and y:detach() or nil -- an alias: keeping y itself would make a cycle
      return y
    end,
    backward = function(ctx, g)
      local x = ctx:saved()
      return slope(g, x, ctx.y)
    end,
  }
end
local function times(g, s) return binary(C.ATOMO_MUL, g, s) end
elementwise("exp", C.ATOMO_EXP, function(g, _, y) return times(g, y) end)
elementwise("log", C.ATOMO_LOG, function(g, x) return binary(C.ATOMO_DIV, g, x) end)
elementwise("sqrt", C.ATOMO_SQRT, function(g, _, y) return scalar(C.ATOMO_MUL, binary(C.ATOMO_DIV, g, y), 0.5) end)
elementwise("abs", C.ATOMO_ABS, function(g, x) return times(g, unary(C.ATOMO_SIGN, x)) end)
elementwise("square", C.ATOMO_SQUARE, function(g, x) return scalar(C.ATOMO_MUL, times(g, x), 2) end)
elementwise("reciprocal", C.ATOMO_RECIPROCAL, function(g, _, y)
  return scalar(C.ATOMO_MUL, times(times(g, y), y), -1)
end)
elementwise("sin", C.ATOMO_SIN, function(g, x) return times(g, unary(C.ATOMO_COS, x)) end)
elementwise("cos", C.ATOMO_COS, function(g, x) return scalar(C.ATOMO_MUL, times(g, unary(C.ATOMO_SIN, x)), -1) end)
elementwise("tanh", C.ATOMO_TANH, function(g, _, y)
  return times(g, scalar(C.ATOMO_SUB, times(y, y), 1, true))
end)
elementwise("sigmoid", C.ATOMO_SIGMOID, function(g, _, y)
  return times(times(g, y), scalar(C.ATOMO_SUB, y, 1, true))
end)
elementwise("relu", C.ATOMO_RELU, function(g, _, y) return times(g, scalar(C.ATOMO_GT, y, 0)) end)
elementwise("sign", C.ATOMO_SIGN, function(g) return scalar(C.ATOMO_MUL, g, 0) end)
elementwise("floor", C.ATOMO_FLOOR, function(g) return scalar(C.ATOMO_MUL, g, 0) end)

Tensor.clamp = func {
  name = "clamp",
  forward = function(ctx, x, lo, hi)
    local o = out()
    check(C.atomo_clamp(x.h, lo or -math.huge, hi or math.huge, o))
    ctx:save(x)
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local x = ctx:saved()
    local lo, hi = ctx.args[2] or -math.huge, ctx.args[3] or math.huge
    return times(times(g, scalar(C.ATOMO_GE, x, lo)), scalar(C.ATOMO_LE, x, hi))
  end,
}

-- In-place forms of the elementwise functions: t:exp_() and so on.
for name, op in pairs {exp_ = C.ATOMO_EXP, log_ = C.ATOMO_LOG, sqrt_ = C.ATOMO_SQRT, abs_ = C.ATOMO_ABS,
  neg_ = C.ATOMO_NEG, relu_ = C.ATOMO_RELU, tanh_ = C.ATOMO_TANH, sigmoid_ = C.ATOMO_SIGMOID} do
  Tensor[name] = function(self)
    T.changing(self, name)
    local y = unary(op, self)
    check(C.atomo_copy(self.h, y.h))
    y:free()
    return self
  end
end

function Tensor:clamp_(lo, hi)
  T.changing(self, "clamp_")
  local o = out()
  check(C.atomo_clamp(self.h, lo or -math.huge, hi or math.huge, o))
  local y = wrap(o[0])
  check(C.atomo_copy(self.h, y.h))
  y:free()
  return self
end

-- ---- views -------------------------------------------------------------------------------------------------------

local dims8 = ffi.typeof "double[8]"

local function make_view(t, shape, stride, offset, n)
  local o = out()
  check(C.atomo_tensor_view(t.h, n, shape, stride, offset, o))
  return wrap(o[0])
end

--- Sizes from (2, 3), ({2, 3}); one -1 is worked out.
local function sizes_for(t, what, ...)
  local sizes = type((...)) == "table" and {unpack((...))} or {...}
  local known, unknown = 1, nil
  for i, n in ipairs(sizes) do
    if type(n) ~= "number" or n % 1 ~= 0 or n < -1 then
      raise(("%s: size %s in dimension %d, expected a whole number, or -1 once"):format(what, tostring(n), i))
    end
    if n == -1 then
      if unknown then raise(what .. ": more than one -1") end
      unknown = i
    else
      known = known * n
    end
  end
  if unknown and known > 0 then sizes[unknown] = t.h.numel / known end
  local total = 1
  for _, n in ipairs(sizes) do total = total * n end
  if total ~= t.h.numel or (unknown and sizes[unknown] % 1 ~= 0) then
    raise(("%s: %s has %d elements, it cannot be seen as %s"):format(what, T.shape_text(t), t.h.numel,
      T.shape_text(type((...)) == "table" and (...) or {...})))
  end
  return sizes
end

local function view_as(t, sizes)
  local shape, stride, s = dims8(), dims8(), 1
  for i = #sizes, 1, -1 do
    shape[i - 1], stride[i - 1] = sizes[i], s
    s = s * sizes[i]
  end
  return make_view(t, shape, stride, 0, #sizes)
end

local reshape = func {
  name = "view",
  forward = function(ctx, t, sizes) return view_as(t, sizes) end,
  backward = function(ctx, g)
    return view_as(g:is_contiguous() and g or g:contiguous(), ctx.args[1]:shape())
  end,
}

--- The same elements with other sizes, without a copy (the tensor must be contiguous).
function Tensor:view(...)
  local sizes = sizes_for(self, "view", ...)
  if not self:is_contiguous() then
    raise(("view: tensor %s is not contiguous, use :reshape()"):format(T.shape_text(self)))
  end
  return reshape(self, sizes)
end

--- As view, copying where it must.
function Tensor:reshape(...)
  local sizes = sizes_for(self, "reshape", ...)
  return reshape(self:contiguous(), sizes)
end

function Tensor:flatten() return self:reshape(-1) end

Tensor.clone = func {
  name = "clone",
  forward = function(ctx, t)
    local c = T.empty_like(t)
    check(C.atomo_copy(c.h, t.h))
    return c
  end,
  backward = function(ctx, g) return g end,
}

--- Itself where it is contiguous already, else a copy that is.
function Tensor:contiguous()
  if self:is_contiguous() then return self end
  return self:clone()
end

local permute = func {
  name = "permute",
  forward = function(ctx, t, order)
    local h, shape, stride = t.h, dims8(), dims8()
    for i = 1, #order do
      shape[i - 1], stride[i - 1] = h.shape[order[i]], h.stride[order[i]]
    end
    return make_view(t, shape, stride, 0, #order)
  end,
  backward = function(ctx, g)
    local inverse, h, shape, stride = {}, g.h, dims8(), dims8()
    for i, d in ipairs(ctx.args[2]) do inverse[d + 1] = i - 1 end
    for i = 1, #inverse do
      shape[i - 1], stride[i - 1] = h.shape[inverse[i]], h.stride[inverse[i]]
    end
    return make_view(g, shape, stride, 0, #inverse)
  end,
}

--- Dimensions in a new order: t:permute(1, 4, 2, 3).
function Tensor:permute(...)
  local order, seen = {...}, {}
  if #order ~= self.h.ndim then
    raise(("permute: %d dimensions named, the tensor has %d"):format(#order, self.h.ndim))
  end
  for i, d in ipairs(order) do
    order[i] = dimension(self, d, "permute")
    if seen[order[i]] then raise(("permute: dimension %d named twice"):format(d)) end
    seen[order[i]] = true
  end
  return permute(self, order)
end

function Tensor:transpose(i, j)
  if i == nil and self.h.ndim == 2 then i, j = 1, 2 end
  local a, b = dimension(self, i, "transpose"), dimension(self, j, "transpose")
  local order = {}
  for d = 0, self.h.ndim - 1 do order[d + 1] = d == a and b or d == b and a or d end
  return permute(self, order)
end
function Tensor:t()
  if self.h.ndim ~= 2 then raise(("t: tensor %s is no matrix"):format(T.shape_text(self))) end
  return self:transpose(1, 2)
end

local function narrow_view(t, d, start, length, drop)
  local h, shape, stride, n = t.h, dims8(), dims8(), 0
  for i = 0, h.ndim - 1 do
    if not (drop and i == d) then
      shape[n], stride[n] = i == d and length or h.shape[i], h.stride[i]
      n = n + 1
    end
  end
  return make_view(t, shape, stride, start * h.stride[d], n)
end

local narrow = func {
  name = "narrow",
  forward = function(ctx, t, d, start, length, drop) return narrow_view(t, d, start, length, drop) end,
  backward = function(ctx, g)
    local t, d, start, length, drop = unpack(ctx.args, 1, 5)
    local gt = T.zeros_like(t)
    local part = narrow_view(gt, d, start, length, drop)
    part:copy_(g)
    part:free()
    return gt
  end,
}

--- A view of length elements of dimension dim from start (1-based).
function Tensor:narrow(dim, start, length)
  local d = dimension(self, dim, "narrow")
  local size = self.h.shape[d]
  if type(start) ~= "number" or type(length) ~= "number" or start % 1 ~= 0 or length % 1 ~= 0 or start < 1 or
    length < 0 or start + length - 1 > size then
    raise(("narrow: start %s, length %s of dimension %d, which has %d"):format(
      tostring(start), tostring(length), dim, size))
  end
  return narrow(self, d, start - 1, length, false)
end

--- The i-th slice along dim, one dimension less.
function Tensor:select(dim, i)
  local d = dimension(self, dim, "select")
  if type(i) ~= "number" or i % 1 ~= 0 or i < 1 or i > self.h.shape[d] then
    raise(("select: index %s of dimension %d, which has %d"):format(tostring(i), dim, self.h.shape[d]))
  end
  return narrow(self, d, i - 1, 1, true)
end

--- Without dimensions of size 1 (or without dimension dim, which must have size 1).
function Tensor:squeeze(dim)
  local sizes = {}
  local only = dim and dimension(self, dim, "squeeze")
  for d = 0, self.h.ndim - 1 do
    local n = self.h.shape[d]
    if n ~= 1 or (only and d ~= only) then sizes[#sizes + 1] = n end
  end
  return self:reshape(sizes)
end

--- With a dimension of size 1 put in at dim.
function Tensor:unsqueeze(dim)
  local sizes = self:shape()
  if dim < 0 then dim = #sizes + 2 + dim end
  if dim < 1 or dim > #sizes + 1 then raise(("unsqueeze: dimension %d of a tensor with %d"):format(dim, #sizes)) end
  table.insert(sizes, dim, 1)
  return self:reshape(sizes)
end

--- Repeated along dimensions of size 1, as broadcasting does, as a view.
Tensor.expand = func {
  name = "expand",
  forward = function(ctx, t, ...)
    local sizes = type((...)) == "table" and (...) or {...}
    local h, n, shape, stride = t.h, #sizes, dims8(), dims8()
    if n < h.ndim then raise(("expand: %s to %d dimensions"):format(T.shape_text(t), n)) end
    for i = 0, n - 1 do
      local j = i - (n - h.ndim)
      local from = j >= 0 and h.shape[j] or 1
      if from ~= 1 and from ~= sizes[i + 1] then
        raise(("expand: %s does not expand to %s"):format(T.shape_text(t), T.shape_text(sizes)))
      end
      shape[i] = sizes[i + 1]
      stride[i] = from == 1 and 0 or h.stride[j]
    end
    return make_view(t, shape, stride, 0, n)
  end,
  backward = function(ctx, g) return sum_to(g, ctx.args[1]) end,
}

--- Slices of dimension dim by a tensor or table of 1-based indices.
local index_select = func {
  name = "index_select",
  forward = function(ctx, t, d, index)
    local o = out()
    check(C.atomo_index_select(t.h, d, index.h, o))
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local gt = T.zeros_like(ctx.args[1])
    check(C.atomo_index_add(gt.h, ctx.args[2], ctx.args[3].h, g:contiguous().h))
    return gt
  end,
}
function Tensor:index_select(dim, index)
  local d = dimension(self, dim, "index_select")
  if type(index) == "table" and not is_tensor(index) then index = T.tensor(index, "i32") end
  T.expect(index, "index_select: index", "i32")
  return index_select(self:contiguous(), d, scalar(C.ATOMO_SUB, index, 1))
end

local cat = func {
  name = "cat",
  forward = function(ctx, d, ...)
    local parts = {...}
    local sizes, total = parts[1]:shape(), 0
    for i, p in ipairs(parts) do
      if p:dim() ~= #sizes or p:dtype() ~= parts[1]:dtype() then
        raise(("cat: tensor %d is %s %s, the first %s %s"):format(i, p:dtype(), T.shape_text(p), parts[1]:dtype(),
          T.shape_text(parts[1])))
      end
      total = total + p.h.shape[d]
    end
    sizes[d + 1] = total
    local y, at = T.empty(sizes, parts[1]:dtype()), 0
    for _, p in ipairs(parts) do
      local slice = narrow_view(y, d, at, p.h.shape[d])
      check(C.atomo_copy(slice.h, p.h))
      slice:free()
      at = at + p.h.shape[d]
    end
    return y
  end,
  backward = function(ctx, g)
    local d, at, gradients = ctx.args[1], 0, {}
    for i = 2, #ctx.args do
      local n = ctx.args[i].h.shape[d]
      gradients[i] = narrow_view(g, d, at, n):clone()
      at = at + n
    end
    return nil, unpack(gradients, 2, #ctx.args)
  end,
}

--- Tensors joined along dim.
---@param list atomo.Tensor[]
function M.cat(list, dim)
  if type(list) ~= "table" or #list == 0 then raise "cat: expected a table of at least one tensor" end
  for i, t in ipairs(list) do T.expect(t, ("cat: tensor %d"):format(i)) end
  return cat(dimension(list[1], dim or 1, "cat"), unpack(list))
end

--- Tensors of one shape along a new first dimension.
function M.stack(list)
  local rows = {}
  for i, t in ipairs(list) do rows[i] = t:unsqueeze(1) end
  return M.cat(rows, 1)
end

-- ---- reductions --------------------------------------------------------------------------------------------------

local function reduce(op, t, d, keepdim)
  local o = out()
  check(C.atomo_reduce(op, t.h, d, keepdim and 1 or 0, o))
  return wrap(o[0])
end

--- g (reduced over d, kept or not) seen as broadcastable to t.
local function keep_dims(g, t, d)
  local sizes = t:shape()
  if d < 0 then
    for i = 1, #sizes do sizes[i] = 1 end
  else
    sizes[d + 1] = 1
  end
  return view_as(g:is_contiguous() and g or g:contiguous(), sizes)
end

local function summing(name, op)
  local apply = func {
    name = name,
    forward = function(ctx, t, d, keepdim) return reduce(op, t, d, keepdim) end,
    backward = function(ctx, g)
      local t, d = ctx.args[1], ctx.args[2]
      local gt = T.empty_like(t)
      check(C.atomo_copy(gt.h, keep_dims(g, t, d).h))
      if op == C.ATOMO_MEAN then gt:mul_((d < 0 and 1 or t.h.numel / t.h.shape[d]) / t.h.numel) end
      return gt
    end,
  }
  Tensor[name] = function(self, dim, keepdim)
    return apply(self, dim and dimension(self, dim, name) or -1, keepdim)
  end
end
summing("sum", C.ATOMO_SUM)
summing("mean", C.ATOMO_MEAN)

local function extreme(name, op, arg_op)
  local apply = func {
    name = name,
    forward = function(ctx, t, d, keepdim)
      local index = reduce(arg_op, t, d, keepdim)
      ctx.index = index:detach()
      return reduce(op, t, d, keepdim), scalar(C.ATOMO_ADD, index, 1)
    end,
    backward = function(ctx, g)
      local t, d = ctx.args[1], ctx.args[2]
      local gt = T.zeros_like(t)
      local p, q, k = gt:data(), g:contiguous():data(), ctx.index:data()
      local n = d < 0 and t.h.numel or t.h.shape[d]
      local inner = 1
      if d >= 0 then
        for i = d + 1, t.h.ndim - 1 do inner = inner * t.h.shape[i] end
      end
      for r = 0, g.h.numel - 1 do
        local o, i = math.floor(r / inner), r % inner
        p[(o * n + k[r]) * inner + i] = q[r]
      end
      return gt
    end,
  }
  --- Without dim the extreme as a scalar; with dim values and 1-based indices.
  Tensor[name] = function(self, dim, keepdim)
    local values, index = apply(self, dim and dimension(self, dim, name) or -1, keepdim)
    if dim then return values, index end
    return values
  end
  Tensor["arg" .. name] = function(self, dim, keepdim)
    return scalar(C.ATOMO_ADD, reduce(arg_op, self, dim and dimension(self, dim, "arg" .. name) or -1, keepdim), 1)
  end
end
extreme("max", C.ATOMO_MAX_OF, C.ATOMO_ARGMAX)
extreme("min", C.ATOMO_MIN_OF, C.ATOMO_ARGMIN)

local result = ffi.new "double[1]"

--- Inner product as a Lua number, accumulated in double; outside the graph.
function Tensor:dot_value(u)
  check(C.atomo_dot(self.h, T.expect(u, "dot: operand").h, result))
  return result[0]
end

--- Norm as a Lua number, accumulated in double; outside the graph. p: 2 (default), 1, any above 0, or math.huge.
function Tensor:norm_value(p)
  check(C.atomo_norm(self.h, p or 2, result))
  return result[0]
end

Tensor.dot = func {
  name = "dot",
  forward = function(ctx, a, b)
    ctx:save(a, b)
    return T.full({}, a:dot_value(b))
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    local s = g:item()
    return ctx:needs(1) and scalar(C.ATOMO_MUL, b, s) or nil, ctx:needs(2) and scalar(C.ATOMO_MUL, a, s) or nil
  end,
}

--- p-norm of all elements (p = 2 unless given), a scalar tensor.
Tensor.norm = func {
  name = "norm",
  forward = function(ctx, t, p)
    ctx:save(t)
    ctx.value = t:norm_value(p)
    return T.full({}, ctx.value)
  end,
  backward = function(ctx, g)
    local t, p, n = ctx:saved(), ctx.args[2] or 2, ctx.value
    local s = g:item()
    if n == 0 then return T.zeros_like(t) end
    if p == 2 then return scalar(C.ATOMO_MUL, t, s / n) end
    if p == math.huge then
      local hit = scalar(C.ATOMO_EQ, unary(C.ATOMO_ABS, t), n)
      return scalar(C.ATOMO_MUL, times(hit, unary(C.ATOMO_SIGN, t)), s / hit:dot_value(hit))
    end
    local power = scalar(C.ATOMO_POW, unary(C.ATOMO_ABS, t), p - 1)
    return scalar(C.ATOMO_MUL, times(power, unary(C.ATOMO_SIGN, t)), s * n ^ (1 - p))
  end,
}

-- ---- products ----------------------------------------------------------------------------------------------------

local function product(a, b)
  local o = out()
  check(C.atomo_matmul(a.h, b.h, 0, o))
  return wrap(o[0])
end

--- Last two dimensions swapped, as a view.
local function flipped(t)
  local h, shape, stride = t.h, dims8(), dims8()
  for d = 0, h.ndim - 1 do shape[d], stride[d] = h.shape[d], h.stride[d] end
  local m, n = h.ndim - 2, h.ndim - 1
  shape[m], shape[n], stride[m], stride[n] = shape[n], shape[m], stride[n], stride[m]
  return make_view(t, shape, stride, 0, h.ndim)
end

local matmul = func {
  name = "matmul",
  forward = function(ctx, a, b)
    ctx:save(a, b)
    return product(a, b)
  end,
  backward = function(ctx, g)
    local a, b = ctx:saved()
    return ctx:needs(1) and product(g, flipped(b)) or nil, ctx:needs(2) and product(flipped(a), g) or nil
  end,
}

--- Matrix product: [m,k] x [k,n]; a vector is a row on the left, a column on the right; equal leading dimensions are
--- batches.
function Tensor:matmul(u)
  T.expect(u, "matmul: operand")
  local a, b = self, u
  if a:dim() == 1 and b:dim() == 1 then return a:dot(b) end
  local row, column = a:dim() == 1, b:dim() == 1
  if row then a = a:reshape(1, -1) end
  if column then b = b:reshape(-1, 1) end
  local y = matmul(a, b)
  if row or column then return y:reshape(-1) end
  return y
end

return M
