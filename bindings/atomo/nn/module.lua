--- nn.Module: a part of a network with parameters, buffers and submodules.
--   local Net = nn.Module:extend "Net"
--   function Net:init(opts) self.fc = nn.Linear(opts.inputs, 10) end
--   function Net:forward(x) return self.fc(x) end
--   local net = Net{inputs = 4};  net(x);  net:parameters()
-- Whatever is assigned to a field is registered, in the order of first assignment: modules, parameters (atomo.param),
-- lists of modules. Names in state_dict are PyTorch's: "conv1.weight", list and Sequential entries count from 0.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local raise, is_tensor = f.raise, T.is_tensor

---@class atomo.Module
---@field training boolean
local Module = {training = true, class_name = "Module"}
Module.__index = Module

local function is_module(v)
  return type(v) == "table" and type(getmetatable(v)) == "table" and rawget(getmetatable(v), "is_module_class") == true
end

-- ---- where in the network an error happened ------------------------------------------------------------------------

local active, depth = {}, 0 -- modules being called, outermost first; an error leaves entries behind

local function left(...)
  depth = math.max(depth - 1, 0)
  return ...
end

--- Under which name parent holds child: "conv1", "layer 3" for a place in a list; nil where it does not.
local function name_in(parent, child)
  for key, value in pairs(parent) do
    if value == child then return type(key) == "number" and "layer " .. key or tostring(key) end
    if type(value) == "table" and not is_tensor(value) and getmetatable(value) == nil then
      for i, item in ipairs(value) do
        if item == child then return ("%s, layer %d"):format(tostring(key), i) end
      end
    end
  end
end

--- " [in Net > fc2: Linear]", from the modules that hold each other; what an earlier error left behind does not.
function f.context()
  local path, i = {}, depth
  if i == 0 then return "" end
  while i > 1 do
    local name = name_in(active[i - 1], active[i])
    if not name then break end
    table.insert(path, 1, name)
    i = i - 1
  end
  local top, bottom = active[i].class_name, active[depth].class_name
  depth = 0
  if #path == 0 then return (" [in %s]"):format(top) end
  return (" [in %s > %s: %s]"):format(top, table.concat(path, " > "), bottom)
end

