--- What an operator's forward leaves for its backward. Every tensor in it has a version: a change in place between the
-- two is an error when backward reads that tensor, never a wrong gradient.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, raise = f.C, f.raise
local is_tensor = T.is_tensor

-- The hot path of a step compiles: what every operator uses are plain fields, set by new(). Any other field goes
-- through __newindex into `kept`, and comes back through __index.

---@class atomo.Context   fields may be set on it
---@field inputs table    the arguments. Their values may have changed since: use them for their shapes only
local Context = {}
local methods = {}

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
  if n == 6 then return t[1], t[2], t[3], t[4], t[5], t[6] end
  if n > 0 then return unpack(t, 1, n) end
end

local function changed(t, version) return C.atomo_tensor_version(t.h) ~= version end

local function refuse(ctx, what, t)
  raise(("%s: %s %s, which its backward needs, was changed in place since"):format(ctx.op.name, what, T.shape_text(t)))
end

-- ---- tensors that are saved --------------------------------------------------------------------------------------

--- Saves tensors for backward.
function methods.save(ctx, ...)
  local saved, count, versions = pack(...), select("#", ...), {0, 0, 0, 0, 0, 0}
  for i = 1, count do
    local t = saved[i]
    if t then versions[i] = C.atomo_tensor_version(t.h) end
  end
  ctx.saved_tensors, ctx.saved_versions, ctx.saved_count = saved, versions, count
end

function methods.saved(ctx)
  local saved, versions = ctx.saved_tensors, ctx.saved_versions
  for i = 1, ctx.saved_count do
    local t = saved[i]
    if t and changed(t, versions[i]) then refuse(ctx, "a tensor that it saved", t) end
  end
  return unpack_few(saved, ctx.saved_count)
end

-- ---- fields ------------------------------------------------------------------------------------------------------

--- The tensors of a plain table and of the tables in it, with their versions: list[1], list[2] are one tensor's.
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
    if changed(list[i], list[i + 1]) then refuse(ctx, ("ctx.%s:"):format(tostring(key)), list[i]) end
  end
end

--- Of a user-defined operator, when its forward is through: the versions of what its fields and arguments hold.
function methods.close(ctx)
  local kept = rawget(ctx, "kept")
  if kept then
    local versions = {}
    for key, value in pairs(kept) do versions[key] = tensors_in(value, {}, {}) end
    rawset(ctx, "kept_versions", versions)
  end
  rawset(ctx, "input_versions", tensors_in(ctx.inputs, {}, {}))
end

--- The arguments: in backward their values are those of the forward.
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
    raise(("%s: ctx.%s is a tensor, expected it in ctx:save()"):format(ctx.op.name, tostring(key)))
  end
  local kept = rawget(ctx, "kept")
  if not kept then
    kept = {}
    rawset(ctx, "kept", kept)
  end
  kept[key] = value
  local versions = rawget(ctx, "kept_versions") -- backward is free to change what it keeps
  if versions then versions[key] = tensors_in(value, {}, {}) end
end

-- ---- gradients ---------------------------------------------------------------------------------------------------

--- Does argument i need a gradient? Where nothing is recorded, none does.
function methods.needs(ctx, i)
  local edges = ctx.edges
  return edges and edges[2 * i - 1] and true or false
end

local M = {methods = methods, pack = pack, unpack_few = unpack_few}

--- The context of one call. edges[2 i - 1]: the node or the leaf that argument i came from, or false where it needs no
--- gradient; edges[2 i]: which of the node's results it was, 0 for a leaf. They are those of the call: whatever is done
--- to the arguments later, backward follows them.
function M.new(op, ...)
  return setmetatable({op = op, inputs = pack(...), count = select("#", ...), edges = false,
    saved_tensors = false, saved_versions = false, saved_count = 0}, Context)
end

return M
