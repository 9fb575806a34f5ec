--- Adding to selected elements: index_add, scatter_add and their in-place forms; taking those of a mask: masked_select.
-- Dimensions and indices count from 1.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local K = require "atomo.autograd.ops.kernels"
local positions = require "atomo.autograd.ops.positions"
local func = require("atomo.autograd").operator
local C, check, raise = f.C, f.check, f.raise
local Tensor, is_tensor, dimension, shape_text = T.Tensor, T.is_tensor, T.dimension, T.shape_text

-- ---- index_add -----------------------------------------------------------------------------------------------------

--- index: 0-based. The index of the operator itself: the user's may change before backward.
local add_at = func {
  name = "index_add",
  forward = function(ctx, t, d, index, source)
    local y = t:clone()
    check(C.atomo_index_add(y.h, d, index.h, source:contiguous().h))
    return y
  end,
  backward = function(ctx, g)
    local d, index = ctx.inputs[2], ctx.inputs[3]
    local gs
    if ctx:needs(4) then gs = g:index_select(d + 1, K.scalar(C.ATOMO_ADD, index, 1)) end
    return ctx:needs(1) and g or nil, nil, nil, gs
  end,
}

--- Returns the 0-based dimension and index of an index_add.
local function read(t, dim, index, source, who)
  local d = dimension(t, dim, who)
  if type(index) == "table" and not is_tensor(index) then index = T.tensor(index, "i32") end
  T.expect(index, who .. ": index", "i32")
  T.expect(source, who .. ": source", t:dtype())
  return d, K.scalar(C.ATOMO_SUB, index:contiguous(), 1)
end

--- Returns a copy to whose slices along dim those of source are added: slice index[i] gets slice i of source. An index
--- may occur more than once. Has a gradient for both tensors.
---@param dim integer
---@param index atomo.Tensor|integer[]  i32, 1-based
---@param source atomo.Tensor  of this tensor's dtype (f32 or i32) and shape, with #index elements along dim
---@return atomo.Tensor
---@usage t:index_add(1, {1, 1}, atomo.ones(2, 2)):get(1, 1) --> 3
function Tensor:index_add(dim, index, source)
  local d, from_zero = read(self, dim, index, source, "index_add")
  return add_at(self, d, from_zero, source)
end

--- Copies to t the elements of y, t's own values with something added; returns t.
local function assign(t, y)
  check(C.atomo_copy(t.h, y.h))
  return t
end

--- The same in place: t:index_add_(1, labels, ones) counts labels.
---@param dim integer
---@param index atomo.Tensor|integer[]  i32, 1-based
---@param source atomo.Tensor  as of index_add
---@return atomo.Tensor self
---@usage atomo.zeros(3):index_add_(1, {2, 2}, atomo.ones(2)):get(2) --> 2
function Tensor:index_add_(dim, index, source)
  local d, from_zero = read(self, dim, index, source, "index_add_")
  T.begin_change(self, "index_add_")
  if not self:is_contiguous() then return assign(self, add_at(self, d, from_zero, source)) end
  check(C.atomo_index_add(self.h, d, from_zero.h, source:contiguous().h))
  return self
end

-- ---- scatter_add ---------------------------------------------------------------------------------------------------

--- Returns source's part of index's shape; raises if source is smaller.
local function part_of(source, index, who)
  local fits, y = source.h.ndim == index.h.ndim, source
  for i = 0, index.h.ndim - 1 do
    fits = fits and source.h.shape[i] >= index.h.shape[i]
    if fits and source.h.shape[i] > index.h.shape[i] then y = y:narrow(i + 1, 1, index.h.shape[i]) end
  end
  if not fits then
    raise(("%s: source %s is smaller than index %s"):format(who, shape_text(source), shape_text(index)))
  end
  return y
end

local function scatter_add(t, dim, index, source, who)
  local d = T.self_handle(t).ndim == 0 and 0 or dimension(t, dim, who)
  positions.check_index(t, d, index, who)
  T.expect(source, who .. ": source", t:dtype())
  local n = t.h.numel
  local added = part_of(source, index, who):reshape(index.h.numel)
  return t:reshape(n):index_add(1, positions.of_index(t, d, index:contiguous(), who), added):reshape(t:shape())
end

--- Returns a copy to whose elements those of source are added: with dim 1, source[i, j] to element [index[i, j], j],
--- the reverse of gather. Has a gradient for both tensors.
---@param dim integer
---@param index atomo.Tensor   i32, 1-based, as many dimensions as t
---@param source atomo.Tensor  of this tensor's dtype (f32 or i32), at least as large as index
---@return atomo.Tensor
---@usage t:scatter_add(2, atomo.tensor({{2}, {1}}, "i32"), atomo.ones(2, 1)):get(1, 2) --> 3
function Tensor:scatter_add(dim, index, source) return scatter_add(self, dim, index, source, "scatter_add") end

--- The same in place.
---@param dim integer
---@param index atomo.Tensor   i32, 1-based, as many dimensions as t
---@param source atomo.Tensor  as of scatter_add
---@return atomo.Tensor self
---@usage atomo.zeros(1, 2):scatter_add_(2, atomo.tensor({{2}}, "i32"), atomo.ones(1, 1)):get(1, 2) --> 1
function Tensor:scatter_add_(dim, index, source)
  local y = scatter_add(self, dim, index, source, "scatter_add_")
  T.begin_change(self, "scatter_add_")
  return assign(self, y)
end

-- ---- masked_select -------------------------------------------------------------------------------------------------

--- Returns mask as f32 of 0 and 1 in t's shape, contiguous.
local function spread(mask, t)
  local h, m = t.h, mask.h
  local fits = m.ndim <= h.ndim
  for i = 1, m.ndim do
    local n = m.shape[m.ndim - i]
    fits = fits and (n == 1 or n == h.shape[h.ndim - i])
  end
  if not fits then
    raise(("masked_select: mask %s does not repeat to tensor %s"):format(shape_text(mask), shape_text(t)))
  end
  return K.truth(mask):expand(t:shape()):contiguous()
end

--- Returns the elements where mask is not 0 (NaN included), in row-major order, in one dimension. Their gradient goes
--- back to where they came from.
---@param mask atomo.Tensor  of any dtype, as t:gt(0) makes it; repeats to this tensor's shape
---@return atomo.Tensor
---@usage t:masked_select(t:gt(2)):get(2) --> 4
function Tensor:masked_select(mask)
  T.expect(mask, "masked_select: mask")
  local picked = positions.of_ones(spread(mask, self), "masked_select")
  return self:reshape(self.h.numel):index_select(1, picked)
end

return {}
