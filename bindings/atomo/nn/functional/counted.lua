--- The count of a loss: the number that its mean divides by (labels that are not ignored, or the sum of their classes'
-- weights, or elements). It weighs the means of micro-batches, ranks and epochs when they are averaged (stage 3).
--   loss.count    set on a loss with reduction "mean" or "sum"; loss.summed: true for "sum"
--   loss.terms    the same for what is computed from it by + - * / (autograd/loss_terms.lua)
--   loss.rest     a function, on a mean whose count is 0 but whose sum may not be (smoothing of labels of classes
--                 without weight): returns the sum, for a mean over more
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local loss_terms = require "atomo.autograd.loss_terms"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local C = f.C

local M = {}

-- Losses of atomo.F that the user's loss function has called in `measure`. calls: of means, 0, 1, or 2 for several with
-- different counts; sums: of sums. With 1 mean, its count also holds for a result that is computed from it otherwise
-- than by + - * /.
local tally = {calls = 0, sums = 0, count = 0, ignore_index = nil}

--- Sets the count of a loss; returns the loss.
---@param loss atomo.Tensor
---@param reduction integer
---@param count number
---@param ignore_index integer?  label that is not counted
---@param sum function?  returns the loss as a sum, which may be above 0 if count is 0
function M.note(loss, reduction, count, ignore_index, sum)
  tally.ignore_index = ignore_index or tally.ignore_index
  if reduction == C.ATOMO_REDUCE_NONE then return loss end
  loss.count, loss.summed = count, reduction == C.ATOMO_REDUCE_SUM or nil
  loss.rest = count == 0 and not loss.summed and sum or nil
  loss_terms.note(loss, loss.summed and "sum" or "mean", count)
  if loss.summed then
    tally.sums = tally.sums + 1
  else
    tally.calls = tally.calls == 0 and 1 or (tally.count == count and tally.calls or 2)
    tally.count = count
  end
  return loss
end

--- Returns options for F.accuracy with the last loss's ignore_index; nil if that is the default.
---@return {ignore_index: integer}?
function M.ignored()
  local ignore = tally.ignore_index
  return ignore and ignore ~= -100 and {ignore_index = ignore} or nil
end

local function check_count(count)
  if type(count) ~= "number" or not (count >= 0 and count < math.huge) then
    f.raise(("train: loss returned the count %s beside the loss, expected a number >= 0, or \"sum\""):format(
      brief(count)))
  end
  return count
end

local function check_accuracy(right, judged)
  if type(right) ~= "number" then
    f.raise(("train: accuracy returned %s, expected the fraction of right answers, a number (of a tensor: t:item())")
      :format(T.is_tensor(right) and "a tensor" or right == nil and "nothing" or number.text(right)))
  elseif judged ~= nil and not (type(judged) == "number" and judged >= 0 and judged < math.huge) then
    f.raise(("train: accuracy returned %s as the number judged, expected a number >= 0"):format(number.text(judged)))
  end
end

--- Returns the sizes of a batch that a mean may be over: its images, labels or rows, or what its loss counts.
local function sizes_of(batch, logits, terms)
  local sizes = {batch.n, terms.count}
  for _, t in ipairs {T.is_tensor(batch.y) and batch.y or nil, T.is_tensor(logits) and logits or nil} do
    local n = t:numel()
    sizes[#sizes + 1] = n
    if t:dim() > 0 and n > 0 then
      sizes[#sizes + 1] = t:size(1)
      sizes[#sizes + 1] = n / t:size(-1)
    end
  end
  return sizes
end

--- What a loss is, and its count: {kind = "mean", "sum" or "unclear", count =, why = (of "unclear"), divisor = (by
--- which a sum was divided)}.
local function weighing_of(value, batch, logits)
  local terms = value.terms
  if not terms then
    if tally.sums > 0 and tally.calls == 0 then
      return {kind = "unclear", count = batch.n, why = "computed from a sum otherwise than by + - * /"}
    end
    return {kind = "mean", count = tally.calls == 1 and tally.count or batch.n}
  elseif terms.kind ~= "sum" then
    return {kind = terms.kind, count = terms.count or batch.n, why = terms.why}
  end
  local over, why, divisor = loss_terms.mean_over(terms, sizes_of(batch, logits, terms))
  if why then return {kind = "unclear", count = batch.n, why = why} end
  return over and {kind = "mean", count = over} or {kind = "sum", count = terms.count or batch.n, divisor = divisor}
end

--- Computes a batch's loss and accuracy for a training loop. loss(logits, labels) returns a scalar and optionally its
--- count, or "sum" for a sum; the default is the count of the losses of atomo.F from which it is computed, else the
--- batch size. accuracy(logits, labels) returns a fraction and optionally the number of rows judged.
---@param loss function
---@param accuracy function|false
---@param logits atomo.Tensor
---@param batch table
---@return atomo.Tensor loss
---@return number count
---@return table weighing  {kind = "mean", "sum" or "unclear", why =, divisor =}
---@return number right    fraction of the rows judged, 0 without accuracy
---@return number judged   number of rows judged
---@return number factor   what the loss is multiplied by to be a sum: the count, or 1 for a sum
function M.measure(loss, accuracy, logits, batch)
  tally.calls, tally.sums, tally.count, tally.ignore_index = 0, 0, 0, nil
  local value, given = loss(logits, batch.y)
  T.expect(value, "train: loss", "f32")
  if value.h.numel ~= 1 then
    f.raise(("train: loss is %s, expected a scalar: a mean, or a sum"):format(T.shape_text(value)))
  end
  local weighing
  if given == nil then
    weighing = weighing_of(value, batch, logits)
  elseif given == "sum" then
    weighing = {kind = "sum", count = value.terms and value.terms.count or batch.n}
  else
    weighing = {kind = value.summed and given ~= 0 and "sum" or "mean", count = check_count(given)}
  end
  local right, judged = 0, 0
  if accuracy then
    right, judged = accuracy(logits, batch.y)
    check_accuracy(right, judged)
  end
  local count = weighing.count
  if given == nil and count == 0 and value.rest then
    return value.rest(), 0, {kind = "mean"}, right, judged or batch.n, 1
  end
  return value, count, weighing, right, judged or batch.n, weighing.kind == "sum" and 1 or count
end

return M