local metamethods = {
  __call = function(self, ...)
    depth = depth + 1
    active[depth] = self
    return left(self:forward(...))
  end,
  __newindex = function(self, key, value) -- the first assignment of a field
    local order, listed = rawget(self, "_order"), rawget(self, "_listed")
    if not listed[key] then
      order[#order + 1] = key
      listed[key] = true
    end
    rawset(self, key, value)
  end,
  __tostring = function(self) return self:text() end,
}

local function construct(class, ...)
  local self = setmetatable({_order = {}, _listed = {}, _buffers = {}}, class)
  if class.init then class.init(self, ...) end
  return self
end

--- A new class that inherits from this one; calling the class makes an instance and runs its init(...).
---@param name string
function Module:extend(name)
  if type(name) ~= "string" then raise(("Module:extend: name is a %s, expected a string"):format(type(name))) end
  local class = {class_name = name, is_module_class = true}
  for k, fn in pairs(metamethods) do class[k] = rawget(self, k) or fn end
  class.__index = class
  return setmetatable(class, {__index = self, __call = construct})
end

function Module:forward() raise(self.class_name .. ": forward is not defined") end

--- A tensor that belongs to the state but gets no gradient (running statistics).
function Module:register_buffer(name, t)
  self[name] = t:keep()
  self._buffers[name] = true
end

-- ---- walking ---------------------------------------------------------------------------------------------------

local function is_module_list(v)
  return type(v) == "table" and getmetatable(v) == nil and is_module(v[1])
end

--- Calls visit(name, value) for the fields in order; entries of lists as "name.0", "name.1".
local function each_field(self, visit)
  for _, key in ipairs(self._order) do
    local value = rawget(self, key)
    if is_module_list(value) then
      for i, m in ipairs(value) do visit(key .. "." .. (i - 1), m) end
    elseif value ~= nil then
      visit(type(key) == "number" and tostring(key - 1) or key, value)
    end
  end
end

local function walk(self, prefix, seen, visit)
  if seen[self] then return end
  seen[self] = true
  visit(prefix, self)
  each_field(self, function(name, value)
    if is_module(value) then walk(value, prefix == "" and name or prefix .. "." .. name, seen, visit) end
  end)
end

--- {name, module} of this module ("") and everything below, in order.
function Module:named_modules()
  local list = {}
  walk(self, "", {}, function(name, m) list[#list + 1] = {name, m} end)
  return list
end

--- {name, submodule} one level down.
function Module:named_children()
  local list = {}
  each_field(self, function(name, value)
    if is_module(value) then list[#list + 1] = {name, value} end
  end)
  return list
end

--- Calls visit(full name, tensor, is_buffer) for all parameters and buffers, shared ones under each name.
local function each_state(self, visit)
  for _, entry in ipairs(self:named_modules()) do
    local prefix, m = entry[1], entry[2]
    each_field(m, function(name, value)
      if is_tensor(value) and (m._buffers[name] or (value.requires_grad and not value.node)) then
        visit(prefix == "" and name or prefix .. "." .. name, value, m._buffers[name] or false)
      end
    end)
  end
end

--- A list of {name, tensor}: the parameters, or the buffers, each once.
local function named_state(self, buffers)
  local list, seen = {}, {}
  each_state(self, function(name, t, buffer)
    if buffer == buffers and not seen[t] then
      seen[t] = true
      list[#list + 1] = {name, t}
    end
  end)
  return list
end

local function tensors_of(list)
  for i, entry in ipairs(list) do list[i] = entry[2] end
  return list
end

--- A list of {name, parameter}, each parameter once.
function Module:named_parameters() return named_state(self, false) end

---@return atomo.Tensor[]
function Module:parameters() return tensors_of(named_state(self, false)) end

--- A list of {name, tensor}.
function Module:named_buffers() return named_state(self, true) end

---@return atomo.Tensor[]
function Module:buffers() return tensors_of(named_state(self, true)) end

--- Number of trainable values.
function Module:num_parameters()
  local n = 0
  for _, p in ipairs(self:parameters()) do n = n + p:numel() end
  return n
end

--- Calls fn(module) for everything below and then for this module, as PyTorch does: to initialise a network, say.
function Module:apply(fn)
  local list = self:named_modules()
  for i = #list, 1, -1 do fn(list[i][2]) end
  return self
end

-- ---- modes -----------------------------------------------------------------------------------------------------

--- Training mode (or, with false, evaluation) for this module and all below: dropout and batch norm ask for it.
---@param on boolean?
function Module:train(on)
  for _, entry in ipairs(self:named_modules()) do rawset(entry[2], "training", on ~= false) end
  return self
end
function Module:eval() return self:train(false) end

function Module:zero_grad()
  for _, p in ipairs(self:parameters()) do p:zero_grad() end
  return self
end

-- ---- state -----------------------------------------------------------------------------------------------------

--- name -> tensor of all parameters and buffers (the tensors themselves, not copies).
---@return table<string, atomo.Tensor>
function Module:state_dict()
  local state = {}
  each_state(self, function(name, t) state[name] = t end)
  return state
end

local function problems_of(self, state)
  local missing, unexpected, shapes, known = {}, {}, {}, {}
  each_state(self, function(name, t)
    local given = state[name]
    known[name] = true
    if given == nil then missing[#missing + 1] = name
    elseif not is_tensor(given) then
      shapes[#shapes + 1] = ("%s is a %s"):format(name, type(given))
    elseif T.shape_text(given) ~= T.shape_text(t) then
      shapes[#shapes + 1] = ("%s is %s, expected %s"):format(name, T.shape_text(given), T.shape_text(t))
    end
  end)
  for name in pairs(state) do
    if not known[name] then unexpected[#unexpected + 1] = tostring(name) end
  end
  table.sort(unexpected)
  local text = {}
  if #missing > 0 then text[#text + 1] = "missing: " .. table.concat(missing, ", ") end
  if #unexpected > 0 then text[#text + 1] = "unexpected: " .. table.concat(unexpected, ", ") end
  if #shapes > 0 then text[#text + 1] = "wrong shape: " .. table.concat(shapes, ", ") end
  return text
end

--- Copies the values in. Nothing is changed unless every name and shape fits; the error lists all that do not.
---@param state table<string, atomo.Tensor>
function Module:load_state_dict(state)
  if type(state) ~= "table" then
    raise(("load_state_dict: got a %s, expected a table of tensors by name"):format(type(state)))
  end
  local text = problems_of(self, state)
  if #text > 0 then raise(("load_state_dict of %s: %s"):format(self.class_name, table.concat(text, "; "))) end
  autograd.no_grad(each_state, self, function(name, t) t:copy_(state[name]) end)
  return self
end

-- ---- printing --------------------------------------------------------------------------------------------------

--- What stands between the brackets of a layer without submodules; layers override it.
function Module:describe() return "" end

--- As PyTorch prints modules.
function Module:text(indent)
  indent = indent or ""
  local children = self:named_children()
  if #children == 0 then return ("%s(%s)"):format(self.class_name, self:describe()) end
  local lines = {self.class_name .. "("}
  for _, entry in ipairs(children) do
    lines[#lines + 1] = ("%s  (%s): %s"):format(indent, entry[1], entry[2]:text(indent .. "  "))
  end
  lines[#lines + 1] = indent .. ")"
  return table.concat(lines, "\n")
end

return {Module = Module, is_module = is_module}
