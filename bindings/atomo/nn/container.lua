--- Containers of modules: Sequential, ModuleList, Residual and Concat.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local length = require "atomo.core.list"
local ops = require "atomo.autograd.ops"
local base = require "atomo.nn.module"
local Module, is_module, raise = base.Module, base.is_module, f.raise

local M = {}

---@class atomo.Sequential: atomo.Module
local Sequential = Module:extend "Sequential"

local function check_entry(who, i, layer)
  if not is_module(layer) and type(layer) ~= "function" then
    raise(("%s: entry %d is a %s, expected a module or a function"):format(who, i, type(layer)))
  end
end

--- Returns the number of entries of a container. Raises for a gap, at which # may end: the entries after it would be
--- trained and saved, but not called.
local function entries(self)
  local n, keys = #self, self._order
  for i = 1, #keys do
    local k = keys[i]
    if type(k) == "number" and k > n and rawget(self, k) ~= nil then n = k end
  end
  for i = 1, n do
    if self[i] == nil then
      raise(("%s: entry %d is nil, but entry %d is there; table.remove(m, i) closes the gap"):format(self.class_name, i,
        n))
    end
  end
  return n
end

--- Adds the entries, or those of one list, to a container.
local function add_all(self, who, ...)
  local layers = ...
  if is_module(layers) or type(layers) ~= "table" then layers = {...} end
  local largest = 0
  for k in pairs(layers) do
    if type(k) ~= "number" then raise(("%s: key '%s', expected a list of modules"):format(who, brief(k))) end
    largest = math.max(largest, k)
  end
  for i = 1, largest do self:add(layers[i]) end
end

--- nn.Sequential{a, b, c} or nn.Sequential(a, b, c): applies the entries in turn, each a module or a function of a
--- tensor.
---@param ... atomo.Module|function the entries, or one list of them
---@usage nn.Sequential {nn.Flatten(), nn.Linear(192, 10)} (x):size(2) --> 10
function Sequential:init(...) add_all(self, "Sequential", ...) end

--- Appends a layer; returns self.
function Sequential:add(layer)
  check_entry("Sequential", #self + 1, layer)
  self[#self + 1] = layer
  return self
end

function Sequential:forward(x)
  for i = 1, entries(self) do x = self[i](x) end
  return x
end

M.Sequential = Sequential

---@class atomo.ModuleList: atomo.Module
local ModuleList = Module:extend "ModuleList"

--- nn.ModuleList{a, b, c} or nn.ModuleList(a, b, c): a list whose entries, list[1] to list[#list], are parts of the
--- module that holds it. A plain table in a field of a module does the same. It has no forward: call the entries.
---@param ... atomo.Module the entries, or one list of them
---@usage #nn.ModuleList {nn.ReLU(), nn.Linear(2, 2)} --> 2
function ModuleList:init(...) add_all(self, "ModuleList", ...) end

--- Appends a module; returns self. append is another name.
function ModuleList:add(layer)
  if not is_module(layer) then
    raise(("ModuleList: entry %d is a %s, expected a module"):format(#self + 1, type(layer)))
  end
  self[#self + 1] = layer
  return self
end
ModuleList.append = ModuleList.add

function ModuleList:forward(_)
  raise "ModuleList: it has no forward; call its entries: for i = 1, #list do x = list[i](x) end, or use nn.Sequential"
end

M.ModuleList = ModuleList

---@class atomo.Residual: atomo.Module
local Residual = Module:extend "Residual"

--- nn.Residual(body, shortcut): body(x) + shortcut(x). Default shortcut: the identity.
---@param body atomo.Module|function
---@param shortcut atomo.Module|function|nil
---@usage nn.Residual(nn.ReLU())(atomo.ones(1)):item() --> 2
function Residual:init(body, shortcut)
  check_entry("Residual", 1, body)
  if shortcut ~= nil then check_entry("Residual", 2, shortcut) end
  self.body = body
  self.shortcut = shortcut
end

function Residual:forward(x)
  return self.body(x) + (self.shortcut and self.shortcut(x) or x)
end

M.Residual = Residual

---@class atomo.Concat: atomo.Module
local Concat = Module:extend "Concat"

--- nn.Concat{a, b, ...}: applies all entries to the same input and joins the results along the last dimension
--- (channels). An entry `function(x) return x end` adds the input itself, as in DenseNet.
---@param ... atomo.Module|function the entries, or one list of them
---@usage nn.Concat {function(v) return v end, function(v) return v end} (x):size(4) --> 6
function Concat:init(...)
  local layers = ...
  if is_module(layers) or type(layers) ~= "table" then layers = {...} end
  if length(layers, "Concat") == 0 then raise "Concat: no entries, expected at least one module or function" end
  for i, layer in ipairs(layers) do
    check_entry("Concat", i, layer)
    self[i] = layer
  end
end

function Concat:forward(x)
  local parts = {}
  for i = 1, entries(self) do parts[i] = self[i](x) end
  return ops.cat(parts, -1)
end

M.Concat = Concat

return M
