--- Views (view, transpose, narrow, select, expand, ...) and the copies that go with them (clone, cat, index_select).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local list_length = require "atomo.core.list"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local C, check, raise = f.C, f.check, f.raise
local Tensor, wrap, out, is_tensor, dimension = T.Tensor, T.wrap, T.out, T.is_tensor, T.dimension
local scalar, sum_to, dims8, make_view, view_as = K.scalar, K.sum_to, K.dims8, K.make_view, K.view_as
local narrow_view = K.narrow_view

local M = {}

--- Reads sizes given as (2, 3) or ({2, 3}) for a view of t; one of them may be -1 and is inferred.
local function sizes_for(t, what, ...)
  T.self_handle(t)
  local sizes = type((...)) == "table" and {unpack((...))} or {...}
  local known, unknown = 1, nil
  list_length(sizes, what .. ": sizes")
  for i, given in ipairs(sizes) do
    local n = number.whole(given, -1)
    if not n then
      raise(("%s: size %s in dimension %d, expected a whole number, or -1 once"):format(what, brief(given), i))
    end
    sizes[i] = n
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
    raise(("%s: %s has %d elements, it cannot be seen as %s; the sizes' product must be %d (-1: computed)"):format(
      what, T.shape_text(t), t.h.numel, T.shape_text(type((...)) == "table" and (...) or {...}), t.h.numel))
  end
  return sizes
end

--- Returns t in other sizes: a view if its strides allow one, else a copy.
local function seen_as(t, sizes) return view_as(t, sizes) or view_as(t:contiguous(), sizes) end

local reshape = func {
  name = "view", is_view = true,
  forward = function(ctx, t, sizes) return seen_as(t, sizes) end,
  backward = function(ctx, g) return seen_as(g, ctx.inputs[1]:shape()) end,
}

--- The same elements with other sizes, without a copy; raises where strides allow no view.
---@param ... integer|integer[] sizes; one may be -1
---@return atomo.Tensor a view
---@usage t:view(4):get(3) --> 3
function Tensor:view(...)
  local sizes = sizes_for(self, "view", ...)
  if not self:is_contiguous() then
    local view = view_as(self, sizes)
    if not view then
      raise(("view: tensor %s is not contiguous and cannot be seen as %s without a copy, use :reshape()"):format(
        T.shape_text(self), T.shape_text(sizes)))
    end
    view:free()
  end
  return reshape(self, sizes)
end

--- Like view, but copies if t's strides allow no view.
---@param ... integer|integer[] sizes; one may be -1
---@return atomo.Tensor
---@usage t:reshape(4):size(1) --> 4
function Tensor:reshape(...) return reshape(self, sizes_for(self, "reshape", ...)) end

--- Returns all elements in one dimension, a view if possible.
---@param first integer? only 1
---@return atomo.Tensor
---@usage t:flatten():size(1) --> 4
function Tensor:flatten(first)
  if first ~= nil then raise "flatten: takes no dimension, it joins all; nn.Flatten(first, last) joins some" end
  return Tensor.reshape(self, -1)
end

Tensor.clone = func {
  name = "clone",
  forward = function(ctx, t)
    local c = T.empty_like(t)
    check(C.atomo_copy(c.h, t.h))
    return c
  end,
  backward = function(ctx, g) return g end,
}

--- Returns self if it is contiguous, else a contiguous copy.
---@return atomo.Tensor
---@usage t:t():contiguous():is_contiguous() --> true
function Tensor:contiguous()
  if Tensor.is_contiguous(self) then return self end
  return self:clone()
end

