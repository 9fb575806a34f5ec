--- Loss and accuracy over a whole set, all ranks together.
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local counted = require "atomo.nn.functional.counted"

local M = {}

--- Running statistics differ between ranks (each sees its own images): replace them by their average.
function M.average_buffers(self)
  if self.comm.size == 1 then return end
  for _, b in ipairs(self.buffers) do
    if b:dtype() == "f32" then
      self.comm:allreduce(b, "sum")
      b:mul_(1 / self.comm.size)
    end
  end
end

--- Sums over this rank's part of a loader's set: the loss over what it counts, right answers over how many are judged.
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

--- Runs fn with the model in evaluation mode; its modules have their own modes back afterwards.
local function evaluating(model, fn, ...)
  if model.evaluating then return model:evaluating(fn, ...) end
  model:eval()
  local a, b, c, d = fn(...)
  model:train()
  return a, b, c, d
end

--- Loss and accuracy over a loader's whole set, all ranks together. [collective]
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
