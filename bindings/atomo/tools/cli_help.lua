--- Makes the text of --help from the declaration of cli.parse.
local word_of = require("atomo.core.shell_words").word

--- Returns a value as it is typed on a command line.
local function shown(v)
  if type(v) == "table" then
    local parts = {}
    for i = 1, #v do parts[i] = shown(v[i]) end
    return table.concat(parts, ",")
  end
  return type(v) == "number" and ("%.14g"):format(v) or tostring(v)
end

--- Joins words by spaces to lines of at most `width` columns; all except the first are indented.
local function join(words, width, indent)
  local lines, line = {}, ""
  for _, word in ipairs(words) do
    if #line > 0 and #line + 1 + #word > width then
      lines[#lines + 1] = line
      line = word
    else
      line = #line > 0 and line .. " " .. word or word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. (" "):rep(indent))
end

local function wrap(text, width, indent)
  local words = {}
  for word in text:gmatch "%S+" do words[#words + 1] = word end
  return join(words, width, indent)
end

--- Returns "settings: ..." in lines of 100 columns, with no line break inside a setting.
---@param settings string[]
---@return string
local function settings_text(settings) return "settings: " .. join(settings, 90, 10) end

local metavars = {int = "N", number = "X", string = "TEXT", list = "A,B,...", choice = "NAME"}

local function option_head(o)
  if o[2] == "flag" then return o[3] and "--no-" .. o[1] or "--" .. o[1] end
  return ("--%s %s"):format(o[1], o.metavar or metavars[o[2]])
end

--- Returns the unit for a value: "step" for 1, "steps" else. Abbreviations (s, ms) stay.
local function unit_of(unit, value)
  return value == 1 and #unit > 3 and unit:gsub("s$", "") or unit
end

local function option_help(o)
  local notes = {}
  if o.choices then notes[#notes + 1] = "one of " .. table.concat(o.choices, ", ") end
  if o.required then notes[#notes + 1] = "required" end
  if o.repeated then notes[#notes + 1] = "may be repeated" end
  if o[2] == "flag" then
    if not o[3] then notes[#notes + 1] = "default: off" end
  elseif o[3] ~= nil and o[3] ~= "" then
    local text, unit = shown(o[3]), o.unit and " " .. unit_of(o.unit, o[3]) or ""
    if text ~= "" then notes[#notes + 1] = "default " .. text .. unit end
  elseif o.unit then
    notes[#notes + 1] = "in " .. o.unit
  end
  return (o[4] or "") .. (#notes > 0 and " (" .. table.concat(notes, "; ") .. ")" or "")
end

--- Returns an example with the program and the folder of the scripts as they were typed, so that it runs in the present
--- folder. Declarations write build/atomo-lua and scripts/NAME.lua.
local function example_here(text, name)
  local folder = arg and arg[0] and (arg[0]:match "^(.*/)[^/]*$" or "")
  if not folder or arg[0]:sub(#folder + 1) ~= name then return text end
  local first = 0
  while arg[first - 1] do first = first - 1 end
  return (text:gsub("%S+", function(word)
    local script = word:match "^scripts/(.*)$"
    return word == "build/atomo-lua" and word_of(arg[first]) or script and word_of(folder .. script)
  end))
end

--- Returns the text of --help.
local function help(spec)
  local usage = "usage: " .. (spec.usage or "atomo-lua " .. (spec.name or "script.lua")) .. " [options]"
  for _, p in ipairs(spec.positional or {}) do
    usage = usage .. (p.required and " %s" or " [%s]"):format(p[1]:upper() .. (p.repeated and "..." or ""))
  end
  local lines = {usage}
  if spec.about then lines[#lines + 1] = "\n" .. wrap(spec.about, 100, 0) end
  if spec.examples then
    lines[#lines + 1] = "\nexamples:"
    for _, e in ipairs(spec.examples) do lines[#lines + 1] = "  " .. example_here(e, spec.name) end
  end
  if spec.positional then
    lines[#lines + 1] = "\narguments:"
    for _, p in ipairs(spec.positional) do
      lines[#lines + 1] = ("  %-22s %s"):format(p[1]:upper(), wrap(option_help(p), 75, 25))
    end
  end
  lines[#lines + 1] = "\noptions:"
  for _, o in ipairs(spec.options or {}) do
    local head = option_head(o)
    local gap = #head > 22 and "\n" .. (" "):rep(25) or (" "):rep(23 - #head)
    lines[#lines + 1] = "  " .. head .. gap .. wrap(option_help(o), 75, 25)
  end
  lines[#lines + 1] = ("  %-22s %s"):format("--help", "print this text and exit")
  return table.concat(lines, "\n")
end

return {help = help, shown = shown, settings_text = settings_text, option_head = option_head, option_help = option_help}
