--- Budgets that change over a run (stage 5): budget = function(step, epoch, stats) ... end in a compressor's table. It
-- is called before each step is encoded and returns a ratio, or {ratio=}, {bytes=} or {atoms=}. stats: c:stats() of the
-- last step, zeros before the first. Every rank calls its own function; budgets may differ, since a message can be
-- decoded without its sender's budget.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local raise = f.raise

local M = {}

local names = {"atoms", "bytes", "ratio"}

--- Returns the function's result as a table with one budget; raises if it is not valid.
local function checked(self, step, epoch, budget)
  local function wrong(what)
    raise(("%s: budget(step = %g, epoch = %g) returned %s; expected a ratio above 0, or one of {ratio=}, {bytes=}, " ..
      "{atoms=}"):format(self.name, step, epoch, what))
  end
  if type(budget) == "number" then budget = {ratio = budget} end
  if type(budget) ~= "table" then wrong(brief(budget)) end
  local found
  for key, value in pairs(budget) do
    if key ~= "atoms" and key ~= "bytes" and key ~= "ratio" then wrong(("a table with '%s'"):format(brief(key))) end
    if found then wrong("more than one budget") end
    if type(value) ~= "number" or not (value > 0 and value < math.huge) then
      wrong(("%s = %s"):format(key, brief(value)))
    end
    found = key
  end
  if not found then wrong "an empty table" end
  return budget
end

--- Sets the budget of the step that is about to be encoded, multiplied by the compressor's share if it is in bytes (a
--- ratio is divided by it).
function M.apply(self, step)
  local fn = self.schedule
  if not fn then return end
  local epoch = self.epoch or 1
  local budget = checked(self, step, epoch, fn(step, epoch, self:stats()))
  local last, same = self.last_budget or {}, true
  for _, key in ipairs(names) do same = same and last[key] == budget[key] end
  if same then return end
  self.last_budget = {atoms = budget.atoms, bytes = budget.bytes, ratio = budget.ratio}
  local share = self.share
  if share then
    budget = {atoms = budget.atoms, bytes = budget.bytes and budget.bytes * share,
      ratio = budget.ratio and budget.ratio / share}
  end
  self:set_budget(budget)
end

return M
