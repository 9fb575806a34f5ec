--- Copies the state that a training step changes besides gradients, so that a step can be given up (stages 3 and 9).
-- This is a model's buffers, which forward updates (running statistics), and for a round of local SGD also the
-- optimizer's state.
local T = require "atomo.tensor"

---@class atomo.Undo
local Undo = {}
Undo.__index = Undo

local function new() return setmetatable({copies = setmetatable({}, {__mode = "k"})}, Undo) end

--- Copies a tensor.
local function keep(self, t)
  local copy = self.copies[t]
  if copy then copy:copy_(t) else self.copies[t] = T.outside_scope(t.clone, t) end
end

--- Copies the present values of tensors; replaces earlier copies.
---@param tensors atomo.Tensor[]
function Undo:keep(tensors)
  self.tensors = tensors
  for _, t in ipairs(tensors) do keep(self, t) end
end

--- Copies an optimizer's state: its blocks and the steps taken.
---@param optimizer atomo.Optimizer
function Undo:keep_optimizer(optimizer)
  self.optimizer, self.steps, self.taken = optimizer, optimizer.steps, {}
  for g, group in ipairs(optimizer.groups) do
    self.taken[g] = {unpack(group.taken)}
    for _, block in pairs(group.state) do keep(self, block) end
  end
end

local function restore_optimizer(self)
  self.optimizer.steps = self.steps
  for g, group in ipairs(self.optimizer.groups) do
    for i, taken in ipairs(self.taken[g]) do group.taken[i] = taken end
    for _, block in pairs(group.state) do
      local copy = self.copies[block] -- nil for a block that was made since
      if copy then block:copy_(copy) else block:zero_() end
    end
  end
end

--- Restores the copied values.
function Undo:restore()
  for _, t in ipairs(self.tensors or {}) do t:copy_(self.copies[t]) end
  if self.optimizer then restore_optimizer(self) end
end

return new
