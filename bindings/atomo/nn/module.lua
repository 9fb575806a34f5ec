--- nn.Module: the base class of layers and networks, with parameters, buffers and submodules.
--   local Net = nn.Module:extend "Net"
--   function Net:init(opts) self.fc = nn.Linear(opts.inputs, 10) end
--   function Net:forward(x) return self.fc(x) end
--   local net = Net{inputs = 4};  net(x);  net:parameters()
-- Modules and parameters (atomo.param) that are assigned to fields, also inside plain tables at any depth, are
-- registered in the order of first assignment. Names in state_dict are as in PyTorch: "conv1.weight"; list and
-- Sequential entries count from 0 ("blocks.0.weight"). The keys of a table are sorted ("heads.left.weight").
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local blocks = require "atomo.core.blocks"
local brief = require "atomo.core.brief"
local expect_function = require "atomo.core.callable"
local holders = require "atomo.nn.holders"
local instead = require "atomo.nn.instead"
local state = require "atomo.nn.state"
local number = require "atomo.core.number"
local place_of_errors = require "atomo.nn.place"
local suggest = require "atomo.core.suggest"
local visit = require "atomo.nn.visit"
local raise, is_module = f.raise, visit.is_module

---@class atomo.Module
---@field training boolean
---@field fixed table<string, any>  options that a class reads only in init, and does not keep as fields
local Module = {training = true, class_name = "Module", fixed = {}}
Module.__index = Module

local function results(...) return ... end

local arity = setmetatable({}, {__mode = "k"}) -- forward -> the number of arguments that it takes after self

local function arity_of(forward)
  local info = debug.getinfo(forward, "u")
  arity[forward] = info.isvararg and math.huge or info.nparams - 1
  return arity[forward]
end

--- Raises if an argument of a call beyond the first `most` is not nil: forward would not see it.
local function check_surplus(self, most, ...)
  for i = most + 1, select("#", ...) do
    if select(i, ...) ~= nil then
      raise(("%s: got %d arguments, its forward takes %d"):format(self.class_name, i, most))
    end
  end
end

