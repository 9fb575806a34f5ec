--- Writes the manual pages: atomo-lua.1 from the program's --help, and atomo-lua-NAME.1 for each script and command
-- from the options that it declares.
--   build/atomo-lua -e 'require "atomo.tools.manual" (arg[0], "FOLDER")'
local cli_help = require "atomo.tools.cli_help"
local declarations = require "atomo.tools.declarations"
local files = require "atomo.core.files"
local roff = require "atomo.tools.roff"
local system = require "atomo.tools.system"
local version = require("atomo.core.version").versions().atomo

local EXIT = [[
.TP
0
success
.TP
1
an error
.TP
2
wrong usage
]]

local FILES = [[
.SH FILES
.TP
.I scripts/
in the examples: the folder share/atomo/scripts of the installation, such as /usr/share/atomo/scripts
]]

local function head(name, summary)
  return ('.TH "%s" 1 "" "atomo\\-lua %s" "User Commands"\n.SH NAME\n%s \\- %s\n'):format(roff(name:upper()), version,
    roff(name), roff(summary))
end

local function item(term, text) return (".TP\n.B %s\n%s\n"):format(roff(term), roff(text)) end

--- Returns the page of a script or command with this declaration.
local function page_of(name, spec, command)
  local about = (spec.about or ""):gsub("%s+", " ")
  local summary = (about:match "^(.-)[.:;] " or about):gsub("%.$", "")
  local parts = {head(name, (summary:gsub("^%u%l", string.lower))), ".SH SYNOPSIS\n.B ", roff(command),
    "\n[options]"}
  for _, p in ipairs(spec.positional or {}) do
    parts[#parts + 1] = (p.required and " %s" or " [%s]"):format(roff(p[1]:upper()) .. (p.repeated and "..." or ""))
  end
  parts[#parts + 1] = "\n.SH DESCRIPTION\n" .. roff(about) .. "\n.SH OPTIONS\n"
  for _, p in ipairs(spec.positional or {}) do parts[#parts + 1] = item(p[1]:upper(), cli_help.option_help(p)) end
  for _, o in ipairs(spec.options or {}) do
    parts[#parts + 1] = item(cli_help.option_head(o), cli_help.option_help(o))
  end
  parts[#parts + 1] = item("--help", "print the options and exit")
  if spec.examples then
    parts[#parts + 1] = ".SH EXAMPLES\n.nf\n"
    for _, line in ipairs(spec.examples) do
      parts[#parts + 1] = roff(line:gsub("build/atomo%-lua", "atomo-lua")) .. "\n"
    end
    parts[#parts + 1] = ".fi\n"
  end
  parts[#parts + 1] = FILES .. '.SH "EXIT STATUS"\n' .. EXIT .. ".SH SEE ALSO\n.BR atomo\\-lua (1)\n"
  return table.concat(parts)
end

--- Returns the page of the program from the text of its --help.
local function main_page(help, others)
  local usage, options, last = help:match "^(.-)\noptions:\n(.-)\n(%u.*)$"
  local parts = {head("atomo-lua", "runs Lua scripts with tensors, MPI and ATOMO gradient compressors"),
    ".SH SYNOPSIS\n.nf\n", roff(usage:gsub("^usage: ", ""):gsub("\n       ", "\n")), "\n.fi\n.SH OPTIONS\n"}
  for line in options:gmatch "[^\n]+" do
    local term, text = line:match "^  (%-%-?%S*.-)  +(.*)$"
    parts[#parts + 1] = term and item(term, text) or roff(line:match "^%s*(.*)$") .. "\n"
  end
  parts[#parts + 1] = ".SH DESCRIPTION\n" .. roff(last:gsub("%s+$", "")) .. "\n"
  parts[#parts + 1] = '.SH "EXIT STATUS"\n' .. EXIT
  parts[#parts + 1] = item("75", "a training run has saved after SIGTERM or SIGUSR2") .. ".SH SEE ALSO\n"
  for i, name in ipairs(others) do
    parts[#parts + 1] = (".BR %s (1)%s\n"):format(roff(name), i < #others and "," or "")
  end
  return table.concat(parts)
end

--- Writes the pages; returns their names, "atomo-lua" first.
---@param program string  path of atomo-lua
---@param folder string   an existing folder
---@return string[]
return function(program, folder)
  local list = {}
  for _, entry in ipairs(declarations()) do
    local script = entry.name:match "^(.*)%.lua$"
    if script ~= "check_house" then
      local name = "atomo-lua-" .. (script or entry.name)
      local command = "atomo-lua " .. (script and "scripts/" .. entry.name or entry.name)
      files.save("manual", ("%s/%s.1"):format(folder, name), page_of(name, entry.spec, command))
      list[#list + 1] = name
    end
  end
  local help = system.run(system.quote(program) .. " --help")
  files.save("manual", folder .. "/atomo-lua.1", main_page(help, list))
  table.insert(list, 1, "atomo-lua")
  return list
end
