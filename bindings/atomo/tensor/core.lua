--- The Tensor class: a table whose field `h` is the C handle; autograd keeps requires_grad, grad and node beside it.
-- Native memory is released by :free(), at the end of an atomo.scope, or by the garbage collector.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local blocks = require "atomo.core.blocks"
local expect_function = require "atomo.core.callable"
local ffi, C, raise, number = f.ffi, f.C, f.raise, f.number

---@class atomo.Tensor
---@field h ffi.cdata*        handle (atomo_tensor *)
---@field requires_grad boolean?
---@field grad atomo.Tensor?
local Tensor = {}
Tensor.__index = Tensor
Tensor.__name = "tensor"

local T = {Tensor = Tensor}

T.dtypes = {f32 = C.ATOMO_F32, i32 = C.ATOMO_I32, u8 = C.ATOMO_U8, f16 = C.ATOMO_F16, bf16 = C.ATOMO_BF16}
T.dtype_names = {}
for name, code in pairs(T.dtypes) do T.dtype_names[code] = name end
T.pointer_types = {f32 = ffi.typeof "float *", i32 = ffi.typeof "int32_t *", u8 = ffi.typeof "uint8_t *",
  f16 = ffi.typeof "uint16_t *", bf16 = ffi.typeof "uint16_t *"}
T.element_sizes = {f32 = 4, i32 = 4, u8 = 1, f16 = 2, bf16 = 2} -- in bytes
local slot_type = ffi.typeof "atomo_tensor *[1]"
-- A freed tensor raises on any use, its handle included. Its field `scope` is the function of the atomo.scope whose end
-- freed it, or a text (T.expire); nil after :free().
local Freed = {}

--- Describes where a freed tensor was freed: "by :free()", the scope with its file and lines, or T.expire's text.
local function where_freed(t)
  local fn = rawget(t, "scope")
  if not fn then return "by :free()" end
  if type(fn) == "string" then return fn end
  if type(fn) ~= "function" then return "at the end of the atomo.scope of a callable table" end
  local info = debug.getinfo(fn, "S")
  local lines = ("line %d"):format(info.linedefined)
  if info.lastlinedefined > info.linedefined then
    lines = ("lines %d to %d"):format(info.linedefined, info.lastlinedefined)
  end
  return ("at the end of the atomo.scope of %s, %s"):format(info.short_src,
    info.what == "C" and "a C function" or lines)
end

--- Raises that t was freed. what: the beginning of the error text.
local function raise_freed(t, what)
  local scope = rawget(t, "scope") or nil
  local remedy = not scope and "; free it after its last use" or type(scope) == "string" and "" or
    "; call t:keep() in the scope, or return the tensor from it, to use it afterwards"
  raise(("%s was freed %s%s"):format(what, where_freed(t), remedy))
end

function Freed.__index(t, key) raise_freed(t, ("tensor: '%s' of a tensor that"):format(brief(key))) end

for name in ("add sub mul div pow mod unm concat lt le"):gmatch "%S+" do
  Freed["__" .. name] = function(a, b)
    raise_freed(getmetatable(a) == Freed and a or b, ("%s: a tensor that"):format(name))
  end
end

--- Raises if v is a tensor that was freed. what: the argument, for the error text.
function T.refuse_freed(v, what)
  if type(v) == "table" and getmetatable(v) == Freed then raise_freed(v, what .. " is a tensor that") end
end

function Freed.__tostring(t) return ("[tensor freed %s]"):format(where_freed(t)) end

local scope           -- value: the innermost atomo.scope's list of tensors, or nil
local wraps = 0       -- tensors made outside any scope since poll_memory last ran
local soft_limit = 1e9 -- bytes of live native memory above which poll_memory runs a full garbage collection
local mem = ffi.new "atomo_mem"

--- Runs a garbage collection when native memory exceeds soft_limit: LuaJIT's collector does not count native bytes.
local function poll_memory()
  wraps = 0
  C.atomo_mem_stats(mem)
  if mem.live > soft_limit then
    collectgarbage()
    C.atomo_mem_stats(mem)
    soft_limit = math.max(1e9, 1.5 * mem.live)
  end
end

--- Lets the garbage collector free t's native memory.
local function guard(t)
  ffi.gc(t.h, C.atomo_tensor_free)
  t.guarded = true
end

-- A suspended coroutine may never be resumed, so the tensors of its open scopes are guarded when it yields.
scope = blocks.state(nil, function(list, open)
  while list and open > 0 do
    for i = (list.guarded or 0) + 1, #list do
      if getmetatable(list[i]) == Tensor then guard(list[i]) end
    end
    list.guarded, list, open = #list, list.outer, open - 1
  end
end)

local function free_handle(t)
  C.atomo_tensor_free(t.guarded and ffi.gc(t.h, nil) or t.h)
end

local weak = {__mode = "v"}
local searched = 8 -- newest entries of a scope's list in which T.loosen looks for a tensor

--- Lets the garbage collector free t as soon as nothing refers to it, also inside an atomo.scope, which frees it at its
--- end if it still exists then. t must be among the newest tensors of the innermost scope, else nothing changes.
function T.loosen(t)
  local list = scope.value
  for i = list and #list or 0, math.max(1, list and #list - searched or 1), -1 do
    if list[i] == t then
      list[i] = false
      local loose = list.loose
      if not loose then
        loose = setmetatable({count = 0}, weak)
        list.loose = loose
      end
      loose.count = loose.count + 1
      loose[loose.count] = t
      guard(t)
      return
    end
  end
end

