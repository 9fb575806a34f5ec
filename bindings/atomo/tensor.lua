--- Tensors: strided views of native memory. f32 by default, i32 for labels and indices, u8 for images and bytes.
-- A Tensor is a table whose `h` is the C handle; autograd keeps its fields (requires_grad, grad, node) beside it.
-- Row-major; indices and dimensions are 1-based, negative dimensions count from the end; images are N,H,W,C.
local f = require "atomo.ffi"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.Tensor
---@field h ffi.cdata*        handle (atomo_tensor *)
---@field requires_grad boolean?
---@field grad atomo.Tensor?
local Tensor = {}
Tensor.__index = Tensor

local T = {Tensor = Tensor}

local dtypes = {f32 = C.ATOMO_F32, i32 = C.ATOMO_I32, u8 = C.ATOMO_U8}
local dtype_names = {[C.ATOMO_F32] = "f32", [C.ATOMO_I32] = "i32", [C.ATOMO_U8] = "u8"}
local pointer_types = {f32 = ffi.typeof "float *", i32 = ffi.typeof "int32_t *", u8 = ffi.typeof "uint8_t *"}
local dims8 = ffi.typeof "double[8]"
local slot_type = ffi.typeof "atomo_tensor *[1]"

-- ---- ownership ---------------------------------------------------------------------------------------------------

-- A freed tensor raises on any use, its handle included.
local Freed = {
  __index = function(_, key)
    raise(("tensor: '%s' of a tensor that was freed (by :free() or at the end of its atomo.scope; t:keep() saves it)")
      :format(tostring(key)))
  end,
  __tostring = function() return "[freed tensor]" end,
}

local scope           -- the innermost atomo.scope's list of tensors, or nil
local wraps = 0       -- since the last poll of native memory
local soft_limit = 1e9 -- bytes alive above which the Lua collector is asked to find dead tensors
local mem = ffi.new "atomo_mem"

--- LuaJIT's collector sees none of a tensor's native bytes: collect when they pass a limit.
local function poll_memory()
  wraps = 0
  C.atomo_mem_stats(mem)
  if mem.live > soft_limit then
    collectgarbage()
    C.atomo_mem_stats(mem)
    soft_limit = math.max(1e9, 1.5 * mem.live)
  end
end

