--- The folder of the scripts beside these modules, in the source tree or installed.
local system = require "atomo.tools.system"

local M = {}

--- Returns the folder; nil if there is none.
---@return string?
function M.find()
  local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
  for _, folder in ipairs {here .. "/../../../scripts", here .. "/../../../../atomo/scripts"} do
    if system.read(folder .. "/train_cifar.lua") then return folder end
  end
end

--- Returns the folder for texts: without "..". -P: ".." of a link leads to its target's folder, as open does. "scripts"
--- if there is none.
---@return string
function M.shown()
  local folder = M.find()
  return folder and (system.run("cd -P " .. system.quote(folder) .. " && pwd -P"):gsub("\n$", "")) or "scripts"
end

return M