--- Makes a tensor that owns a new handle. Inside atomo.scope, the scope frees it at its end and no finalizer is set: an
--- ffi.gc call costs more than the table.
function T.wrap(h)
  local t = setmetatable({h = h}, Tensor)
  local list = scope.value
  if list then
    list[#list + 1] = t
  else
    guard(t)
    wraps = wraps + 1
    if wraps >= 64 then poll_memory() end
  end
  return t
end

local slots, depth = {}, 0
for i = 1, 16 do slots[i] = slot_type() end
--- Returns a cleared `atomo_tensor *[1]` to pass to C as `out`. 16 of them are reused in turn: read the result before
--- 16 further calls.
function T.out()
  depth = depth % 16 + 1
  local s = slots[depth]
  s[0] = nil
  return s
end

--- Releases the native memory now; any later use raises.
---@usage local x = atomo.ones(2) x:free()
function Tensor:free()
  if type(self) ~= "table" then T.self_handle(self) end
  if rawget(self, "h") then
    if not rawget(self, "borrowed") then free_handle(self) end
    self.h, self.grad, self.node, self.base = nil, nil, nil, nil
    setmetatable(self, Freed)
  end
end

--- Returns another tensor with t's handle, for as long as t's owner wants: see T.expire. Freeing it does not free t.
function T.borrow(t) return setmetatable({h = t.h, borrowed = true}, Tensor) end

--- Frees t, unless it was freed; errors about a later use say when: "when the loader made the next batch".
function T.expire(t, when)
  if not rawget(t, "h") then return end
  t:free()
  rawset(t, "scope", when)
end

--- Keeps the tensor alive past the end of the innermost atomo.scope; returns it.
---@return atomo.Tensor self
---@usage atomo.scope(function() return t:keep() end)
function Tensor:keep()
  T.self_handle(self)
  self.kept = true
  return self
end

--- Sets field `passed` of the tensors among a scope's results.
local function mark_passed(mark, ...)
  for i = 1, select("#", ...) do
    local v = select(i, ...)
    if type(v) == "table" and getmetatable(v) == Tensor then v.passed = mark end
  end
end

--- Frees the tensors list[1] to list[count] of the scope of fn, except those that it returns or keeps.
local function free_all(list, count, fn)
  local outer = scope.value
  for i = 1, count do
    local t = list[i]
    if getmetatable(t) == Tensor then
      if t.passed then
        if outer then outer[#outer + 1] = t else guard(t) end
      elseif t.kept then
        t.kept = nil
        guard(t)
      else
        t:free()
        t.scope = fn
      end
    end
  end
end

local function leave(saved, mine, ...)
  blocks.leave(scope, saved)
  mark_passed(true, ...)
  free_all(mine, #mine, mine.fn)
  if mine.loose then free_all(mine.loose, mine.loose.count, mine.fn) end
  mark_passed(nil, ...)
  return ...
end

local function finish(saved, mine, ok, ...)
  if not ok then
    leave(saved, mine)
    error((...), 0)
  end
  return leave(saved, mine, ...)
end

--- Runs fn(...) and frees every tensor made inside, except those it returns and those kept by :keep(). Returns fn's
-- results. The training loop runs each step in a scope, so that native memory is reused without waiting for the
-- garbage collector.
---@param fn function
---@param ... any its arguments
---@return any fn's results
---@usage atomo.scope(function() return (atomo.ones(3) * 2):sum():item() end) --> 6
function T.scope(fn, ...)
  expect_function("scope", fn)
  local mine = {outer = scope.value, fn = fn}
  return finish(blocks.enter(scope, mine), mine, pcall(fn, ...))
end

--- Runs fn(...) outside all scopes: its tensors live until they are collected (parameters, optimizer state, caches).
function T.outside_scope(fn, ...) return blocks.run(scope, nil, fn, ...) end

--- Is v a tensor that was not freed?
---@param v any
---@return boolean
---@usage atomo.is_tensor(3) --> false
function T.is_tensor(v) return type(v) == "table" and getmetatable(v) == Tensor end
local is_tensor = T.is_tensor

--- Returns the handle of v, a method's `self`. It may be the first argument of a call with "." in place of ":"; C would
--- read the memory of what is no tensor.
function T.self_handle(v)
  local h = type(v) == "table" and v.h
  if h then return h end
  raise(("a tensor's method was called on a %s: write t:method(...), with a colon"):format(type(v)))
end

--- Raises unless v is a tensor (of that dtype): "conv2d: weight is a number, expected a tensor".
function T.expect(v, what, dtype)
  if not is_tensor(v) then
    T.refuse_freed(v, what)
    raise(("%s is %s, expected a tensor"):format(what, v == nil and "missing" or "a " .. type(v)))
  end
  if dtype and v.h.dtype ~= T.dtypes[dtype] then
    raise(("%s is %s, expected %s"):format(what, v:dtype(), dtype))
  end
  return v
end

--- Native memory in bytes: live, pooled (freed, kept for reuse), peak (of live), high_water (of both together),
--- peak_rss (of the whole process); system_allocs counts calls into malloc so far.
---@return table<string, number> bytes, and counts of allocations
---@usage atomo.mem().live >= 0 --> true
function T.mem()
  C.atomo_mem_stats(mem)
  return {live = number(mem, "live"), pooled = number(mem, "pooled"), peak = number(mem, "peak"),
    high_water = number(mem, "high_water"), system_allocs = number(mem, "system_allocs"),
    live_blocks = number(mem, "live_blocks"), peak_rss = C.atomo_peak_rss()}
end

return T
