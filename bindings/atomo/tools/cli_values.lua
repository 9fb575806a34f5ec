--- Reads values of options (cli.lua) from texts of a command line and from values of settings files.
local suggest = require "atomo.core.suggest"

local function range_text(o, what)
  local unit = o.unit and " " .. o.unit or ""
  if o.min and o.max then return ("%s from %.14g to %.14g%s"):format(what, o.min, o.max, unit) end
  if o.min then return ("%s of at least %.14g%s"):format(what, o.min, unit) end
  if o.above and o.max then return ("%s above %.14g, up to %.14g%s"):format(what, o.above, o.max, unit) end
  if o.above then return ("%s above %.14g%s"):format(what, o.above, unit) end
  if o.max then return ("%s of at most %.14g%s"):format(what, o.max, unit) end
  return what .. unit
end

local function read_number(o, text, kind)
  local v = tonumber(text)
  local ok = v and v == v and math.abs(v) < math.huge and (kind ~= "int" or (v % 1 == 0 and math.abs(v) <= 2 ^ 53))
    and not (o.min and v < o.min) and not (o.max and v > o.max) and not (o.above and v <= o.above)
  if not ok then return nil, range_text(o, kind == "int" and "a whole number" or "a number") end
  return v
end

local readers = {
  int = function(o, text) return read_number(o, text, "int") end,
  number = function(o, text) return read_number(o, text, "number") end,
  string = function(_, text) return text end,
  flag = function(_, text)
    if text == "true" or text == "1" then return true end
    if text == "false" or text == "0" then return false end
    return nil, "true or false"
  end,
  choice = function(o, text)
    for _, c in ipairs(o.choices) do
      if c == text then return c end
    end
    local near = suggest(text, o.choices)
    return nil, "one of " .. table.concat(o.choices, ", ") .. (near and ("; did you mean %s?"):format(near) or "")
  end,
}
function readers.list(o, text)
  local values, of = {}, o.choices and "choice" or o.of or "string"
  for part in (text .. ","):gmatch "%s*(.-)%s*," do
    local v, expected = readers[of](o, part)
    if v == nil or v == "" then return nil, "a list separated by commas, each " .. (expected or "not empty") end
    values[#values + 1] = v
  end
  return values
end

--- Returns a single value of a settings file as it would be typed; nil if it is no number, text or boolean.
local function typed(value)
  if type(value) == "number" then return ("%.17g"):format(value) end
  return (type(value) == "string" or type(value) == "boolean") and tostring(value) or nil
end

--- Returns the value of option o from the text of a command line; or nil and a text of what is expected.
local function from_text(o, text) return readers[o[2]](o, text) end

--- Returns the value of option o from a value of a settings file: a number, text, boolean or list; or nil and a text of
--- what is expected.
local function from_value(o, value)
  if type(value) == "table" and (o.repeated or o[2] == "list") then
    local list = {}
    for i, each in ipairs(value) do
      local text = typed(each)
      local v, expected
      if text then v, expected = from_text(o, text) end
      if v == nil then return nil, expected or "a list of texts or numbers" end
      list[i] = type(v) == "table" and v[1] or v
    end
    return list
  end
  if o[2] ~= "flag" and type(value) == "boolean" then value = nil end
  local text = typed(value)
  if not text then return nil, select(2, from_text(o, "?")) or "a text" end
  return from_text(o, text)
end

return {from_text = from_text, from_value = from_value, kinds = readers}
