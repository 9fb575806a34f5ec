--- The annotations in the source: the comment above a definition, as a description, parameters, results and examples.
-- Tags are EmmyLua's (---@param NAME TYPE text, ---@return TYPE text) and ---@usage, a line of an example that a spec
-- runs.
local M = {}

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
---@param lines string[]
---@param n integer
---@return string[]
local function comment_above(lines, n)
  local comment, i = {}, n - 1
  while i > 0 and lines[i]:match "^%s*%-%-" do
    local text = lines[i]:match "^%s*%-%-%-?%s?(.*)$"
    if text:match "^%-%-" or text:match "^luacheck:" then break end -- the heading of a section
    table.insert(comment, 1, text)
    i = i - 1
  end
  return comment
end

--- Splits "TYPE text" behind a tag: blanks inside brackets, after a comma, colon or bar belong to the type.
local function split_type(text)
  local depth, i = 0, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c:find "[{(<%[]" then depth = depth + 1 elseif c:find "[})>%]]" then depth = depth - 1 end
    if c == " " and depth == 0 and not text:sub(1, i):find "[:|,] $" and not text:sub(i + 1):find "^|" then break end
    i = i + 1
  end
  return text:sub(1, i - 1), text:sub(i + 1):match "^%s*(.-)%s*$"
end

--- Parses a comment: {text =, params = {{name =, type =, text =}}, returns = {{type =, text =}}, usage = lines}.
---@param comment string[]
---@return table
function M.parse(comment)
  local parsed = {text = {}, params = {}, returns = {}, usage = {}}
  local last -- the tag that further lines continue
  for _, line in ipairs(comment) do
    local tag, rest = line:match "^@(%a+)%s*(.*)$"
    if tag == "param" then
      local name, more = rest:match "^(%S+)%s*(.*)$"
      last = {name = name or "?"}
      last.type, last.text = split_type(more or "")
      table.insert(parsed.params, last)
    elseif tag == "return" then
      last = {}
      last.type, last.text = split_type(rest)
      table.insert(parsed.returns, last)
    elseif tag == "usage" then
      last = nil
      table.insert(parsed.usage, rest)
    elseif tag then
      last = {text = ""} -- a class or field
    elseif last then
      last.text = (last.text .. " " .. line:match "^%s*(.-)$"):match "^%s*(.-)%s*$"
    else
      table.insert(parsed.text, line)
    end
  end
  return parsed
end

--- Returns the names of the arguments in a definition's first line, and in the lines after it up to ")"; nil if the
--- line defines no function.
local function arguments(lines, n)
  local text = lines[n] or ""
  if not text:find "function" then return nil end
  for i = n + 1, n + 3 do
    if text:find "function[^(]*%b()" then break end
    text = text .. " " .. (lines[i] or "")
  end
  local names = {}
  for name in (text:match "function[^(]*(%b())" or ""):gmatch "[%w_.]+" do names[#names + 1] = name end
  return names
end

local function entry_at(path, n)
  local lines = lines_of(path)
  local entry = M.parse(comment_above(lines, n))
  entry.path, entry.line, entry.arguments = path, n, arguments(lines, n)
  return entry
end

--- Returns the annotations of a function of Lua by the place of its definition; nil for other values.
---@param fn any
---@return table?
function M.of_function(fn)
  if type(fn) ~= "function" then return nil end
  local info = debug.getinfo(fn, "S")
  local path = info.source:match "^@(.*)"
  return path and entry_at(path, info.linedefined) or nil
end

--- Does the line define `name`: function X.name(, X.name = ..., local function name(, local name = ...?
local function defines(line, name)
  return line:find("^%s*function [%w_.]*[.:]" .. name .. "%s*%(") or line:find("^%s*local function " .. name .. "%s*%(")
    or line:find("^%s*local " .. name .. "%s*=[^=]") or line:find("^%s*[%w_.]+%." .. name .. "%s*=[^=]")
end

--- Returns the annotations of a name that one of the files defines: the first definition with a comment, or else the
--- first one; nil if there is none.
---@param name string
---@param paths string[]
---@return table?
function M.of_name(name, paths)
  local first
  for _, path in ipairs(paths) do
    for n, line in ipairs(lines_of(path)) do
      if defines(line, name) then
        local entry = entry_at(path, n)
        if #entry.text > 0 or #entry.params > 0 then return entry end
        first = first or entry
      end
    end
  end
  return first
end

local here = debug.getinfo(1, "S").source:match "^@(.*)/tools/reference/[^/]*$"
local META = {"tensor", "functional", "nn", "data"} -- files of bindings/atomo/meta

--- Returns the annotations of "function NAME(" in bindings/atomo/meta, which has what functions make at run time; nil
--- if there is none.
---@param name string  with its prefix: "Tensor:abs"
---@return table?
function M.of_meta(name)
  local head = ("function %s("):format(name)
  for _, file in ipairs(META) do
    local path = ("%s/meta/%s.lua"):format(here, file)
    for n, line in ipairs(lines_of(path)) do
      if line:sub(1, #head) == head then return entry_at(path, n) end
    end
  end
end

--- Does the line at a place define `name`?
---@param entry table
---@param name string
---@return boolean
function M.is_named(entry, name) return defines(lines_of(entry.path)[entry.line] or "", name) ~= nil end

return M
