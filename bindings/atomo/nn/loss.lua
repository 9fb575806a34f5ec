--- Losses as layers: nn.CrossEntropyLoss(opts)(logits, labels) is F.cross_entropy(logits, labels, opts).
local F = require "atomo.nn.functional"
local Module = require("atomo.nn.module").Module

local M = {}

--- Makes the layer of loss F[fn]. Options are checked when the layer is made, so that an error names that line.
local function loss(name, fn)
  local class = Module:extend(name)
  class.fixed = F.loss_options(fn)
  function class:init(opts)
    self.opts = opts == nil and {} or opts
    F.check_loss(name, fn, self.opts)
  end
  function class:forward(input, target) return F[fn](input, target, self.opts) end
  M[name] = class
end

loss("CrossEntropyLoss", "cross_entropy")
loss("NLLLoss", "nll_loss")
loss("MSELoss", "mse_loss")
loss("L1Loss", "l1_loss")
loss("SmoothL1Loss", "smooth_l1_loss")
loss("HuberLoss", "huber_loss")
loss("BCEWithLogitsLoss", "bce_with_logits")

return M