local permute = func {
  name = "permute", is_view = true,
  forward = function(ctx, t, order)
    local h, shape, stride = t.h, dims8(), dims8()
    for i = 1, #order do
      shape[i - 1], stride[i - 1] = h.shape[order[i]], h.stride[order[i]]
    end
    return make_view(t, shape, stride, 0, #order)
  end,
  backward = function(ctx, g)
    local inverse, h, shape, stride = {}, g.h, dims8(), dims8()
    for i, d in ipairs(ctx.inputs[2]) do inverse[d + 1] = i - 1 end
    for i = 1, #inverse do
      shape[i - 1], stride[i - 1] = h.shape[inverse[i]], h.stride[inverse[i]]
    end
    return make_view(g, shape, stride, 0, #inverse)
  end,
}

--- Dimensions in a new order: t:permute(1, 4, 2, 3).
---@param ... integer every dimension once, in the new order
---@return atomo.Tensor a view
---@usage atomo.ones(2, 3, 4):permute(3, 1, 2):size(1) --> 4
function Tensor:permute(...)
  local order, seen = {...}, {}
  list_length(order, "permute: dimensions")
  if #order ~= T.self_handle(self).ndim then
    raise(("permute: %d dimensions named, the tensor has %d"):format(#order, self.h.ndim))
  end
  for i, d in ipairs(order) do
    order[i] = dimension(self, d, "permute")
    if seen[order[i]] then raise(("permute: dimension %d named twice"):format(d)) end
    seen[order[i]] = true
  end
  return permute(self, order)
end

--- Returns a view with dimensions i and j exchanged.
---@param i integer
---@param j integer
---@return atomo.Tensor
---@usage t:transpose(1, 2):get(1, 2) --> 3
function Tensor:transpose(i, j)
  if i == nil and T.self_handle(self).ndim == 2 then i, j = 1, 2 end
  local a, b = dimension(self, i, "transpose"), dimension(self, j, "transpose")
  local order = {}
  for d = 0, self.h.ndim - 1 do order[d + 1] = d == a and b or d == b and a or d end
  return permute(self, order)
end
--- Returns the transpose of a matrix, a view.
---@return atomo.Tensor
---@usage t:t():get(1, 2) --> 3
function Tensor:t()
  if T.self_handle(self).ndim ~= 2 then raise(("t: tensor %s is no matrix"):format(T.shape_text(self))) end
  return self:transpose(1, 2)
end

local narrow = func {
  name = "narrow", is_view = true,
  forward = function(ctx, t, d, start, length, drop) return narrow_view(t, d, start, length, drop) end,
  backward = function(ctx, g)
    local t, d, start, length, drop = unpack(ctx.inputs, 1, 5)
    local gt = T.zeros_like(t)
    local part = narrow_view(gt, d, start, length, drop)
    part:copy_(g)
    part:free()
    return gt
  end,
}

--- Returns a view of `length` elements of dimension dim from start (1-based).
---@param dim integer
---@param start integer 1-based
---@param length integer
---@return atomo.Tensor a view
---@usage t:narrow(1, 2, 1):get(1, 1) --> 3
function Tensor:narrow(dim, start, length)
  local d = dimension(self, dim, "narrow")
  local size = self.h.shape[d]
  local from, count = number.whole(start, 1), number.whole(length, 0)
  if not from or not count or from + count - 1 > size then
    raise(("narrow: start %s, length %s of dimension %s, which has %d"):format(
      brief(start), brief(length), brief(dim), size))
  end
  return narrow(self, d, from - 1, count, false)
end

--- Returns a view of slice i (1-based) along dim, with one dimension less.
---@param dim integer
---@param i integer 1-based
---@return atomo.Tensor a view
---@usage t:select(1, 2):get(1) --> 3
function Tensor:select(dim, i)
  local d = dimension(self, dim, "select")
  local at = number.whole(i, 1, self.h.shape[d])
  if not at then
    raise(("select: index %s of dimension %s, which has %d"):format(brief(i), brief(dim), self.h.shape[d]))
  end
  return narrow(self, d, at - 1, 1, true)
end

--- Returns a view without dimensions of size 1, or without dimension dim, which must have size 1.
---@param dim integer? default: all dimensions of size 1
---@return atomo.Tensor a view
---@usage atomo.ones(1, 3, 1):squeeze():dim() --> 1
function Tensor:squeeze(dim)
  local sizes = {}
  T.self_handle(self)
  local only = dim and dimension(self, dim, "squeeze")
  for d = 0, self.h.ndim - 1 do
    local n = self.h.shape[d]
    if n ~= 1 or (only and d ~= only) then sizes[#sizes + 1] = n end
  end
  return reshape(self, sizes)
end

--- Returns a view with a dimension of size 1 inserted at dim.
---@param dim integer where the new dimension stands
---@return atomo.Tensor a view
---@usage t:unsqueeze(1):dim() --> 3
function Tensor:unsqueeze(dim)
  local sizes = Tensor.shape(self)
  local at = number.whole(dim, -#sizes - 1, #sizes + 1)
  if not at or at == 0 then raise(("unsqueeze: dimension %s of a tensor with %d"):format(brief(dim), #sizes)) end
  table.insert(sizes, at < 0 and #sizes + 2 + at or at, 1)
  return reshape(self, sizes)
end

--- Returns a view repeated along dimensions of size 1, as in broadcasting.
Tensor.expand = func {
  name = "expand", is_view = true,
  forward = function(ctx, t, ...)
    local sizes = type((...)) == "table" and (...) or {...}
    local h, n, shape, stride = T.self_handle(t), #sizes, dims8(#sizes), dims8()
    if n < h.ndim then raise(("expand: %s to %d dimensions"):format(T.shape_text(t), n)) end
    for i = 0, n - 1 do
      local j = i - (n - h.ndim)
      local from, size = j >= 0 and h.shape[j] or 1, number.whole(sizes[i + 1], 0)
      if not size or (from ~= 1 and from ~= size) then
        raise(("expand: %s does not expand to %s"):format(T.shape_text(t), T.shape_text(sizes)))
      end
      shape[i] = size
      stride[i] = from == 1 and 0 or h.stride[j]
    end
    return make_view(t, shape, stride, 0, n)
  end,
  backward = function(ctx, g) return sum_to(g, ctx.inputs[1]) end,
}

--- Copies slices of dimension dim, selected by an i32 tensor or table of 1-based indices.
local index_select = func {
  name = "index_select",
  forward = function(ctx, t, d, index)
    local o = out()
    check(C.atomo_index_select(t.h, d, index.h, o))
    return wrap(o[0])
  end,
  backward = function(ctx, g)
    local gt = T.zeros_like(ctx.inputs[1])
    check(C.atomo_index_add(gt.h, ctx.inputs[2], ctx.inputs[3].h, g:contiguous().h))
    return gt
  end,
}
--- Copies slices of dimension dim, selected by their 1-based indices.
---@param dim integer
---@param index atomo.Tensor|integer[] i32, 1-based
---@return atomo.Tensor
---@usage t:index_select(1, {2}):get(1, 1) --> 3
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
    local d, at, gradients = ctx.inputs[1], 0, {}
    for i = 2, #ctx.inputs do
      local n = ctx.inputs[i].h.shape[d]
      gradients[i] = narrow_view(g, d, at, n):clone()
      at = at + n
    end
    return nil, unpack(gradients, 2, #ctx.inputs)
  end,
}

local MOST = 250 -- tensors that one call of the operator joins

--- Returns a copy of the tensors joined along dim (default 1).
---@param list atomo.Tensor[]
---@param dim integer? default 1
---@return atomo.Tensor
---@usage atomo.cat({atomo.ones(2, 3), atomo.zeros(1, 3)}, 1):size(1) --> 3
function M.cat(list, dim)
  if type(list) ~= "table" or list_length(list, "cat") == 0 then
    raise "cat: expected a table of at least one tensor"
  end
  for i, t in ipairs(list) do T.expect(t, ("cat: tensor %d"):format(i)) end
  local d = dimension(list[1], dim or 1, "cat")
  while #list > MOST do -- a Lua call has at most about 250 arguments: join groups first, then their results
    local groups = {}
    for i = 1, #list, MOST do groups[#groups + 1] = cat(d, unpack(list, i, math.min(i + MOST - 1, #list))) end
    list = groups
  end
  return cat(d, unpack(list))
end

--- Returns tensors of equal shape joined along a new dimension (default 1).
---@param list atomo.Tensor[]
---@param dim integer?
---@return atomo.Tensor
---@usage atomo.stack({atomo.ones(3), atomo.zeros(3)}):size(1) --> 2
function M.stack(list, dim)
  if type(list) ~= "table" or list_length(list, "stack") == 0 then
    raise "stack: expected a table of at least one tensor"
  end
  local rows = {}
  for i, t in ipairs(list) do rows[i] = T.expect(t, ("stack: tensor %d"):format(i)):unsqueeze(dim or 1) end
  return M.cat(rows, dim or 1)
end

return M
