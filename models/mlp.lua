--- A multi-layer perceptron over flattened input.
--   require("models.mlp").mlp{shape = {32, 32, 3}, hidden = {512, 256}, classes = 10}
local nn = require("atomo").nn

local M = {}

function M.mlp(opts)
  opts = opts or {}
  local inputs = 1
  for _, size in ipairs(opts.inputs and {opts.inputs} or opts.shape or {32 * 32 * 3}) do inputs = inputs * size end
  local net = nn.Sequential {nn.Flatten()}
  for _, width in ipairs(opts.hidden or {512, 256}) do
    net:add(nn.Linear(inputs, width)):add(nn.ReLU())
    inputs = width
  end
  return net:add(nn.Linear(inputs, opts.classes or 10))
end

return M
