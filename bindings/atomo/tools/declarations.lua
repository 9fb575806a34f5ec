--- The options of all scripts, for completion and manual pages: what each passes to cli.parse.
local cli = require "atomo.tools.cli"
local scripts_folder = require "atomo.tools.scripts_folder"
local system = require "atomo.tools.system"

--- Runs fn until it calls cli.parse; returns the declaration passed to it, or nil and the reason if fn fails before.
local function declaration_of(fn)
  local found, parse = {}, cli.parse
  cli.parse = function(spec)
    found.spec = spec
    error(found)
  end
  local ok, problem = pcall(fn)
  cli.parse = parse
  return found.spec, not ok and problem ~= found and problem or nil
end

--- Returns {name=, spec=} of each command and script that declares options by cli.parse.
---@return {name: string, spec: table}[]
return function()
  local list = {{name = "doctor", spec = declaration_of(function() require "atomo.tools.doctor" {} end)}}
  local folder = scripts_folder.find()
  local names = folder and system.run("ls " .. system.quote(folder)) or ""
  for name in names:gmatch "([%w_]+%.lua)\n" do
    local path = folder .. "/" .. name
    if system.read(path):find("cli.parse", 1, true) then
      local spec, why = declaration_of(assert(loadfile(path)))
      if spec then
        list[#list + 1] = {name = name, spec = spec}
      else
        io.stderr:write(("%s is left out: %s\n"):format(name, tostring(why)))
      end
    end
  end
  return list
end
