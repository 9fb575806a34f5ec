--- The options of all scripts, for completion and manual pages: what each passes to cli.parse.
local cli = require "atomo.tools.cli"
local probe = require "atomo.tools.doctor.probe"

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

--- Returns the folder of the scripts beside these modules, in the source tree or installed; nil if there is none.
local function scripts_folder()
  local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
  for _, folder in ipairs {here .. "/../../../scripts", here .. "/../../../../atomo/scripts"} do
    if probe.read(folder .. "/train_cifar.lua") then return folder end
  end
end

--- Returns {name=, spec=} of each command and script that declares options by cli.parse.
---@return {name: string, spec: table}[]
return function()
  local list = {{name = "doctor", spec = declaration_of(function() require "atomo.tools.doctor" {} end)}}
  local folder = scripts_folder()
  local names = folder and probe.run("ls " .. probe.quote(folder)) or ""
  for name in names:gmatch "([%w_]+%.lua)\n" do
    local path = folder .. "/" .. name
    if probe.read(path):find("cli.parse", 1, true) then
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
