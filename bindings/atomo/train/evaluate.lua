--- Evaluates loss and accuracy on a complete set, distributed over the ranks.
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local counted = require "atomo.nn.functional.counted"
local precision = require "atomo.autograd.precision"
local top_correct = require "atomo.train.top_correct"

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

--- Returns sums over this rank's part of a loader's set: loss, count, right answers, number judged, and with self.top
--- the rows whose label is among the `top` largest logits.
local function sums_over(self, loader)
  local loss, count, right, judged, in_top = 0, 0, 0, 0, 0
  for batch in loader:epoch(0) do
    if batch.n > 0 then
      T.scope(function()
        local logits = self.model(batch.x)
        local value, n, _, fraction, of, factor = counted.measure(self.loss, self.accuracy, logits, batch)
        if factor > 0 then loss, count = loss + value:item() * factor, count + n end
        right, judged = right + fraction * of, judged + of
        if self.top then in_top = in_top + top_correct(logits, batch.y, self.top, counted.ignored()) end
      end)
    end
  end
  return loss, count, right, judged, in_top
end

--- Runs fn with the model in evaluation mode; restores the modes of its modules.
local function evaluating(model, fn, ...)
  if model.evaluating then return model:evaluating(fn, ...) end
  model:eval()
  local a, b, c, d, e = fn(...)
  model:train()
  return a, b, c, d, e
end

--- Returns the sums of sums_over over all ranks, as a list. [collective]
function M.sums(self, loader)
  local code = self.precision or precision.current()
  local sums = {evaluating(self.model, autograd.no_grad, precision.run, code, sums_over, self, loader)}
  local shared = T.zeros(self.top and 5 or 4)
  local p = shared:data()
  for i = 0, shared:numel() - 1 do p[i] = sums[i + 1] end
  self.comm:allreduce(shared, "sum")
  for i = 1, shared:numel() do sums[i] = p[i - 1] end
  shared:free()
  return sums
end

--- Returns loss and accuracy over a loader's complete set. First averages the model's buffers. [collective]
function M.evaluate(self, loader)
  M.average_buffers(self)
  local loss, count, right, judged = unpack(M.sums(self, loader))
  return loss / count, right / math.max(judged, 1)
end

return M