local metamethods = {
  __call = function(self, ...)
    local forward = self.forward
    local most = arity[forward] or arity_of(forward)
    if select("#", ...) > most then check_surplus(self, most, ...) end
    return results(forward(self, ...)) -- no tail call: nn/place.lua finds this function on the stack
  end,
  __newindex = function(self, key, value) -- the first assignment of a field
    if self.fixed[key] then
      raise(("%s: %s is set when the layer is made, and assigning it would do nothing; make another layer"):format(
        self.class_name, key))
    end
    if type(value) == "boolean" and key ~= "training" and type(key) == "string" and suggest(key, {"training"}) then
      raise(("%s: module.%s = %s would do nothing; use module:train() or module:eval()"):format(self.class_name, key,
        brief(value)))
    end
    local order, listed = rawget(self, "_order"), rawget(self, "_listed")
    rawget(self, "_parameters")[key] = T.is_tensor(value) and value.is_parameter or nil
    if not listed[key] then
      order[#order + 1] = key
      listed[key] = true
    end
    rawset(self, key, value)
  end,
  __tostring = function(self) return self:text() end,
}

local function construct(class, ...)
  local self = setmetatable({_order = {}, _listed = {}, _buffers = {}, _parameters = {}}, class)
  if class.init then class.init(self, ...) end
  return self
end

--- Called for the first assignment of a field of a class. Raises for a module or parameter: it would be no part of an
--- instance, so that nothing would train or save it.
local function set_class_field(class, key, value)
  local parameter = T.is_tensor(value) and value.is_parameter
  if parameter or is_module(value) then
    raise(("%s.%s: a %s in a class is no part of its instances: set self.%s in init"):format(class.class_name,
      brief(key), parameter and "parameter" or "module", brief(key)))
  end
  rawset(class, key, value)
end

--- Returns a class that inherits from this one. Calling the class makes an instance and runs its init(...).
---@param name string
---@return table a class
---@usage local Net = nn.Module:extend "Net" function Net:forward(v) return v end Net()(x)
function Module:extend(name)
  if type(name) ~= "string" then raise(("Module:extend: name is a %s, expected a string"):format(type(name))) end
  local class = {class_name = name, is_module_class = true}
  for k, fn in pairs(metamethods) do class[k] = rawget(self, k) or fn end
  class.__index = class
  return setmetatable(class, {__index = self, __call = construct, __newindex = set_class_field})
end

--- Computes the module's result; m(x) calls it. A class defines its own; the default raises.
---@return any
---@usage m:forward(x):size(2) --> 10
function Module:forward() raise(self.class_name .. ": forward is not defined") end

--- Registers a tensor that is saved and loaded with the state but gets no gradient (running statistics).
---@param name string
---@param t atomo.Tensor
---@usage m:register_buffer("count", atomo.zeros(1))
function Module:register_buffer(name, t)
  visit.expect(self)
  T.expect(t, ("%s: register_buffer: '%s'"):format(self.class_name, brief(name)))
  self[name] = t:keep()
  self._buffers[name] = true
end

-- ---- submodules, parameters and buffers ----------------------------------------------------------------------

--- Returns a list of {name, module}: this module (name "") and all submodules, each once.
---@return {[1]: string, [2]: atomo.Module}[]
---@usage #m:named_modules() --> 3
function Module:named_modules()
  local list = {}
  visit.modules(self, function(name, m) list[#list + 1] = {name, m} end)
  return list
end

--- Returns a list of {name, module}: the direct submodules.
---@return {[1]: string, [2]: atomo.Module}[]
---@usage m:named_children()[2][1] --> 1
function Module:named_children()
  visit.expect(self)
  local list = {}
  visit.fields(self, function(name, value)
    if is_module(value) then list[#list + 1] = {name, value} end
  end)
  return list
end

local function tensors_of(list)
  for i, entry in ipairs(list) do list[i] = entry[2] end
  return list
end

--- Calls fn(name, tensor, is_buffer, module, the module's name) for all parameters and buffers in order, a shared
--- one under each of its names.
---@param fn fun(name: string, t: atomo.Tensor, is_buffer: boolean, module: atomo.Module, path: string)
---@usage m:each_state(function(name) assert(type(name) == "string") end)
function Module:each_state(fn) visit.state(self, fn) end

--- Returns a list of {name, parameter}, each parameter once.
---@return {[1]: string, [2]: atomo.Tensor}[]
---@usage m:named_parameters()[1][1] --> 1.weight
function Module:named_parameters()
  visit.expect(self)
  holders.note_asked(self)
  return visit.named_state(self, false)
end

--- Returns a list of the parameters, each once.
---@return atomo.Tensor[]
---@usage #m:parameters() --> 2
function Module:parameters()
  local list = tensors_of(visit.named_state(self, false))
  holders.note_list(list, self)
  return list
end

--- Returns a list of {name, buffer}, each buffer once.
---@return {[1]: string, [2]: atomo.Tensor}[]
---@usage #m:named_buffers() --> 0
function Module:named_buffers() return visit.named_state(self, true) end

--- Returns a list of the buffers, each once.
---@return atomo.Tensor[]
---@usage #m:buffers() --> 0
function Module:buffers() return tensors_of(visit.named_state(self, true)) end

--- Number of elements of all parameters, frozen ones included.
---@return integer
---@usage m:num_parameters() --> 1930
function Module:num_parameters()
  local n = 0
  for _, p in ipairs(Module.parameters(self)) do n = n + p:numel() end
  return n
end

--- Calls fn(module) for all submodules and then for this module, as in PyTorch (to initialise a network); returns self.
---@param fn fun(module: atomo.Module)
---@return atomo.Module self
---@usage m:apply(function(layer) assert(nn.is_module(layer)) end)
function Module:apply(fn)
  visit.expect(self)
  expect_function(self.class_name .. ": apply", fn)
  local list = self:named_modules()
  for i = #list, 1, -1 do fn(list[i][2]) end
  return self
end

-- ---- modes -----------------------------------------------------------------------------------------------------

local function set_mode(self, on, seen)
  seen[self] = true
  rawset(self, "training", on and not self._frozen)
  visit.fields(self, function(_, value)
    if not is_module(value) or seen[value] then return end
    if value.train ~= Module.train then value:train(on) else set_mode(value, on, seen) end
  end)
end

--- Sets training mode (or with false evaluation mode) of this module and all submodules; dropout and batch norm depend
--- on it. A submodule whose class overrides train gets a call of that. Frozen modules stay in evaluation mode. Returns
--- self.
---@param on boolean?
---@return atomo.Module self
---@usage m:train().training --> true
function Module:train(on)
  visit.expect(self)
  if on ~= nil and type(on) ~= "boolean" then
    raise(("train: mode is %s, expected true or false"):format(number.text(on)))
  end
  set_mode(self, on ~= false, {})
  return self
end
--- Sets evaluation mode, as train(false).
---@return atomo.Module self
---@usage m:eval().training --> false
function Module:eval()
  visit.expect(self)
  return self:train(false)
end

--- Sets the modes at the start of a training loop. If this module is in evaluation mode, all switch to training mode.
--- Otherwise each keeps its mode as the user set it, and train() of classes that override it is called. Returns self.
---@return atomo.Module self
---@usage m:begin_training().training --> true
function Module:begin_training()
  visit.expect(self)
  if not self.training then return self:train() end
  for _, entry in ipairs(self:named_modules()) do
    local m = entry[2]
    if m.train ~= Module.train and m.training then m:train() end
  end
  return self
end

--- Runs fn(...) with all modules in evaluation mode; returns fn's results. Restores each mode, also after an error, and
--- while a coroutine that yields in fn does not run.
---@param fn function
---@param ... any its arguments
---@return any fn's results
---@usage m:evaluating(function() return m.training end) --> false
function Module:evaluating(fn, ...)
  visit.expect(self)
  expect_function(self.class_name .. ": evaluating", fn)
  local modes = {}
  local function apply()
    for i, entry in ipairs(self:named_modules()) do
      local m = entry[2]
      modes[i] = {module = m, training = m.training, frozen = m._frozen}
    end
    self:eval()
  end
  local function undo()
    for _, mode in ipairs(modes) do
      local m = mode.module
      if m._frozen and not mode.frozen then -- frozen meanwhile: unfreeze() restores the mode
        rawset(m, "_mode_before", mode.training)
      elseif m._frozen or not mode.frozen then -- else unfreeze() has set its mode
        rawset(m, "training", mode.training)
      end
    end
  end
  return blocks.change(apply, undo, fn, ...)
end

--- Sets requires_grad of all parameters of this module and its submodules (default true); returns self. With false they
--- are still saved and loaded and gradients pass through them, but they get no gradient, update or weight decay.
---@param on boolean?
---@return atomo.Module self
---@usage nn.Linear(2, 2):requires_grad_(false)
function Module:requires_grad_(on)
  for _, p in ipairs(Module.parameters(self)) do p:requires_grad_(on) end
  return self
end

local function set_frozen(self, on)
  for _, entry in ipairs(Module.named_modules(self)) do
    local m = entry[2]
    if on and not m._frozen then rawset(m, "_mode_before", m.training) end
    if not on and m._frozen then rawset(m, "training", m._mode_before) end
    rawset(m, "_frozen", on)
    if on then rawset(m, "training", false) end
  end
  return self:requires_grad_(not on)
end

--- Freezes this module and its submodules: no parameter is trained, and they stay in evaluation mode (running
--- statistics fixed, dropout off) even if train() is called on a module that contains them. Returns self.
---@param part any refused: call it on the part itself
---@return atomo.Module self
---@usage nn.Linear(2, 2):freeze()
function Module:freeze(part)
  if part ~= nil then raise "freeze: takes no argument; model.layer:freeze() is of the part" end
  return set_frozen(self, true)
end

--- Undoes freeze(): all parameters are trained, and each module gets its mode before freeze() back. Returns self.
---@param part any refused: call it on the part itself
---@return atomo.Module self
---@usage nn.Linear(2, 2):freeze():unfreeze()
function Module:unfreeze(part)
  if part ~= nil then raise "unfreeze: takes no argument; model.layer:unfreeze() is of the part" end
  return set_frozen(self, false)
end

--- Sets all gradients to zero; nil stays nil.
---@return atomo.Module self
---@usage m:zero_grad()
function Module:zero_grad()
  for _, p in ipairs(Module.parameters(self)) do p:zero_grad() end
  return self
end

-- ---- state -----------------------------------------------------------------------------------------------------

--- Returns all parameters and buffers by name: the tensors themselves, not copies.
---@return table<string, atomo.Tensor>
---@usage m:state_dict()["1.weight"]:size(1) --> 10
function Module:state_dict()
  local all = {}
  visit.state(self, function(name, t) all[name] = t end)
  return all
end

--- Copies values into the parameters and buffers. By default the names must agree; with strict = false, names on one
--- side only are skipped. If a name or shape does not fit, raises a list of all problems and changes nothing. For a
--- shared tensor, a value under one of its names is enough. Returns self, or with strict = false {missing =, unexpected
--- =}.
---@param values table<string, atomo.Tensor>
---@param opts {strict: boolean?}?
---@return any names that were skipped, with strict = false
---@usage m:load_state_dict(m:state_dict())
function Module:load_state_dict(values, opts)
  visit.expect(self)
  local left_out = state.load(self.class_name, function(fn) visit.state(self, fn) end, values, opts)
  return left_out or self
end

-- ---- printing --------------------------------------------------------------------------------------------------

--- Returns the text between the brackets of a printed layer without submodules. Layers override it.
---@return string
---@usage nn.Linear(2, 1):describe() --> in_features=2, out_features=1, bias=True
function Module:describe() return "" end

--- Returns the text that tostring prints, in PyTorch's form.
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

instead(Module)
place_of_errors(metamethods.__call)

return {Module = Module, is_module = is_module}
