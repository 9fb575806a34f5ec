--- Activations in 16 bits (atomo.set_activations): what a layer's operator saves of its arguments and results in
-- precision bf16 is rounded to bf16, and f32 again at most while its backward runs. The graph then refers to no f32
-- activation, and the garbage collector frees those that the program no longer refers to: it runs whenever enough of
-- them were made.
--
-- Not packed: parameters and other leaves, small tensors, other dtypes, statistics and masks that an operator made for
-- its own backward, the input of a norm whose mean is so far from 0 that rounding would hide its differences (is_exact
-- of an operator), and what user-defined operators save. A packed copy is private: a later change in place of the
-- tensor does not affect it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, C, check = f.ffi, f.C, f.check
local Tensor, is_tensor, out = T.Tensor, T.is_tensor, T.out

local M = {}

local names = "adaptive_avg_pool2d attention avg_pool2d batch_norm conv2d conv_transpose2d gelu global_avg_pool " ..
  "group_norm gru layer_norm leaky_relu linear lstm matmul max_pool2d mul relu sigmoid silu softmax tanh"

--- The operators whose backward works as well with rounded activations, by names: the list of docs/guide.md. Others
--- compare what they saved, or subtract nearly equal numbers of it.
M.operators = {}
for name in names:gmatch "%S+" do M.operators[name] = true end

--- Elements from which a tensor is packed: below, the handles would outweigh the bytes saved.
M.smallest = 1024

-- ---- shapes --------------------------------------------------------------------------------------------------------

local free = C.atomo_tensor_free
local strides = ffi.new "double[8]" -- 0: all elements of a husk are one
local one                           -- f32 [1], of which husks are views

--- Returns a tensor of t's shape without its elements, which stands for t where only the shape is read.
local function husk_of(t)
  local husk = rawget(t, "husk")
  if husk then return husk end
  one = one or T.outside_scope(T.zeros, 1):keep()
  local o = out()
  check(C.atomo_tensor_view(one.h, t.h.ndim, t.h.shape, strides, 0, o))
  husk = setmetatable({h = ffi.gc(o[0], free), guarded = true}, Tensor)
  t.husk = husk
  return husk
end

-- ---- codes ---------------------------------------------------------------------------------------------------------

---@class atomo.Packed   the bf16 copy of one tensor at one version, shared by all contexts that saved it
---@field codes ffi.cdata*  handle, u8 [2 n]; false after the last context has dropped it
---@field holders integer   contexts that hold it
---@field version number    of the tensor

local function is_activation(t) return is_tensor(t) and t.h.dtype == C.ATOMO_F32 and t.h.numel >= M.smallest end

--- Does t have memory for each of its elements? An expanded view has not: its copy could be larger than its storage.
local function is_expanded(t)
  for d = 0, t.h.ndim - 1 do
    if t.h.stride[d] == 0 and t.h.shape[d] > 1 then return true end
  end
  return false
end

--- Returns the tensor whose copy serves t, too, because it has the same elements in the same order: the base of t if t
--- is a view of all of it, else t.
local function root_of(t)
  local base = t.base
  if is_tensor(base) and base.h.data == t.h.data and base.h.numel == t.h.numel and base:is_contiguous() then
    return base
  end
  return t
end

local function codes_of(t)
  local o = out()
  local dense = t:is_contiguous() and t or t:detach():contiguous()
  check(C.atomo_bf16_pack(dense.h, o))
  if dense ~= t then dense:free() end
  return ffi.gc(o[0], free)
end

--- Returns the packed copy of t, whose elements are those of `owner`, an argument or a result.
local function packed(t, owner)
  local whole = owner.h.data == t.h.data and owner.h.numel == t.h.numel and t:is_contiguous()
  local root = whole and owner:is_contiguous() and root_of(owner)
  local had, version = root and rawget(root, "packed"), C.atomo_tensor_version(t.h)
  if had and had.codes and had.version == version then
    had.holders = had.holders + 1
    return had
  end
  local p = {codes = codes_of(t), holders = 1, version = version}
  if root then root.packed = p end
  return p
end

--- Returns the argument or result of which t shows elements, if it was computed by an operator; else nil.
local function owner_of(ctx, t, ...)
  for i = 1, ctx.count do
    local a = ctx.inputs[i]
    if is_tensor(a) and a.node and a.h.storage == t.h.storage then return a end
  end
  for i = 1, select("#", ...) do
    local y = select(i, ...)
    if is_tensor(y) and y.h.storage == t.h.storage then return y end
  end
