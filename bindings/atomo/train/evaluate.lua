--- Evaluates loss and accuracy on a complete set, distributed over the ranks.
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local counted = require "atomo.nn.functional.counted"

local M = {}

--- Replaces the model's buffers (running statistics, which differ between ranks) by their averages. [collective]
function M.average_buffers(self)
  if self.comm.size == 1 then return end
  for _, b in ipairs(self.buffers) do
    if b:dtype() == "f32" then
      self.comm:allreduce(b, "sum")
      b:mul_(1 / self.comm.size)
    end
  end
end

--- Returns sums over this rank's part of a loader's set: loss, count, right answers, number judged.
local function sums_over(self, loader)
  local loss, count, right, judged = 0, 0, 0, 0
  for batch in loader:epoch(0) do
    if batch.n > 0 then
      T.scope(function()
        local logits = self.model(batch.x)
        local value, n, summed, fraction, of = counted.measure(self.loss, self.accuracy, logits, batch)
        if n > 0 then loss, count = loss + value:item() * (summed and 1 or n), count + n end
        right, judged = right + fraction * of, judged + of
      end)
    end
  end
  return loss, count, right, judged
end

--- Runs fn with the model in evaluation mode; restores the modes of its modules.
local function evaluating(model, fn, ...)
  if model.evaluating then return model:evaluating(fn, ...) end
  model:eval()
  local a, b, c, d = fn(...)
  model:train()
  return a, b, c, d
end

--- Returns loss and accuracy over a loader's complete set. First averages the model's buffers. [collective]
function M.evaluate(self, loader)
  M.average_buffers(self)
  local sums = T.zeros(4)
  local p = sums:data()
  p[0], p[1], p[2], p[3] = evaluating(self.model, autograd.no_grad, sums_over, self, loader)
  self.comm:allreduce(sums, "sum")
  local result_loss, result_accuracy = p[0] / p[1], p[2] / math.max(p[3], 1)
  sums:free()
  return result_loss, result_accuracy
end

return M
