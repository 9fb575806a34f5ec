--- Losses as layers: nn.CrossEntropyLoss(opts)(logits, labels) is F.cross_entropy(logits, labels, opts).
local F = require "atomo.functional"
local window = require "atomo.nn.window"
local Module = require("atomo.nn.module").Module

local M = {}

--- names: those of the options, as F's; checked here so that an error stands where the layer is made.
local function loss(name, fn, names)
  local known = {reduction = true}
  for option in names:gmatch "%S+" do known[option] = true end
  local class = Module:extend(name)
  function class:init(opts)
    self.opts = opts or {}
    window.check_options(name, self.opts, known)
  end
  function class:forward(input, target) return fn(input, target, self.opts) end
  M[name] = class
end

loss("CrossEntropyLoss", F.cross_entropy, "weight ignore_index label_smoothing")
loss("NLLLoss", F.nll_loss, "weight ignore_index")
loss("MSELoss", F.mse_loss, "")
loss("BCEWithLogitsLoss", F.bce_with_logits, "weight pos_weight")

return M
