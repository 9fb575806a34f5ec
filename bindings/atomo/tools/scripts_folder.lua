--- The folder of the scripts beside these modules, in the source tree or installed.
local probe = require "atomo.tools.doctor.probe"

--- Returns the folder; nil if there is none.
---@return string?
return function()
  local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
  for _, folder in ipairs {here .. "/../../../scripts", here .. "/../../../../atomo/scripts"} do
    if probe.read(folder .. "/train_cifar.lua") then return folder end
  end
end