end

--- Is t an argument or a result itself, not another tensor over the same storage, which the operator made to save it?
local function is_operand(ctx, t, ...)
  for i = 1, ctx.count do
    if ctx.inputs[i] == t then return true end
  end
  for i = 1, select("#", ...) do
    if select(i, ...) == t then return true end
  end
  return false
end

--- Replaces saved tensor k by a packed copy.
local function pack(ctx, k, t, owner)
  if not ctx.packed then ctx.packed, ctx.shapes = {}, {} end
  ctx.packed[k], ctx.shapes[k] = packed(t, owner), husk_of(t)
  ctx.saved_tensors[k] = false
end

-- ---- collection ----------------------------------------------------------------------------------------------------

local between = 12e6 -- bytes of activations between two collections, each of which takes about a millisecond
local made = 0       -- bytes since the last one
local mem = ffi.new "atomo_mem"

--- Counts bytes of new activations, and collects garbage when they are many, but not while live memory is below half of
--- its peak, which garbage does not raise then.
local function count(bytes)
  made = made + bytes
  if made < between then return end
  C.atomo_mem_stats(mem)
  if f.number(mem, "live") < f.number(mem, "peak") / 2 then return end
  made = 0
  collectgarbage()
end

-- ---- contexts ------------------------------------------------------------------------------------------------------

--- Packs what ctx saved, after forward. ...: the results.
function M.pack(ctx, ...)
  local saved, aliases = ctx.saved_tensors, nil
  for k = 1, M.operators[ctx.op.name] and ctx.saved_count or 0 do
    local t = saved[k]
    if t and is_activation(t) and not is_expanded(t) then
      local owner = owner_of(ctx, t, ...)
      if owner and not (ctx.op.is_exact and ctx.op.is_exact(k, saved)) then
        pack(ctx, k, t, owner)
        if not is_operand(ctx, t, ...) then
          aliases = aliases or {}
          aliases[t] = true
        end
      end
    end
  end
  for t in pairs(aliases or {}) do t:free() end
  for i = 1, ctx.count do
    local a = ctx.inputs[i]
    if is_activation(a) and a.node then ctx.inputs[i] = husk_of(a) end
  end
  local bytes = 0
  for i = 1, select("#", ...) do
    local y = select(i, ...)
    if is_activation(y) then
      T.loosen(y)
      if not ctx.op.is_view then bytes = bytes + 4 * y.h.numel end
    end
  end
  if bytes > 0 then count(bytes) end
end

local sizes, steps = ffi.new "double[8]", ffi.new "double[8]"

--- Returns codes as a tensor u8 [..., 2 c] for a tensor of shape h [..., c], as kernels expect a packed operand.
local function seen_as(codes, h)
  local step = 1
  for d = h.ndim - 1, 0, -1 do
    sizes[d], steps[d] = h.shape[d] * (d == h.ndim - 1 and 2 or 1), step
    step = step * sizes[d]
  end
  local o = out()
  check(C.atomo_tensor_view(codes, h.ndim, sizes, steps, 0, o))
  return T.wrap(o[0])
end

local function values_of(codes, h)
  local o = out()
  check(C.atomo_bf16_unpack(codes, h, o))
  return T.wrap(o[0])
end

--- Returns the saved tensors, with packed ones as f32, or as codes if the operator's backward reads these (see
--- autograd.builtin). release(ctx) frees what is made here.
function M.unpacked(ctx)
  local list, reads = {}, ctx.op.reads_packed
  ctx.unpacked = {}
  for k = 1, ctx.saved_count do
    local p = ctx.packed[k]
    list[k] = ctx.saved_tensors[k]
    if p then
      list[k] = (reads and reads[k] and seen_as or values_of)(p.codes, ctx.shapes[k].h)
      ctx.unpacked[#ctx.unpacked + 1] = list[k]
    end
  end
  return list
end

--- Frees what unpacked(ctx) made, except tensors that are among the gradients.
function M.release(ctx, gradients)
  for _, t in ipairs(ctx.unpacked) do
    local passed_on = false
    for i = 1, ctx.count do passed_on = passed_on or gradients[i] == t end
    if not passed_on then t:free() end
  end
  ctx.unpacked = false
end

--- Frees the packed copies that no other context holds.
function M.drop(ctx)
  for k, p in pairs(ctx.packed) do
    p.holders = p.holders - 1
    if p.holders == 0 then
      free(ffi.gc(p.codes, nil))
      p.codes = false
    end
    ctx.packed[k] = nil
  end
end

return M
