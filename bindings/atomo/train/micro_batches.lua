--- Distributes an epoch's batches over its steps: `accumulate` micro-batches per step, fewer in the last one (stage 2).
--   local batches = new_batches(loader, epoch, accumulate)
--   while batches:more() do ... local batch, last = batches:next_one() ... end
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local C, raise = f.C, f.raise

---@class atomo.MicroBatches
---@field ms number   milliseconds that this step has waited for data
---@field ended boolean  has the last batch of the epoch been taken?
local MicroBatches = {}
MicroBatches.__index = MicroBatches

local function fetch(self)
  local from = C.atomo_time()
  local batch = self.next(self.state, self.control)
  self.control = batch
  self.ms = self.ms + 1e3 * (C.atomo_time() - from)
  return batch
end

---@param loader table         with field steps and method epoch(e)
---@param epoch integer
---@param accumulate integer   micro-batches per step
---@param taken integer?        number of batches of the epoch to leave out, when a run is resumed. A loader with field
--- `seeks` starts after them; from any other loader they are read and discarded
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

--- Is there another step in the epoch? Waits for its first batch.
function MicroBatches:more()
  self.ms, self.count = 0, 0
  self.first = fetch(self)
  return self.first ~= nil
end

--- Raises unless a batch of a user's loader has the form of atomo.data's.
local function check_batch(batch)
  if type(batch) ~= "table" or T.is_tensor(batch) then
    raise(("train: a batch of the data is a %s, expected a table {x=, y=, n=, total=}"):format(
      T.is_tensor(batch) and "tensor" or type(batch)))
  end
  local n = number.expect_whole(batch.n, "train: n (images of this rank) of a batch of the data", 0)
  number.expect_whole(batch.total, "train: total (images of all ranks) of a batch of the data", n)
end

--- Returns the step's next micro-batch, valid until the next call, and whether it is the step's last.
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

--- Raises unless n, the images of all ranks in a step, agrees with the `total` of this rank's batches, by which
--- gradients are weighed. own: this rank's images. If the data are not distributed, total = own on each rank, and n =
--- ranks * own.
function MicroBatches.check_total(n, own, total, ranks, step)
  if n ~= total and not (own == total and n == ranks * own) and total < 2 ^ 24 then -- larger n are rounded in f32
    raise(("train: step %d: the ranks' batches have n = %d images together, this rank's say total = %d"):format(step, n,
      total))
  end
end

return new
