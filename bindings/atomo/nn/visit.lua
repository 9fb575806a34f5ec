--- Visits the modules, parameters and buffers in the fields of a module (module.lua), in the order of assignment.
-- Fields may be plain tables of them at any depth. Names are as in PyTorch: "conv1.weight", "blocks.0.weight".
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local holders = require "atomo.nn.holders"
local raise, is_tensor = f.raise, T.is_tensor

local M = {}

--- Is v an instance of a class that inherits from Module?
---@param v any
---@return boolean
---@usage nn.is_module(nn.ReLU()) --> true
function M.is_module(v)
  return type(v) == "table" and type(getmetatable(v)) == "table" and rawget(getmetatable(v), "is_module_class") == true
end

--- Raises unless self is a module: a method may be called with "." in place of ":".
function M.expect(self)
  if M.is_module(self) then return end
  raise(("a module's method was called on a %s: write m:method(...), with a colon"):format(type(self)))
end

local function before(a, b) -- order of keys: numbers before strings
  if type(a) ~= type(b) then return type(a) == "number" end
  return a < b
end

--- Returns the sorted keys of a plain table whose values are tables.
local function keys_of(t, name)
  local keys = {}
  for key, value in pairs(t) do
    if type(value) == "table" then
      if type(key) == "number" or type(key) == "string" then
        keys[#keys + 1] = key
      elseif M.is_module(value) or is_tensor(value) and value.is_parameter then
        raise(("field '%s': a module or parameter under a %s, expected a number or a text for its name"):format(name,
          type(key)))
      end
    end
  end
  table.sort(keys, before)
  return keys
end

local function name_of(key) return type(key) == "number" and ("%d"):format(key - 1) or key end

--- Calls visit(name, value) for a module or tensor, holder[key], or for each one in a plain table. Objects of other
--- classes are skipped. open: the tables that contain this one (a table may contain itself).
local function each_within(name, holder, key, visit, open)
  local value = rawget(holder, key)
  local plain = type(value) == "table" and getmetatable(value) == nil and not open[value]
  if not plain and not M.is_module(value) and not is_tensor(value) then return end
  holders.note(value, holder, key)
  if not plain then return visit(name, value) end
  open[value] = true
  for _, k in ipairs(keys_of(value, name)) do each_within(name .. "." .. name_of(k), value, k, visit, open) end
  open[value] = nil
end

--- Calls visit(name, value) for the modules and tensors in self's fields, in order of assignment.
function M.fields(self, visit)
  for _, key in ipairs(self._order) do
    if type(rawget(self, key)) == "table" then each_within(name_of(key), self, key, visit, {}) end
  end
end

local function joined(prefix, name) return prefix == "" and name or prefix .. "." .. name end

--- Calls visit(full name, module) for self (name "") and all submodules, each once. prefix, seen: for the recursion.
function M.modules(self, visit, prefix, seen)
  if not prefix then M.expect(self) end
  prefix, seen = prefix or "", seen or {}
  if seen[self] then return end
  seen[self] = true
  visit(prefix, self)
  M.fields(self, function(name, value)
    if M.is_module(value) then M.modules(value, visit, joined(prefix, name), seen) end
  end)
end

--- Is t a parameter: made by atomo.param (frozen or not), or a leaf that requires a gradient? Such a leaf is one from
--- then on, so that it is still saved when it is frozen.
local function is_parameter(t)
  if t.node or not (t.is_parameter or t.requires_grad) then return false end
  t.is_parameter = true
  return true
end

--- Raises if a field that held a parameter now holds another tensor, which nothing would train or save.
local function check_kept(self, name, value, parameter)
  if rawget(self, name) ~= value then return end -- in a table
  if parameter then self._parameters[name] = true end
  if parameter or self._buffers[name] or not self._parameters[name] then return end
  raise(("%s: '%s' was a parameter, and a tensor that is none was assigned to it: use atomo.param(t), or " ..
    "atomo.no_grad(function() m.%s:copy_(t) end); assign nil first where it shall be none"):format(self.class_name,
    name, name))
end

--- Does M.state for self, whose name is prefix. open: the modules that contain it.
local function state_within(self, visit, prefix, open)
  if open[self] then return end
  open[self] = true
  M.fields(self, function(name, value)
    local parameter = is_tensor(value) and is_parameter(value)
    if is_tensor(value) then check_kept(self, name, value, parameter) end
    if parameter or self._buffers[name] then visit(joined(prefix, name), value, not parameter, self, prefix) end
  end)
  M.fields(self, function(name, value)
    if M.is_module(value) then state_within(value, visit, joined(prefix, name), open) end
  end)
  open[self] = nil
end

--- Calls visit(full name, tensor, is_buffer, module, the module's name) for all parameters and buffers, those of a
--- module before those of its submodules. A shared tensor is visited under each of its names. Raises if two tensors
--- have the same name, of which a state could keep one only.
function M.state(self, visit)
  M.expect(self)
  local of = {}
  state_within(self, function(name, t, is_buffer, module, path)
    if of[name] and of[name] ~= t then
      raise(("%s: two tensors are named '%s': entry i of a list is named i - 1, and \".\" joins the names of tables")
        :format(self.class_name, name))
    end
    of[name] = t
    visit(name, t, is_buffer, module, path)
  end, "", {})
end

--- Returns a list of {name, tensor}, each tensor once: the buffers if `buffers`, else the parameters.
function M.named_state(self, buffers)
  local list, seen = {}, {}
  M.state(self, function(name, t, buffer)
    if buffer == buffers and not seen[t] then
      seen[t] = true
      list[#list + 1] = {name, t}
    end
  end)
  return list
end

return M
