--- atomo.evaluate: loss, accuracy and top-5 accuracy of a trained model.
local F = require "atomo.nn.functional"
local check_options = require "atomo.tensor.check_options"
local sets = require "atomo.data.set"
local counted = require "atomo.nn.functional.counted"
local evaluation = require "atomo.train.evaluate"
local expect_function = require "atomo.core.callable"
local new_undo = require "atomo.train.undo"
local raise = require("atomo.ffi").raise

local M = {}

local rules = {loss = true, accuracy = true, comm = true, top = check_options.whole(1)}

local function check_loader(loader)
  if sets.kind(loader) or type(loader) == "table" and type(rawget(loader, "test")) == "table" then
    raise "evaluate: expected a loader, got a data set: atomo.data.loader {set = ...} makes a loader of a set"
  elseif type(loader) ~= "table" or type(loader.epoch) ~= "function" then
    raise(("evaluate: expected a loader, with a method epoch, got a %s"):format(type(loader)))
  end
end

--- Returns {loss=, accuracy=, top5=, n=} of a model over a loader's complete set, averaged over the ranks of opts.comm,
--- each of which evaluates its loader's part. accuracy and top5: the fractions of the n judged rows whose label has the
--- largest logit, or one of the 5 largest. The model is unchanged; with several ranks it is evaluated with the average
--- of their running statistics. Raises for a loader without labels. [collective]
---@param model atomo.Module
---@param loader atomo.Loader
---@param opts {loss: function?, accuracy: function?, comm: table?, top: integer?}?  defaults: F.cross_entropy,
--- F.accuracy, atomo.mpi.world, 5 (the field's name is top5 for 5, top3 for 3)
---@return {loss: number, accuracy: number, n: integer}
---@usage local m = nn.Sequential {nn.Flatten(), nn.Linear(3072, 10)} atomo.evaluate(m, atomo.data.loader {set =
---@usage atomo.data.synthetic({train = 8, test = 8}).test, batch = 4})
function M.evaluate(model, loader, opts)
  opts = opts == nil and {} or opts
  check_options.check("evaluate", opts, rules)
  if type(model) ~= "table" or type(model.eval) ~= "function" then
    raise(("evaluate: model is a %s, expected an nn.Module"):format(type(model)))
  end
  check_loader(loader)
  for _, name in ipairs {"loss", "accuracy"} do
    if opts[name] ~= nil then expect_function("evaluate: " .. name, opts[name]) end
  end
  local self = {model = model, top = opts.top or 5, comm = opts.comm or require("atomo.comm.mpi").world,
    loss = opts.loss or F.cross_entropy, buffers = model.buffers and model:buffers() or {}}
  self.accuracy = opts.accuracy or function(logits, labels) return F.accuracy(logits, labels, counted.ignored()) end
  local undo = new_undo()
  undo:keep(self.comm.size > 1 and self.buffers or {})
  evaluation.average_buffers(self)
  local ok, sums = pcall(evaluation.sums, self, loader)
  undo:restore()
  if not ok then error(sums, 0) end
  local loss, count, right, judged, in_top = unpack(sums)
  if count == 0 or judged == 0 then raise "evaluate: the loader gave no rows with labels" end
  return {loss = loss / count, accuracy = right / judged, ["top" .. self.top] = in_top / judged, n = judged}
end

return M