--- Owns a new handle. Inside atomo.scope the tensor is freed when the scope ends.
function T.wrap(h)
  local t = setmetatable({h = ffi.gc(h, C.atomo_tensor_free)}, Tensor)
  if scope then
    scope[#scope + 1] = t
  else
    wraps = wraps + 1
    if wraps >= 64 then poll_memory() end
  end
  return t
end
local wrap = T.wrap

local slots, depth = {}, 0
for i = 1, 16 do slots[i] = slot_type() end
--- A cleared `atomo_tensor *[1]` to pass as `out` (16 in turn: take what C put there before using many more).
function T.out()
  depth = depth % 16 + 1
  local s = slots[depth]
  s[0] = nil
  return s
end
local out = T.out

--- Releases the native memory now; any later use raises.
function Tensor:free()
  local h = rawget(self, "h")
  if h then
    C.atomo_tensor_free(ffi.gc(h, nil))
    self.h, self.grad, self.node = nil, nil, nil
    setmetatable(self, Freed)
  end
end
Freed.free = function() end

--- Saves the tensor from the end of the enclosing atomo.scope.
function Tensor:keep()
  self.kept = true
  return self
end

local function leave(saved, mine, ...)
  scope = saved
  for i = 1, select("#", ...) do
    local v = select(i, ...)
    if type(v) == "table" and getmetatable(v) == Tensor then
      v.passed = true
      if saved then saved[#saved + 1] = v end
    end
  end
  for i = 1, #mine do
    local t = mine[i]
    if getmetatable(t) == Tensor then
      if t.passed then t.passed = nil
      elseif t.kept then t.kept = nil
      else t:free() end
    end
  end
  return ...
end

--- Runs fn and frees every tensor made inside, but for those it returns and those that were :keep()t.
-- The training loop runs each step in one: native memory is reused at once, whatever the collector does.
function T.scope(fn, ...)
  local saved, mine = scope, {}
  scope = mine
  local function finish(ok, ...)
    if not ok then
      leave(saved, mine)
      error((...), 0)
    end
    return leave(saved, mine, ...)
  end
  return finish(pcall(fn, ...))
end

--- Runs fn outside any scope: what it makes lives until collected (parameters, optimizer state, caches).
function T.outside_scope(fn, ...)
  local saved = scope
  scope = nil
  local function finish(ok, ...)
    scope = saved
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(fn, ...))
end

function T.is_tensor(v) return type(v) == "table" and getmetatable(v) == Tensor end
local is_tensor = T.is_tensor

--- Raises unless v is a tensor (of that dtype): "conv2d: weight is a number, expected a tensor".
function T.expect(v, what, dtype)
  if not is_tensor(v) then
    raise(("%s is %s, expected a tensor"):format(what, v == nil and "missing" or "a " .. type(v)))
  end
  if dtype and v.h.dtype ~= dtypes[dtype] then
    raise(("%s is %s, expected %s"):format(what, v:dtype(), dtype))
  end
  return v
end

-- ---- making ------------------------------------------------------------------------------------------------------

local function dtype_of(name, what)
  local d = dtypes[name or "f32"]
  if not d then raise(("%s: unknown dtype '%s', expected f32, i32 or u8"):format(what, tostring(name))) end
  return d
end

--- Reads (3, 4), (3, 4, "i32"), ({3, 4}) or ({3, 4}, "i32") into a C shape.
local function shape_of(what, ...)
  local first = ...
  local sizes, dtype
  if type(first) == "table" then
    sizes, dtype = first, select(2, ...)
  else
    sizes = {...}
    if type(sizes[#sizes]) == "string" then dtype = table.remove(sizes) end
  end
  if type(dtype) == "table" then dtype = dtype.dtype end
  local c = dims8()
  if #sizes > 8 then raise(("%s: %d dimensions, at most 8"):format(what, #sizes)) end
  for i = 1, #sizes do
    local n = sizes[i]
    if type(n) ~= "number" or n < 0 or n % 1 ~= 0 then
      raise(("%s: size %s in dimension %d, expected a whole number >= 0"):format(what, tostring(n), i))
    end
    c[i - 1] = n
  end
  return c, #sizes, dtype_of(dtype, what)
end

local function create(shape, ndim, dtype)
  local o = out()
  local status = C.atomo_tensor_new(dtype, ndim, shape, o)
  if status == -4 then -- ENOMEM: dead tensors may hold what is wanted
    collectgarbage()
    C.atomo_mem_trim()
    status = C.atomo_tensor_new(dtype, ndim, shape, o)
  end
  check(status)
  return wrap(o[0])
end

--- An uninitialised tensor: T.empty(3, 4), T.empty({3, 4}, "i32").
function T.empty(...) return create(shape_of("empty", ...)) end

function T.zeros(...) return create(shape_of("zeros", ...)):zero_() end
function T.ones(...) return create(shape_of("ones", ...)):fill_(1) end

---@param shape number[]
---@param value number
---@param dtype string?
function T.full(shape, value, dtype)
  return create(shape_of("full", shape, dtype)):fill_(value)
end

--- 0, 1, ..., n-1, or from start to below stop by step, as Python's range.
function T.arange(start, stop, step)
  if not stop then start, stop = 0, start end
  step = step or 1
  if step == 0 then raise "arange: step is 0" end
  local n = math.max(0, math.ceil((stop - start) / step))
  local t = T.empty(n)
  local p = t:data()
  for i = 0, n - 1 do p[i] = start + i * step end
  return t
end

function T.rand(...)
  local t = create(shape_of("rand", ...))
  check(C.atomo_fill_uniform(t.h, 0, 1))
  return t
end

function T.randn(...)
  local t = create(shape_of("randn", ...))
  check(C.atomo_fill_normal(t.h, 0, 1))
  return t
end

--- Restarts every random stream of this process: rand, randn, initialisation, math.random.
function T.manual_seed(seed)
  if type(seed) ~= "number" or seed < 0 or seed > 2 ^ 53 or seed % 1 ~= 0 then
    raise(("manual_seed: seed is %s, expected a whole number from 0 to 2^53"):format(tostring(seed)))
  end
  C.atomo_manual_seed(seed)
end

local function nested_shape(v, shape, level)
  if type(v) ~= "table" then return shape end
  shape[level] = #v
  if #v > 0 then nested_shape(v[1], shape, level + 1) end
  return shape
end

local function fill_nested(v, shape, level, p, at)
  if level > #shape then
    if type(v) == "boolean" then v = v and 1 or 0 end
    if type(v) ~= "number" then
      raise(("tensor: element %d is a %s, expected a number"):format(at + 1, type(v)))
    end
    p[at] = v
    return at + 1
  end
  if type(v) ~= "table" or #v ~= shape[level] then
    raise(("tensor: ragged table: a row of dimension %d has %s entries, the first has %d"):format(
      level, type(v) == "table" and #v or "no", shape[level]))
  end
  for i = 1, #v do at = fill_nested(v[i], shape, level + 1, p, at) end
  return at
end

--- From a (nested) table of numbers, a number, or another tensor (a copy): atomo.tensor({{1,2},{3,4}}, "i32").
function T.tensor(value, dtype)
  if is_tensor(value) then return value:to(dtype or value:dtype(), true) end
  if type(value) ~= "table" and type(value) ~= "number" then
    raise(("tensor: got a %s, expected a table of numbers, a number or a tensor"):format(type(value)))
  end
  local shape = nested_shape(value, {}, 1)
  local t = T.empty(shape, dtype)
  fill_nested(value, shape, 1, t:data(), 0)
  return t
end

--- A tensor of the same shape and dtype, uninitialised.
function T.empty_like(t) return create(t.h.shape, t.h.ndim, t.h.dtype) end
function T.zeros_like(t) return T.empty_like(t):zero_() end

-- ---- looking -----------------------------------------------------------------------------------------------------

function Tensor:dim() return self.h.ndim end
function Tensor:numel() return self.h.numel end
function Tensor:dtype() return dtype_names[self.h.dtype] end
function Tensor:is_contiguous() return C.atomo_tensor_is_contiguous(self.h) == 1 end

---@return number[]
function Tensor:shape()
  local s, h = {}, self.h
  for i = 1, h.ndim do s[i] = h.shape[i - 1] end
  return s
end

--- 0-based dimension of a 1-based (or negative) one.
local function dimension(t, d, what)
  local n = t.h.ndim
  if type(d) ~= "number" or d % 1 ~= 0 or d == 0 or d > n or d < -n then
    raise(("%s: dimension %s of a tensor with %d (1 to %d, or -%d to -1)"):format(what, tostring(d), n, n, n))
  end
  return d < 0 and n + d or d - 1
end
T.dimension = dimension

---@param i integer dimension
function Tensor:size(i)
  if i == nil then return self:shape() end
  return self.h.shape[dimension(self, i, "size")]
end

--- "[2,3]"
function T.shape_text(t)
  return "[" .. table.concat(is_tensor(t) and t:shape() or t, ",") .. "]"
end
local shape_text = T.shape_text

--- Pointer to the elements (float *, int32_t *, uint8_t *), 0-based, for tight loops. The tensor must be contiguous
--- and must outlive the pointer.
function Tensor:data()
  if not self:is_contiguous() then
    raise(("data: tensor %s is not contiguous, call :contiguous() first"):format(shape_text(self)))
  end
  return ffi.cast(pointer_types[self:dtype()], self.h.data)
end

local function offset_of(t, what, ...)
  local h, n = t.h, select("#", ...)
  if n ~= h.ndim then
    raise(("%s: %d indices for a tensor of %d dimensions"):format(what, n, h.ndim))
  end
  local at = 0
  for d = 0, n - 1 do
    local i = select(d + 1, ...)
    if type(i) ~= "number" or i % 1 ~= 0 or i < 1 or i > h.shape[d] then
      raise(("%s: index %s in dimension %d, expected 1 to %d"):format(what, tostring(i), d + 1, h.shape[d]))
    end
    at = at + (i - 1) * h.stride[d]
  end
  return at
end

function Tensor:get(...)
  local at = offset_of(self, "get", ...)
  return ffi.cast(pointer_types[self:dtype()], self.h.data)[at]
end

--- t:set(i, j, value)
function Tensor:set(...)
  local n = select("#", ...)
  local value = select(n, ...)
  if type(value) ~= "number" then raise(("set: value is a %s, expected a number"):format(type(value))) end
  local index = {...}
  local at = offset_of(self, "set", unpack(index, 1, n - 1))
  ffi.cast(pointer_types[self:dtype()], self.h.data)[at] = value
  C.atomo_tensor_touch(self.h)
  return self
end

--- The value of a tensor with one element.
function Tensor:item()
  if self.h.numel ~= 1 then
    raise(("item: tensor %s has %d elements, expected 1"):format(shape_text(self), self.h.numel))
  end
  return ffi.cast(pointer_types[self:dtype()], self.h.data)[0]
end

function Tensor:totable()
  local c = self:is_contiguous() and self or self:detach():contiguous()
  local p, at, shape = c:data(), 0, self:shape()
  local function level(d)
    if d > #shape then
      at = at + 1
      return p[at - 1]
    end
    local row = {}
    for i = 1, shape[d] do row[i] = level(d + 1) end
    return row
  end
  return level(1)
end

--- The elements' bytes as a Lua string (row-major).
function Tensor:bytes()
  local c = self:is_contiguous() and self or self:detach():contiguous()
  return ffi.string(c.h.data, c.h.numel * (c:dtype() == "u8" and 1 or 4))
end

-- ---- filling -----------------------------------------------------------------------------------------------------

--- Raises where a change in place would break the graph that backward needs.
local function changing(t, what)
  if t.requires_grad and T.recording() then
    raise(what .. ": a tensor that requires a gradient cannot be changed in place while recording; use atomo.no_grad")
  end
  C.atomo_tensor_touch(t.h)
end
T.changing = changing
T.recording = function() return false end -- autograd replaces it

function Tensor:fill_(v)
  changing(self, "fill_")
  check(C.atomo_fill(self.h, v))
  return self
end
function Tensor:zero_() return self:fill_(0) end

--- Copies u (broadcast, converted) into this tensor.
function Tensor:copy_(u)
  if type(u) == "number" then return self:fill_(u) end
  T.expect(u, "copy_: source")
  changing(self, "copy_")
  check(C.atomo_copy(self.h, u.h))
  return self
end

--- self += alpha * x
function Tensor:axpy_(alpha, x)
  T.expect(x, "axpy_: x")
  changing(self, "axpy_")
  check(C.atomo_axpy(self.h, alpha, x.h))
  return self
end

local function in_place(name, op)
  Tensor[name] = function(self, u)
    changing(self, name)
    local direct = self:is_contiguous()
    local o = out()
    if direct then o[0] = self.h end
    if type(u) == "number" then
      check(C.atomo_scalar(op, self.h, u, 0, o))
    else
      T.expect(u, name .. ": operand")
      check(C.atomo_binary(op, self.h, u.h, o))
    end
    if not direct then
      local result = wrap(o[0])
      check(C.atomo_copy(self.h, result.h))
      result:free()
    end
    return self
  end
end
in_place("add_", C.ATOMO_ADD)
in_place("sub_", C.ATOMO_SUB)
in_place("mul_", C.ATOMO_MUL)
in_place("div_", C.ATOMO_DIV)
in_place("pow_", C.ATOMO_POW)
in_place("maximum_", C.ATOMO_MAXIMUM)
in_place("minimum_", C.ATOMO_MINIMUM)

function Tensor:uniform_(lo, hi)
  changing(self, "uniform_")
  check(C.atomo_fill_uniform(self.h, lo or 0, hi or 1))
  return self
end

function Tensor:normal_(mean, std)
  changing(self, "normal_")
  check(C.atomo_fill_normal(self.h, mean or 0, std or 1))
  return self
end

--- The same elements as another dtype; itself where it already is (unless `always`).
function Tensor:to(dtype, always)
  local d = dtype_of(dtype, "to")
  if d == self.h.dtype and not always then return self end
  local t = create(self.h.shape, self.h.ndim, d)
  check(C.atomo_copy(t.h, self.h))
  return t
end
function Tensor:float() return self:to "f32" end
function Tensor:int() return self:to "i32" end

--- A view of the same elements outside the graph.
function Tensor:detach()
  local o = out()
  check(C.atomo_tensor_view(self.h, self.h.ndim, self.h.shape, self.h.stride, 0, o))
  return wrap(o[0])
end

--- Number of NaN and Inf entries.
function Tensor:count_nonfinite()
  local count, first = ffi.new "double[1]", ffi.new "double[1]"
  check(C.atomo_count_nonfinite(self.h, count, first))
  return count[0], first[0] >= 0 and first[0] + 1 or nil
end

-- ---- memory and printing -----------------------------------------------------------------------------------------

--- Native memory in bytes: live, pooled, peak; system_allocs counts calls into malloc so far.
function T.mem()
  C.atomo_mem_stats(mem)
  return {live = mem.live, pooled = mem.pooled, peak = mem.peak, system_allocs = mem.system_allocs,
    live_blocks = mem.live_blocks}
end

function T.set_num_threads(n) check(C.atomo_set_num_threads(n)) end
function T.num_threads() return C.atomo_num_threads() end

local function format_for(t)
  if t:dtype() ~= "f32" then return "%d" end
  local largest, whole = 0, true
  local p, n = t:data(), math.min(t.h.numel, 10000)
  for i = 0, n - 1 do
    local a = math.abs(p[i])
    if a == a and a < math.huge then
      if a > largest then largest = a end
      if a % 1 ~= 0 then whole = false end
    end
  end
  if whole and largest < 1e7 then return "%.0f" end
  if largest >= 1e5 or (largest < 1e-3 and largest > 0) then return "%.4e" end
  return "%.4f"
end

local MAX_ROWS, MAX_COLS = 20, 12

--- Lines of the last two dimensions, columns aligned, long ones cut with "...".
local function print_matrix(p, at, rows, cols, fmt, lines)
  local width, cells = 0, {}
  for r = 1, math.min(rows, MAX_ROWS) do
    cells[r] = {}
    for c = 1, math.min(cols, MAX_COLS) do
      local text = fmt:format(p[at + (r - 1) * cols + c - 1])
      cells[r][c] = text
      width = math.max(width, #text)
    end
  end
  for _, row in ipairs(cells) do
    for c, text in ipairs(row) do row[c] = (" "):rep(width - #text) .. text end
    lines[#lines + 1] = " " .. table.concat(row, "  ") .. (cols > MAX_COLS and "  ..." or "")
  end
  if rows > MAX_ROWS then lines[#lines + 1] = (" ... %d rows"):format(rows) end
end

Tensor.__tostring = function(self)
  local shape = self:shape()
  local tail = ("[atomo.Tensor %s %s]"):format(self:dtype(), #shape == 0 and "scalar" or table.concat(shape, "x"))
  if self.h.numel == 0 then return tail end
  local c = self:is_contiguous() and self or self:detach():contiguous()
  local p, fmt, lines = c:data(), format_for(c), {}
  if #shape == 0 then return fmt:format(p[0]) .. "\n" .. tail end
  local cols = shape[#shape]
  if #shape == 1 then
    for i = 1, math.min(cols, 100) do lines[i] = " " .. fmt:format(p[i - 1]) end
    if cols > 100 then lines[#lines + 1] = (" ... %d elements"):format(cols) end
  else
    local rows = shape[#shape - 1]
    local blocks = self.h.numel / (rows * cols)
    for b = 0, math.min(blocks, 8) - 1 do
      if #shape > 2 then
        local index, rest = {}, b
        for d = #shape - 2, 1, -1 do
          index[d] = rest % shape[d] + 1
          rest = math.floor(rest / shape[d])
        end
        lines[#lines + 1] = ("(%s,.,.) ="):format(table.concat(index, ","))
      end
      print_matrix(p, b * rows * cols, rows, cols, fmt, lines)
    end
    if blocks > 8 then lines[#lines + 1] = ("... %d matrices"):format(blocks) end
  end
  lines[#lines + 1] = tail
  return table.concat(lines, "\n")
end

return T
