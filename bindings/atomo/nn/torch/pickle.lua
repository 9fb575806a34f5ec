--- Python's pickle, restricted: it builds tables and calls nothing. A class or function of the pickle, and whatever it
-- was called with, become a table {class=, args=, state=} that only names it. Protocols 2 to 5, as torch.save writes
-- them.
local ffi = require "ffi"

local M = {}

--- None inside lists and dictionaries.
M.none = setmetatable({}, {__tostring = function() return "None" end})

---@class atomo.pickle.Sequence  a tuple or list: values 1 .. n
---@field kind string  "tuple" or "list"
---@field n integer

---@class atomo.pickle.Dict
---@field kind string   "dict"
---@field keys any[]    in their order
---@field values any[]

local function sequence(kind, values, n)
  values.kind, values.n = kind, n or 0
  return values
end

local function new_dict() return {kind = "dict", keys = {}, values = {}} end

--- Sets a key of a dictionary, replacing an earlier value.
local function put(dict, key, value)
  for i, known in ipairs(dict.keys) do
    if rawequal(known, key) then
      dict.values[i] = value
      return
    end
  end
  dict.keys[#dict.keys + 1], dict.values[#dict.values + 1] = key, value
end

--- Returns the value of a key; nil if it is absent.
---@param dict atomo.pickle.Dict
function M.get(dict, key)
  for i, known in ipairs(dict.keys) do
    if known == key then return dict.values[i] end
  end
end

-- ---- the machine -------------------------------------------------------------------------------------------------

local Machine = {}
Machine.__index = Machine

local function fail(text, ...) error({pickle = text:format(...)}, 0) end

function Machine:bytes(n)
  if n > #self.text - self.at + 1 then fail("it ends within a value") end
  local part = self.text:sub(self.at, self.at + n - 1)
  self.at = self.at + n
  return part
end

function Machine:little(n)
  local v = 0
  for i, b in ipairs {self:bytes(n):byte(1, n)} do v = v + b * 256 ^ (i - 1) end
  return v
end

--- A signed little-endian number of n bytes.
function Machine:signed(n)
  if n > 8 then fail("a number of %d bytes", n) end
  local v = self:little(n)
  return n > 0 and v >= 2 ^ (8 * n - 1) and v - 2 ^ (8 * n) or v
end

function Machine:line()
  local stop = self.text:find("\n", self.at, true)
  if not stop then fail("it ends within a line") end
  local line = self.text:sub(self.at, stop - 1)
  self.at = stop + 1
  return line
end

function Machine:push(v)
  self.top = self.top + 1
  self.stack[self.top] = v
end

function Machine:pop()
  if self.top <= (self.marks[#self.marks] or 0) then fail("a value is missing on its stack") end
  local v = self.stack[self.top]
  self.stack[self.top], self.top = nil, self.top - 1
  return v
end

--- Returns the values above the last mark, and their number.
function Machine:pop_mark()
  local mark = table.remove(self.marks)
  if not mark then fail("a mark is missing on its stack") end
  local values, n = {}, self.top - mark
  for i = 1, n do values[i], self.stack[mark + i] = self.stack[mark + i], nil end
  self.top = mark
  return values, n
end

function Machine:peek(kind)
  local v = self.top > (self.marks[#self.marks] or 0) and self.stack[self.top]
  if type(v) ~= "table" then fail("a %s is missing on its stack", kind) end
  return v
end

function Machine:remember(i)
  if self.top == 0 then fail("a value is missing on its stack") end
  self.memo[i] = self.stack[self.top]
end

function Machine:recall(i)
  if self.memo[i] == nil then fail("it uses value %d before it made it", i) end
  self:push(self.memo[i])
end

--- Adds key, value, key, value, ... to a dictionary. Other objects keep nothing.
local function set_items(target, values, n)
  if n % 2 ~= 0 then fail("a dictionary has a key without a value") end
  if target.kind ~= "dict" then return end
  for i = 1, n, 2 do put(target, values[i], values[i + 1]) end
end

local function append(target, values, n)
  if target.kind ~= "list" then return end
  for i = 1, n do target[target.n + i] = values[i] end
  target.n = target.n + n
end

--- Returns what calling `class` with `args` is here: a dictionary for collections.OrderedDict, else a description.
local function called(class, args)
  if type(class) ~= "table" or type(args) ~= "table" then fail("it calls something that is no class") end
  if class.name == "collections OrderedDict" and args.n == 0 then return new_dict() end
  return {kind = "object", class = class.name or "an object", args = args}
end

--- Opcode -> function(machine). "." (STOP) is handled by M.read.
local opcodes = {
  ["\128"] = function(m) m:bytes(1) end,                                       -- PROTO
  ["\149"] = function(m) m:bytes(8) end,                                       -- FRAME
  ["("] = function(m) m.marks[#m.marks + 1] = m.top end,                       -- MARK
  ["0"] = function(m) m:pop() end,                                             -- POP
  ["1"] = function(m) m:pop_mark() end,                                        -- POP_MARK
  ["N"] = function(m) m:push(M.none) end,
  ["\136"] = function(m) m:push(true) end,
  ["\137"] = function(m) m:push(false) end,
  ["K"] = function(m) m:push(m:little(1)) end,                                 -- BININT1
  ["M"] = function(m) m:push(m:little(2)) end,                                 -- BININT2
  ["J"] = function(m) m:push(m:signed(4)) end,                                 -- BININT
  ["\138"] = function(m) m:push(m:signed(m:little(1))) end,                    -- LONG1
  ["G"] = function(m) m:push(ffi.cast("const double *", ffi.new("char[8]", m:bytes(8):reverse()))[0]) end, -- BINFLOAT
  ["X"] = function(m) m:push(m:bytes(m:little(4))) end,                        -- BINUNICODE
  ["\140"] = function(m) m:push(m:bytes(m:little(1))) end,                     -- SHORT_BINUNICODE
  ["\141"] = function(m) m:push(m:bytes(m:little(8))) end,                     -- BINUNICODE8
  ["U"] = function(m) m:push(m:bytes(m:little(1))) end,                        -- SHORT_BINSTRING
  ["T"] = function(m) m:push(m:bytes(m:little(4))) end,                        -- BINSTRING
  ["C"] = function(m) m:push(m:bytes(m:little(1))) end,                        -- SHORT_BINBYTES
  ["B"] = function(m) m:push(m:bytes(m:little(4))) end,                        -- BINBYTES
  [")"] = function(m) m:push(sequence("tuple", {})) end,
  ["t"] = function(m) m:push(sequence("tuple", m:pop_mark())) end,
  ["\133"] = function(m) m:push(sequence("tuple", {m:pop()}, 1)) end,
  ["\134"] = function(m) local b, a = m:pop(), m:pop() m:push(sequence("tuple", {a, b}, 2)) end,
  ["\135"] = function(m) local c, b, a = m:pop(), m:pop(), m:pop() m:push(sequence("tuple", {a, b, c}, 3)) end,
  ["]"] = function(m) m:push(sequence("list", {})) end,
  ["l"] = function(m) m:push(sequence("list", m:pop_mark())) end,
  ["a"] = function(m) local v = m:pop() append(m:peek "list", {v}, 1) end,
  ["e"] = function(m) local values, n = m:pop_mark() append(m:peek "list", values, n) end,
  ["}"] = function(m) m:push(new_dict()) end,
  ["d"] = function(m)
    local dict, values, n = new_dict(), m:pop_mark()
    set_items(dict, values, n)
    m:push(dict)
  end,
  ["s"] = function(m) local v, k = m:pop(), m:pop() set_items(m:peek "dictionary", {k, v}, 2) end,
  ["u"] = function(m) local values, n = m:pop_mark() set_items(m:peek "dictionary", values, n) end,
  ["\143"] = function(m) m:push(sequence("list", {})) end,                     -- EMPTY_SET
  ["\144"] = function(m) local values, n = m:pop_mark() append(m:peek "set", values, n) end, -- ADDITEMS
  ["c"] = function(m) local module = m:line() m:push {kind = "class", name = module .. " " .. m:line()} end,
  ["\147"] = function(m)                                                       -- STACK_GLOBAL
    local name, module = m:pop(), m:pop()
    m:push {kind = "class", name = ("%s %s"):format(tostring(module), tostring(name))}
  end,
  ["R"] = function(m) local args, class = m:pop(), m:pop() m:push(called(class, args)) end,
  ["\129"] = function(m) local args, class = m:pop(), m:pop() m:push(called(class, args)) end, -- NEWOBJ
  ["b"] = function(m) local state, v = m:pop(), m:peek "object" v.state = state end, -- BUILD
  ["q"] = function(m) m:remember(m:little(1)) end,                             -- BINPUT
  ["r"] = function(m) m:remember(m:little(4)) end,
  ["\148"] = function(m) m:remember(m.memoized) m.memoized = m.memoized + 1 end, -- MEMOIZE
  ["h"] = function(m) m:recall(m:little(1)) end,                               -- BINGET
  ["j"] = function(m) m:recall(m:little(4)) end,
  ["Q"] = function(m) m:push {kind = "persistent", id = m:pop()} end,          -- BINPERSID
}

--- Returns the value of a pickle, or nil and what is wrong with it.
---@param text string
---@return any value
---@return string? why
function M.read(text)
  local m = setmetatable({text = text, at = 1, stack = {}, top = 0, marks = {}, memo = {}, memoized = 0}, Machine)
  local ok, result = pcall(function()
    while true do
      local code = m:bytes(1)
      if code == "." then return m:pop() end
      local run = opcodes[code] or fail("byte %d has opcode %d, which is not read", m.at - 1, code:byte())
      run(m)
    end
  end)
  if ok then return result end
  if type(result) == "table" and result.pickle then return nil, result.pickle end
  error(result, 0)
end

return M
