--- State that a user's function keeps per tensor from step to step (stage 4): info.state of decompose, encode and
-- decode. The function gets a copy and may change it; commit replaces the state by the copy, drop forgets the copy. So
-- a step that is given up leaves the state as it was. A state is a table of tensors, numbers, texts, booleans and
-- tables of these; save returns it as bytes, bit for bit.
local ffi = require "ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local values = require "atomo.compress.custom.values"
local raise = require("atomo.ffi").raise

local Kept = {}
Kept.__index = Kept

local DEEPEST = 16 -- levels of tables in tables: a table that contains itself is refused

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
    out[key] = copied(item, ("%s.%s"):format(what, brief(key)), each, depth + 1)
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

-- ---- checkpoints ----------------------------------------------------------------------------------------------------

--- Returns the state of tensor i as a u8 tensor; nil if it is empty.
function Kept:save(i)
  local state = self.held[i]
  if not state then return end
  local text = values.write(state)
  local bytes = T.empty({#text}, "u8")
  ffi.copy(bytes.h.data, text, #text)
  return bytes
end

--- Sets the state of tensor i to a result of save.
function Kept:load(i, bytes)
  local text = ffi.string(bytes:contiguous().h.data, bytes:numel())
  local state, why = values.read(text)
  if type(state) ~= "table" then
    raise(("%s: load_state_dict: the state of tensor %d is no saved state: %s"):format(self.name, i,
      why or "it is no table"))
  end
  self:forget(i)
  self.held[i] = state
end

--- Makes the states of a compressor's tensors; name: the compressor's, for errors.
return function(name)
  return setmetatable({name = name, held = {}, working = {}, mine = {}}, Kept)
end
