--- help(x) at the prompt: the comment above a function's definition, or the names in a module, class or object.
local WIDTH = 100

local INTRODUCTION = [[
help(f)          the comment above the definition of a function: help(atomo.randn)
help(x)          the names in a module or table, and the methods of an object: help(atomo.nn), help(atomo.ones(2))
help "name"      the same by its name: help "atomo.F.softmax"
time(f, ...)     the time of a call f(...)
Ctrl-C stops what runs, Ctrl-D leaves. A value's fields are printed; `print(x)` prints x as in a script.]]

local files = {} -- path -> its lines

local function lines_of(path)
  if not files[path] then
    local list, file = {}, io.open(path)
    if file then
      for line in file:lines() do list[#list + 1] = line end
      file:close()
    end
    files[path] = list
  end
  return files[path]
end

--- Returns the lines of the comment above line n, without dashes; an empty list if there is none.
local function comment_above(lines, n)
  local comment, i = {}, n - 1
  while i > 0 and lines[i]:match "^%s*%-%-" do
    local text = lines[i]:match "^%s*%-%-%-?%s?(.*)$"
    if text:match "^%-%-" then break end -- the heading of a section
    table.insert(comment, 1, text)
    i = i - 1
  end
  return comment
end

--- Returns the lines of the comment above a function's definition (an empty list if there is none), its parameters
--- "(a, b)", and "FILE:LINE".
local function description(fn)
  local info = debug.getinfo(fn, "S")
  local path = info.source:match "^@(.*)"
  if not path then return {}, "(...)", info.what == "C" and "a function of C" or "defined at the prompt" end
  local lines = lines_of(path)
  local comment = comment_above(lines, info.linedefined)
  local parameters = (lines[info.linedefined] or ""):match "function%s*[%w_.:]*%s*(%b())" or "(...)"
  return comment, parameters, ("%s:%d"):format(path, info.linedefined)
end

--- Returns the first sentence of a function's comment, cut to `width`.
local function first_sentence(fn, width)
  local text = table.concat(description(fn), " "):gsub("%s*@.*", "")
  text = text:match "^(.-%.) " or text
  return #text > width and text:sub(1, width - 4) .. " ..." or text
end

--- Returns name -> value of a table's fields, of those that it loads on first use, and of its class.
local function fields_of(x)
  local all = {}
  local function add(t)
    for name, value in next, t do
      if type(name) == "string" and not name:match "^_" and all[name] == nil then all[name] = value end
    end
  end
  if type(x) == "table" then add(x) end
  local meta = debug.getmetatable(x)
  if type(meta) ~= "table" then return all end
  for _, names in ipairs(rawget(meta, "__lazy") or {}) do
    for name in pairs(names) do all[name] = x[name] end
  end
  local class = rawget(meta, "__index")
  if type(class) == "table" then add(class) else add(meta) end
  return all
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
    local text = type(value) == "function" and first_sentence(value, WIDTH - longest - 4) or type(value)
    lines[i] = ("  %s%s  %s"):format(name, (" "):rep(longest - #name), text)
  end
  return #lines > 0 and table.concat(lines, "\n") or ("a %s without named fields"):format(type(x))
end

--- Returns the global value of a dotted name; or nil and a text that says which name is not there.
local function named(name)
  local value, path = _G, "the globals"
  for part in name:gmatch "[^.:]+" do
    local ok, field = pcall(function() return value[part] end)
    if not ok or field == nil then return nil, ("%s: there is no %s in %s"):format(name, part, path) end
    value, path = field, part
  end
  return value
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
  if type(x) == "function" then
    local comment, parameters, place = description(x)
    if #comment == 0 then comment = {"no description"} end
    return ("%s%s\n  %s\n  [%s]"):format(title, parameters, table.concat(comment, "\n  "), place)
  end
  if type(x) ~= "table" and type(x) ~= "userdata" and type(x) ~= "cdata" then return "a " .. type(x) end
  return describe_fields(x)
end
