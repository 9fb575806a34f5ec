--- Text of a value at the prompt: tables with their fields, everything else as by tostring.
local WIDTH = 100      -- columns; a table that is longer gets a line for each field
local MOST_FIELDS = 40 -- of one table
local MOST_DEPTH = 3

--- Returns tostring(value), or the error that it raises.
local function text_of(value)
  local ok, text = pcall(tostring, value)
  return ok and text or ("(%s)"):format(tostring(text))
end

--- Returns the text of a value inside a table, on one line: of a tensor its type and shape.
local function brief(value)
  if type(value) == "string" then return ("%q"):format(value):gsub("\\\n", "\\n") .. "" end
  if type(value) == "function" then return "function" end
  return text_of(value):match "[^\n]*$"
end

local function key_text(key)
  if type(key) == "string" and key:match "^[%a_][%w_]*$" then return key end
  return ("[%s]"):format(brief(key))
end

--- Returns the keys of t after its array part of n elements: numbers in order, then names in order, then others.
local function other_keys(t, n)
  local keys = {}
  for key in next, t do
    if not (type(key) == "number" and key >= 1 and key <= n and key % 1 == 0) then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) .. text_of(a) < type(b) .. text_of(b)
  end)
  return keys
end

local table_text

local function field_text(value, depth, above)
  local meta = type(value) == "table" and debug.getmetatable(value)
  if type(value) ~= "table" or type(meta) == "table" and rawget(meta, "__tostring") then return brief(value) end
  if above[value] then return "(a table above)" end
  if depth >= MOST_DEPTH then return next(value) == nil and "{}" or "{...}" end
  return table_text(value, depth, above)
end

function table_text(t, depth, above)
  above[t] = true
  local parts, n, left = {}, #t, 0
  local function add(prefix, value)
    if #parts < MOST_FIELDS then
      parts[#parts + 1] = prefix .. field_text(value, depth + 1, above)
    else
      left = left + 1
    end
  end
  for i = 1, n do add("", rawget(t, i)) end
  for _, key in ipairs(other_keys(t, n)) do add(key_text(key) .. " = ", rawget(t, key)) end
  if left > 0 then parts[#parts + 1] = ("... %d more"):format(left) end
  above[t] = nil
  local line = "{" .. table.concat(parts, ", ") .. "}"
  if #line + 2 * depth <= WIDTH and not line:find "\n" then return line end
  local indent = "\n" .. ("  "):rep(depth + 1)
  return "{" .. indent .. table.concat(parts, "," .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

--- Returns the text of a value.
---@param value any
---@return string
return function(value)
  local meta = type(value) == "table" and debug.getmetatable(value)
  if type(value) ~= "table" or type(meta) == "table" and rawget(meta, "__tostring") then return text_of(value) end
  return table_text(value, 0, {})
end
