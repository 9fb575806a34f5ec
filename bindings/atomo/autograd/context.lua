--- The context of an operator's call: what forward keeps for backward. It records the version of each tensor. If a
-- tensor was changed in place after forward, backward raises when it reads it, and never computes a wrong gradient.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local packing = require "atomo.autograd.packing"
local precision = require "atomo.autograd.precision"
local brief = require "atomo.core.brief"
local C, raise = f.C, f.raise
local is_tensor = T.is_tensor

-- So that the JIT compiles the usual case, fields that all operators use are plain fields, set by new(). Other fields
-- are stored by __newindex in `kept` and read by __index.

---@class atomo.Context   an operator may set fields of its own
---@field inputs table    the arguments of forward. Use only their shapes: values may have changed since forward
---@field args table      the same; reading it raises if a value has changed since forward (user-defined operators only)
---@field product_precision integer  ATOMO_PRECISION_*, of the products of forward and backward
local Context = {}
local methods = {}

--- Returns {...}, in a form that the JIT compiles for up to 6 values.
local function pack(...)
  if select("#", ...) > 6 then return {...} end
  local a, b, c, d, e, g = ...
  return {a, b, c, d, e, g}
end

local function unpack_few(t, n)
  if n == 1 then return t[1] end
  if n == 2 then return t[1], t[2] end
  if n == 3 then return t[1], t[2], t[3] end
  if n == 6 then return t[1], t[2], t[3], t[4], t[5], t[6] end
  if n > 0 then return unpack(t, 1, n) end
end

local function changed(t, version) return C.atomo_tensor_version(t.h) ~= version end

local function refuse(ctx, what, t)
  raise(("%s: %s %s, which its backward needs, was changed in place since"):format(ctx.op.name, what, T.shape_text(t)))
end

-- ---- tensors that are saved --------------------------------------------------------------------------------------

local function refuse_to_save(ctx, i, value)
  raise(("%s: ctx:save: value %d is a %s, expected a tensor or nil; keep other values in fields of ctx"):format(
    ctx.op.name, i, type(value)))
end

--- Saves tensors (or nil) for backward, which gets them by ctx:saved(). Call it once.
function methods.save(ctx, ...)
  local saved, count, versions = pack(...), select("#", ...), {0, 0, 0, 0, 0, 0}
  for i = 1, count do
    local t = saved[i]
    if t then
      if not is_tensor(t) then refuse_to_save(ctx, i, t) end
      versions[i] = C.atomo_tensor_version(t.h)
    end
  end
  ctx.saved_tensors, ctx.saved_versions, ctx.saved_count = saved, versions, count
end

function methods.saved(ctx)
  local saved, versions = ctx.saved_tensors, ctx.saved_versions
  for i = 1, ctx.saved_count do
    local t = saved[i]
    if t and changed(t, versions[i]) then refuse(ctx, "a tensor that it saved", t) end
  end
  return unpack_few(ctx.packed and packing.unpacked(ctx) or saved, ctx.saved_count)
end

-- ---- fields ------------------------------------------------------------------------------------------------------

--- Appends the tensors found in value (a tensor, or nested tables) to list, each followed by its version.
local function tensors_in(value, list, met)
  if is_tensor(value) then
    list[#list + 1] = value
    list[#list + 1] = C.atomo_tensor_version(value.h)
  elseif type(value) == "table" and not met[value] then
    met[value] = true
    for _, item in pairs(value) do tensors_in(item, list, met) end
  end
  return list
end

local function check_field(ctx, key, list)
  for i = 1, #list, 2 do
    if changed(list[i], list[i + 1]) then refuse(ctx, ("ctx.%s:"):format(brief(key)), list[i]) end
  end
end

--- Called after the forward of a user-defined operator: records the versions of tensors in its fields and arguments.
function methods.close(ctx)
  local kept = rawget(ctx, "kept")
  if kept then
    local versions = {}
    for key, value in pairs(kept) do versions[key] = tensors_in(value, {}, {}) end
    rawset(ctx, "kept_versions", versions)
  end
  rawset(ctx, "input_versions", tensors_in(ctx.inputs, {}, {}))
end

--- Returns the arguments of forward; raises if the value of one has changed since.
local function arguments(ctx)
  local versions = rawget(ctx, "input_versions")
  if versions then
    for i = 1, #versions, 2 do
      if changed(versions[i], versions[i + 1]) then refuse(ctx, "an argument", versions[i]) end
    end
  end
  return ctx.inputs
end

function Context.__index(ctx, key)
  local method = methods[key]
  if method then return method end
  if key == "args" then return arguments(ctx) end
  local kept = rawget(ctx, "kept")
  local value = kept and kept[key]
  if type(value) == "table" then
    local versions = rawget(ctx, "kept_versions")
    if versions and versions[key] then check_field(ctx, key, versions[key]) end
  end
  return value
end

function Context.__newindex(ctx, key, value)
  if ctx.op.trusted and is_tensor(value) then
    raise(("%s: ctx.%s is a tensor, expected it in ctx:save()"):format(ctx.op.name, brief(key)))
  end
  local kept = rawget(ctx, "kept")
  if not kept then
    kept = {}
    rawset(ctx, "kept", kept)
  end
  kept[key] = value
  local versions = rawget(ctx, "kept_versions") -- set: forward has ended, backward assigns this field
  if versions then versions[key] = tensors_in(value, {}, {}) end
end

-- ---- gradients ---------------------------------------------------------------------------------------------------

--- Does argument i need a gradient? False for all if the call is not recorded.
function methods.needs(ctx, i)
  local edges = ctx.edges
  return edges and edges[2 * i - 1] and true or false
end

local M = {methods = methods, pack = pack, unpack_few = unpack_few}

--- Makes the context of one call. edges[2 i - 1]: the node that made argument i, the argument itself if it is a leaf,
--- false if it needs no gradient. edges[2 i]: the number of that node's result, 0 for a leaf. Edges are fixed at the
--- call: later changes of the arguments do not affect them. product_precision: what holds at the call, for operators
--- that have products; the others are in fp32.
function M.new(op, ...)
  return setmetatable({op = op, inputs = pack(...), count = select("#", ...), edges = false,
    saved_tensors = false, saved_versions = false, saved_count = 0, packed = false, shapes = false, unpacked = false,
    product_precision = op.has_products and precision.current() or C.ATOMO_PRECISION_FP32}, Context)
end

return M
