--- Draws README's picture from the figures recorded in docs/results.md: build/atomo-lua docs/figures.lua
-- The table under "Time to 60 %" has a row per compressor: test accuracies by epoch, and milliseconds per step.
local plot = require "atomo.plot"
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."

local M = {}

--- Reads the recorded curves: minutes of training, test accuracy in percent.
local function curves(text)
  local section = assert(text:match "\n## Time to 60 %%.-\n## ", "docs/results.md: no section 'Time to 60 %'")
  local steps = tonumber(section:match "%((%d+) steps each%)")
  local series = {}
  for name, accuracies, ms in section:gmatch "\n| `([^`]+)` | ([%d., ]+) | (%d+) ms |" do
    local points, epoch = {}, 0
    for accuracy in accuracies:gmatch "[%d.]+" do
      epoch = epoch + 1
      points[epoch] = {epoch * steps * ms / 6e4, tonumber(accuracy)}
    end
    series[#series + 1] = {name = name == "none" and "none: dense gradients" or name, points = points}
  end
  return series
end

--- Returns the picture as the text of an SVG file. text: that of docs/results.md.
function M.svg(text)
  return plot.svg {title = "VGG-11 on CIFAR-10, four hosts, links of 100 Mbit/s", width = 860, height = 300,
    x = {label = "minutes of training"}, y = {label = "test accuracy, %"}, series = curves(text)}
end

if not ... then
  local file = assert(io.open(here .. "/results.md"))
  local svg = M.svg(file:read "*a")
  file:close()
  file = assert(io.open(here .. "/accuracy_vgg11_100mbit.svg", "w"))
  file:write(svg)
  file:close()
end

return M
