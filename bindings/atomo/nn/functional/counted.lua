--- How many a loss counts: what its mean divides by (labels that are not ignored, their classes' weights, elements).
-- Means of several batches are put together by it, over micro-batches, ranks and epochs (stage 3).
--   loss.count    of a loss that is reduced; loss.summed: with reduction = "sum"
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C = f.C

local M = {}

-- The means that a loss function has called since `begin`: one that it changes further (adds a penalty, scales) keeps
-- that one's count.
local tally = {calls = 0, count = 0, ignore_index = nil}

--- Says of a loss how many it counts; returns it.
---@param loss atomo.Tensor
---@param reduction integer
---@param count number
---@param ignore_index integer?  label that is not counted
function M.note(loss, reduction, count, ignore_index)
  if reduction == C.ATOMO_REDUCE_NONE then return loss end
  loss.count, loss.summed = count, reduction == C.ATOMO_REDUCE_SUM or nil
  tally.ignore_index = ignore_index
  if not loss.summed then
    tally.calls = tally.calls == 0 and 1 or (tally.count == count and tally.calls or 2)
    tally.count = count
  end
  return loss
end

--- F.accuracy's options that leave out the labels which the last loss has ignored.
---@return {ignore_index: integer}?
function M.ignored()
  local ignore = tally.ignore_index
  return ignore and ignore ~= -100 and {ignore_index = ignore} or nil
end

local function check_count(count)
  if type(count) ~= "number" or not (count >= 0 and count < math.huge) then
    f.raise(("train: loss returned the count %s beside the loss, expected a number >= 0"):format(tostring(count)))
  end
  return count
end

--- The loss of a batch as a training loop needs it. loss(logits, labels) returns a scalar and, if it likes, the number
--- that its mean counts; else it is that of the loss in atomo.F that it called, else the batch's images. accuracy
--- returns a fraction and, likewise, of how many.
---@param loss function
---@param accuracy function|false
---@param logits atomo.Tensor
---@param batch table
---@return atomo.Tensor loss
---@return number count
---@return boolean summed  the loss is a sum, no mean
---@return number right    fraction
---@return number judged   of how many
function M.measure(loss, accuracy, logits, batch)
  tally.calls, tally.count, tally.ignore_index = 0, 0, nil
  local value, count = loss(logits, batch.y)
  T.expect(value, "train: loss", "f32")
  if value.h.numel ~= 1 then
    f.raise(("train: loss is %s, expected a scalar: a mean, or a sum"):format(T.shape_text(value)))
  end
  if count ~= nil then check_count(count)
  else count = value.count or tally.calls == 1 and tally.count or batch.n end
  local right, judged = 0, 0
  if accuracy then right, judged = accuracy(logits, batch.y) end
  return value, count, value.summed == true, right, judged or batch.n
end

return M
