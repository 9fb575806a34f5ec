--- The place of an error in the network: "[in Net > fc2: Linear]", appended to the texts of errors.
local f = require "atomo.ffi"
local visit = require "atomo.nn.visit"

--- Returns the name of child in parent: "conv1", or "layer 3" for an entry of a list; nil if it is not in parent.
local function name_in(parent, child)
  local found
  visit.fields(parent, function(name, value)
    if value == child then
      local list, place = name:match "^(.-)%.?(%d+)$"
      local layer = place and ("layer %d"):format(place + 1)
      found = found or not place and name or list == "" and layer or ("%s, %s"):format(list, layer)
    end
  end)
  return found
end

--- Returns the modules being called, outermost first, in the running coroutine. They are read from the stack, so that
--- nothing of an earlier call is left after an error. call: the __call of modules.
local function being_called(call)
  local list, level = {}, 3
  while true do
    local info = debug.getinfo(level, "f")
    if not info then return list end
    if info.func == call then
      local _, module = debug.getlocal(level, 1)
      table.insert(list, 1, module)
    end
    level = level + 1
  end
end

--- Returns " [in Net > fc2: Linear]" for an error text: the modules being called, from the outermost one that contains
--- the next one, and so on; "" if there is none.
local function text_of(call)
  local active, path = being_called(call), {}
  local i = #active
  if i == 0 then return "" end
  local bottom = active[i].class_name
  while i > 1 do
    local name = name_in(active[i - 1], active[i])
    if not name then break end
    table.insert(path, 1, name)
    i = i - 1
  end
  local top = active[i].class_name
  if #path == 0 then return (" [in %s]"):format(top) end
  return (" [in %s > %s: %s]"):format(top, table.concat(path, " > "), bottom)
end

--- Makes errors name the modules whose __call is `call`.
---@param call function
return function(call)
  function f.context() return text_of(call) end
end
