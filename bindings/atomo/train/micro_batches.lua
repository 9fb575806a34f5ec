--- Hands an epoch's batches to its steps: `accumulate` micro-batches to a step, fewer to the epoch's last (stage 2).
--   local batches = new_batches(loader, epoch, accumulate)
--   while batches:more() do ... local batch, last = batches:next_one() ... end
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise

---@class atomo.MicroBatches
---@field ms number   milliseconds that this step has waited for data
---@field ended boolean  the step that took the last batch is the epoch's last
local MicroBatches = {}
MicroBatches.__index = MicroBatches

local function fetch(self)
  local from = C.atomo_time()
  local batch = self.next(self.state, self.control)
  self.control = batch
  self.ms = self.ms + 1e3 * (C.atomo_time() - from)
  return batch
end

---@param loader table         with .steps and :epoch(e)
---@param epoch integer
---@param accumulate integer   micro-batches of a step
---@param taken integer?        batches of the epoch that have been trained on: it begins behind them. A loader that
--- seeks (loader.seeks) is asked to; of another one they are read again, and left out
local function new(loader, epoch, accumulate, taken)
  taken = taken or 0
  local self = setmetatable({ms = 0, taken = taken, count = 0, steps = loader.steps, accumulate = accumulate},
    MicroBatches)
  if taken > 0 and loader.seeks then
    self.next, self.state, self.control = loader:epoch(epoch, taken + 1)
    return self
  end
  self.next, self.state, self.control = loader:epoch(epoch)
  for k = 1, taken do
    if not fetch(self) then
      raise(("train: the data ended after %d batches, the checkpoint is at %d"):format(k - 1, taken))
    end
  end
  return self
end

--- Whether there is another step; waits for its first batch.
function MicroBatches:more()
  self.ms, self.count = 0, 0
  self.first = fetch(self)
  return self.first ~= nil
end

--- Raises unless a user's loader gave a batch as ours do.
local function check_batch(batch)
  if type(batch) ~= "table" or T.is_tensor(batch) then
    raise(("train: a batch of the data is a %s, expected a table {x=, y=, n=, total=}"):format(
      T.is_tensor(batch) and "tensor" or type(batch)))
  end
  local n = number.expect_whole(batch.n, "train: n (images of this rank) of a batch of the data", 0)
  number.expect_whole(batch.total, "train: total (images of all ranks) of a batch of the data", n)
end

--- The step's next micro-batch, valid until the next one, and whether it is the step's last.
function MicroBatches:next_one()
  local batch = self.first or fetch(self)
  self.first = nil
  if not batch then
    raise(("train: the data ended after %d batches, an epoch has %d"):format(self.taken, self.steps))
  end
  check_batch(batch)
  self.taken, self.count = self.taken + 1, self.count + 1
  self.ended = self.taken == self.steps
  return batch, self.ended or self.count == self.accumulate
end

--- Raises unless the ranks' images, n together, are as many as this rank's batches said, by which it weighs its
--- gradient: `total` of a data set that is shared out, or `own` on each of `ranks` ranks of one that is not.
function MicroBatches.check_total(n, own, total, ranks, step)
  if n ~= total and not (own == total and n == ranks * own) and total < 2 ^ 24 then -- exact in f32 below that
    raise(("train: step %d: the ranks' batches have n = %d images together, this rank's say total = %d"):format(step, n,
      total))
  end
end

return new
