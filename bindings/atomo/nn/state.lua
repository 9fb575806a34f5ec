--- Loads a module's state. Names and shapes are compared first, then all values are copied, or none.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local assign = require "atomo.tensor.assign"
local brief = require "atomo.core.brief"
local autograd = require "atomo.autograd"
local check_options = require "atomo.tensor.check_options"
local raise = f.raise

local M = {}

--- Returns the state's tensors, each once with all its names: {{tensor=, names=}, ...}.
local function slots_of(each)
  local list, of = {}, {}
  each(function(name, t)
    if not of[t] then
      of[t] = {tensor = t, names = {}}
      list[#list + 1] = of[t]
    end
    table.insert(of[t].names, name)
  end)
  return list
end

local function problem_of(name, given, t)
  if not T.is_tensor(given) then return ("%s is a %s"):format(name, type(given)) end
  if T.shape_text(given) ~= T.shape_text(t) then
    return ("%s is %s, expected %s"):format(name, T.shape_text(given), T.shape_text(t))
  end
end

--- Finds the value of each slot. Returns lists of missing names, of texts about wrong shapes, a set of the known names,
--- and a list of shared tensors that have two different values.
local function match(slots, values)
  local missing, wrong, known, differ = {}, {}, {}, {}
  for _, slot in ipairs(slots) do
    local first
    for _, name in ipairs(slot.names) do
      local given = values[name]
      known[name] = true
      local problem = given ~= nil and problem_of(name, given, slot.tensor)
      if problem then
        wrong[#wrong + 1] = problem
      elseif given ~= nil and first and given ~= values[first] and T.crc(given) ~= T.crc(values[first]) then
        differ[#differ + 1] = ("%s and %s"):format(first, name)
      end
      if given ~= nil then first = first or name end
    end
    slot.from = first
    if not first then
      for _, name in ipairs(slot.names) do missing[#missing + 1] = name end
    end
  end
  return missing, wrong, known, differ
end

local function unknown(values, known)
  local list = {}
  for name in pairs(values) do
    if not known[name] then list[#list + 1] = brief(name) end
  end
  table.sort(list)
  return list
end

local function copy_all(slots, values)
  local targets, given = {}, {}
  for _, slot in ipairs(slots) do
    if slot.from then targets[#targets + 1], given[#given + 1] = slot.tensor, values[slot.from] end
  end
  assign(targets, given)
end

--- See Module:load_state_dict. Returns {missing=, unexpected=} if opts.strict is false, else nil.
---@param who string  the module's class
---@param each fun(visit: fun(name: string, t: atomo.Tensor))  visits the module's state
---@param values table<string, atomo.Tensor>
---@param opts {strict: boolean?}?
function M.load(who, each, values, opts)
  if type(values) ~= "table" or T.is_tensor(values) then
    raise(("load_state_dict: got a %s, expected a table of tensors by name"):format(
      T.is_tensor(values) and "tensor" or type(values)))
  end
  opts = opts == nil and {} or opts
  check_options.check("load_state_dict", opts, {strict = check_options.flag})
  local strict = opts.strict ~= false
  local slots = slots_of(each)
  local missing, wrong, known, differ = match(slots, values)
  local unexpected, text = unknown(values, known), {}
  local function say(what, list)
    if #list > 0 then text[#text + 1] = ("%s: %s"):format(what, table.concat(list, ", ")) end
  end
  if strict then
    say("missing", missing)
    say("unexpected", unexpected)
  end
  say("wrong shape", wrong)
  say("one tensor here, two values", differ)
  if #text > 0 then raise(("load_state_dict of %s: %s"):format(who, table.concat(text, "; "))) end
  autograd.no_grad(T.scope, copy_all, slots, values)
  if not strict then return {missing = missing, unexpected = unexpected} end
end

return M
