--- brief(v): the text of any value for an error, on one line. A tensor is named by dtype and shape, never printed.
local MOST = 200 -- characters of a string that are shown

--- Returns a string as it is; the beginning of a long one, and its length.
local function cut(text)
  if #text <= MOST then return text end
  return ("%s... (%d characters)"):format(text:sub(1, MOST), #text)
end

--- Returns the text of a table or userdata: of a tensor "a tensor f32 [2,3]", of another object the first line of its
--- text, else "a table".
local function object_text(v, kind)
  local meta = debug.getmetatable(v)
  if type(meta) == "table" and rawget(meta, "__name") == "tensor" then
    return ("a tensor %s [%s]"):format(v:dtype(), table.concat(v:shape(), ","))
  elseif type(meta) == "table" and rawget(meta, "__tostring") then
    local ok, text = pcall(tostring, v)
    return ok and cut(text:match "^[^\n]*") or "a " .. kind
  end
  return "a " .. kind
end

---@param v any
---@return string
return function(v)
  local kind = type(v)
  if kind == "string" then return cut(v) end
  if kind == "nil" or kind == "number" or kind == "boolean" or kind == "cdata" then return tostring(v) end
  return object_text(v, kind)
end
