--- help(x) at the prompt: the annotations of a function, or the names in a module, class or object.
local fields_of = require "atomo.host.fields"
local source = require "atomo.tools.reference.source"

local WIDTH = 100

local INTRODUCTION = [[
help(f)          what a function does, its arguments, results and an example: help(atomo.randn)
help(x)          the names in a module or table, and the methods of an object: help(atomo.nn), help(atomo.ones(2))
help "name"      the same by its name: help "atomo.F.softmax"
time(f, ...)     the time of a call f(...)
Ctrl-C stops what runs, Ctrl-D leaves. A value's fields are printed; `print(x)` prints x as in a script.]]

--- Returns the annotations of a function or class of modules; nil if it has none.
local function annotations_of(fn)
  if type(fn) == "table" then -- a class of modules
    local init = source.of_function(rawget(fn, "init"))
    return source.of_meta("nn." .. fn.class_name) or init
  end
  local atomo = package.loaded.atomo
  for prefix, holder in pairs(atomo and {["Tensor:"] = atomo.Tensor, ["F."] = rawget(atomo, "F")} or {}) do
    for name, value in next, holder do
      local meta = value == fn and source.of_meta(prefix .. name)
      if meta then return meta end
    end
  end
  return source.of_function(fn)
end

--- Has the value annotations of its own: is it a function, or a class of modules?
local function is_described(x)
  return type(x) == "function" or type(x) == "table" and rawget(x, "is_module_class") == true
end

--- Returns the first sentence of a function's comment, cut to `width`.
local function first_sentence(fn, width)
  local entry = annotations_of(fn)
  local text = entry and table.concat(entry.text, " ") or ""
  text = text:match "^(.-%.) " or text
  return #text > width and text:sub(1, width - 4) .. " ..." or text
end

local function describe_fields(x)
  local all, names, longest = fields_of(x), {}, 0
  for name in pairs(all) do
    names[#names + 1] = name
    longest = math.max(longest, #name)
  end
  table.sort(names)
  local lines = {}
  for i, name in ipairs(names) do
    local value = all[name]
    local text = is_described(value) and first_sentence(value, WIDTH - longest - 4) or type(value)
    lines[i] = ("  %s%s  %s"):format(name, (" "):rep(longest - #name), text)
  end
  return #lines > 0 and table.concat(lines, "\n") or ("a %s without named fields"):format(type(x))
end

--- Returns value[part]; nil if it is an error to read it.
local function field_of(value, part)
  local ok, field = pcall(function() return value[part] end)
  return ok and field or nil
end

--- Returns the value of a dotted name, of a global or, as the documents write "nn.Linear", of a field of atomo; or nil
--- and a text that says which name is not there.
local function named(name)
  local value, path = _G, "the globals"
  for part in name:gmatch "[^.:]+" do
    local field = field_of(value, part)
    if field == nil and value == _G then field = field_of(package.loaded.atomo, part) end
    if field == nil then return nil, ("%s: there is no %s in %s"):format(name, part, path) end
    value, path = field, part
  end
  return value
end

--- Returns name, arguments, description, types, results, example and place of a function.
local function describe_function(title, fn)
  local entry = annotations_of(fn)
  if not entry then
    local is_c = type(fn) == "function" and debug.getinfo(fn, "S").what == "C"
    return ("%s(...)\n  no description\n  [%s]"):format(title, is_c and "a function of C" or "defined at the prompt")
  end
  local lines = {("%s(%s)"):format(title, table.concat(entry.arguments or {"..."}, ", "))}
  for _, line in ipairs(#entry.text > 0 and entry.text or {"no description"}) do lines[#lines + 1] = "  " .. line end
  for _, p in ipairs(entry.params) do lines[#lines + 1] = ("  %s: %s  %s"):format(p.name, p.type, p.text) end
  for _, r in ipairs(entry.returns) do lines[#lines + 1] = ("  returns %s  %s"):format(r.type, r.text) end
  for _, line in ipairs(entry.usage) do lines[#lines + 1] = "  example: " .. line end
  lines[#lines + 1] = ("  [%s:%d]"):format(entry.path, entry.line)
  return (table.concat(lines, "\n"):gsub(" +\n", "\n"))
end

--- Returns the text of help(x); without an argument, an introduction.
---@param count integer  number of arguments
---@param x any
---@return string
return function(count, x)
  if count == 0 then return INTRODUCTION end
  local title = ""
  if type(x) == "string" then
    local value, problem = named(x)
    if problem then return problem end
    title, x = x, value
  end
  if is_described(x) then return describe_function(title, x) end
  if type(x) ~= "table" and type(x) ~= "userdata" and type(x) ~= "cdata" then return "a " .. type(x) end
  return describe_fields(x)
end
