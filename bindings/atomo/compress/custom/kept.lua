--- State that a user's function keeps per tensor from step to step (stage 4): info.state of decompose, encode and
-- decode. The function gets a copy and may change it; commit replaces the state by the copy, drop forgets the copy. So
-- a step that is given up leaves the state as it was. A state is a table of tensors, numbers, texts, booleans and
-- tables of these; save returns it as bytes, bit for bit.
local ffi = require "ffi"
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise

local Kept = {}
Kept.__index = Kept

local DEEPEST = 16 -- levels of tables in tables: a table that contains itself is refused
local width = {f32 = 4, i32 = 4, u8 = 1}

--- Returns a contiguous copy of a tensor that no scope frees.
local function copy_of(t) return T.outside_scope(T.empty, t:shape(), t:dtype()):copy_(t) end

--- Returns v with each tensor and table replaced by a copy; what: its path in errors. each(t) returns the tensor that
--- replaces t.
local function copied(v, what, each, depth)
  if T.is_tensor(v) then return each(v) end
  local kind = type(v)
  if kind == "number" or kind == "string" or kind == "boolean" then return v end
  if kind ~= "table" or getmetatable(v) then
    T.refuse_freed(v, what)
    raise(("%s is a %s, expected a tensor, number, text, boolean or a table of these"):format(what, kind))
  end
  if depth > DEEPEST then raise(("%s: tables in tables, deeper than %d"):format(what, DEEPEST)) end
  local out = {}
  for key, item in pairs(v) do
    if type(key) ~= "number" and type(key) ~= "string" then
      raise(("%s has a key that is a %s, expected a text or number"):format(what, type(key)))
    end
    out[key] = copied(item, ("%s.%s"):format(what, tostring(key)), each, depth + 1)
  end
  return out
end

local function each_tensor(v, fn)
  if T.is_tensor(v) then return fn(v) end
  for _, item in pairs(type(v) == "table" and v or {}) do each_tensor(item, fn) end
end

local function free_all(v) each_tensor(v, function(t) t:free() end) end

--- Returns the state of tensor i in this step, which the function may change.
function Kept:open(i)
  if not self.working[i] then
    local mine = {}
    self.working[i] = copied(self.held[i] or {}, "state", function(t)
      t = copy_of(t)
      mine[t] = true
      return t
    end, 0)
    self.mine[i] = mine
  end
  return self.working[i]
end

--- Call it after the function: copies the tensors that it has put in the state of tensor i, which others own. state:
--- the table that the function was given, or one that replaces it.
function Kept:close(i, state)
  local mine, after = self.mine[i], {}
  local new = copied(state, ("%s: info.state"):format(self.name), function(t)
    if not mine[t] then t = copy_of(t) end
    after[t] = true
    return t
  end, 0)
  for t in pairs(mine) do
    if not after[t] then t:free() end
  end
  self.mine[i], self.working[i] = after, new
end

--- Keeps what the function has changed in this step.
function Kept:commit()
  for i, state in pairs(self.working) do
    free_all(self.held[i])
    self.held[i], self.working[i], self.mine[i] = next(state) ~= nil and state or nil, nil, nil
  end
end

--- Forgets what the function has changed in this step.
function Kept:drop()
  for i, state in pairs(self.working) do
    free_all(state)
    self.working[i], self.mine[i] = nil, nil
  end
end

--- Forgets the state of tensor i: it has another shape now.
function Kept:forget(i) self.held[i], self.working[i], self.mine[i] = nil, nil, nil end

-- ---- bytes -------------------------------------------------------------------------------------------------------

local function number_text(v) return ffi.string(ffi.new("double[1]", v), 8) end

--- Appends the bytes of v to parts: a letter for its kind, then its contents. Keys are in a fixed order.
local function write(parts, v)
  local function put(text) parts[#parts + 1] = text end
  local kind = type(v)
  if kind == "number" then return put("n" .. number_text(v)) end
  if kind == "boolean" then return put(v and "t" or "f") end
  if kind == "string" then return put("s" .. number_text(#v) .. v) end
  if T.is_tensor(v) then
    local shape, dtype = v:shape(), v:dtype()
    put("x" .. ("%-3s"):format(dtype) .. number_text(#shape))
    for _, d in ipairs(shape) do put(number_text(d)) end
    return put(ffi.string(v.h.data, width[dtype] * v:numel()))
  end
  local keys = {}
  for key in pairs(v) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) == "number" end
    return a < b
  end)
  put("{" .. number_text(#keys))
  for _, key in ipairs(keys) do
    write(parts, key)
    write(parts, v[key])
  end
end

--- Returns the value that begins at byte `at` of text, and the byte after it. Raises for bytes that write did not make.
local function read(text, at)
  local function take(n)
    if n < 0 or n ~= math.floor(n) or at + n - 1 > #text then error("its bytes end too early", 0) end
    at = at + n
    return text:sub(at - n, at - 1)
  end
  local function number() return ffi.cast("const double *", take(8) .. "\0")[0] end
  local kind = take(1)
  if kind == "n" then return number(), at end
  if kind == "t" or kind == "f" then return kind == "t", at end
  if kind == "s" then return take(number()), at end
  if kind == "x" then
    local dtype, shape, bytes = take(3):match "%S+", {}, 1
    for d = 1, number() do shape[d] = number() end
    for _, d in ipairs(shape) do bytes = bytes * d end
    if not width[dtype] then error("its bytes have another form", 0) end
    local data = take(width[dtype] * bytes)
    local t = T.outside_scope(T.empty, shape, dtype)
    ffi.copy(t.h.data, data, #data)
    return t, at
  end
  if kind ~= "{" then error("its bytes have another form", 0) end
  local out = {}
  for _ = 1, number() do
    local key, value
    key, at = read(text, at)
    value, at = read(text, at)
    out[key] = value
  end
  return out, at
end

--- Returns the state of tensor i as a u8 tensor; nil if it is empty.
function Kept:save(i)
  local state = self.held[i]
  if not state then return end
  local parts = {}
  write(parts, state)
  local text = table.concat(parts)
  local bytes = T.empty({#text}, "u8")
  ffi.copy(bytes.h.data, text, #text)
  return bytes
end

--- Sets the state of tensor i to a result of save.
function Kept:load(i, bytes)
  local text = ffi.string(bytes:contiguous().h.data, bytes:numel())
  local ok, state, at = pcall(read, text, 1)
  if not ok or at ~= #text + 1 or type(state) ~= "table" then
    raise(("%s: load_state_dict: the state of tensor %d is no saved state: %s"):format(self.name, i,
      ok and "other bytes follow it" or tostring(state)))
  end
  self:forget(i)
  self.held[i] = state
end

--- Makes the states of a compressor's tensors; name: the compressor's, for errors.
return function(name)
  return setmetatable({name = name, held = {}, working = {}, mine = {}}, Kept)
end
