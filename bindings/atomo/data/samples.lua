--- The common part of loaders in Lua (stage 2). Order, shares of the ranks, number of steps, and the step to resume at
-- are those of the image loader. Each kind of loader has a function fetch(self, n, ids, epoch), which returns the
-- tensors x and y of n samples; it may use them again for the next batch.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local strict_fields = require "atomo.core.fields"
local batches = require "atomo.data.batch"
local whole = require "atomo.data.whole_option"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.SampleLoader
---@field steps integer   steps per epoch, the same on every rank
---@field batch integer   samples per rank and step
---@field seed integer
local Loader = strict_fields({seeks = true, unit = "samples"}, "loader", "steps batch rank size seed samples",
  "length train test") -- see data/loader.lua
Loader.__index = Loader

local M = {}

--- Makes a loader of n samples from the options batch=64, rank=0, size=1, seed=0, shuffle=true, drop_last=false.
---@param what string  for error texts: "tensors"
---@param n integer
---@param o table
---@param fetch fun(self: table, n: integer, ids: atomo.Tensor, epoch: integer): any  ids: i32 [n], from 0
---@param items fun(): table[]  what must be equal on all ranks, for consistency.check
function M.new(what, n, o, fetch, items)
  local self = setmetatable({samples = n, fetch = fetch, items = items, epochs_begun = 0,
    shuffle = o.shuffle ~= false, what = what}, Loader)
  self.batch, self.size = whole(what, o, "batch", 64, 1), whole(what, o, "size", 1, 1)
  self.rank, self.seed = whole(what, o, "rank", 0, 0), whole(what, o, "seed", 0, 0)
  local global = self.batch * self.size
  if self.rank >= self.size then
    raise(("%s: rank %d of %d, expected 0 to size - 1"):format(what, self.rank, self.size))
  elseif global > 2 ^ 31 - 1 then
    raise(("%s: batch %d on %d ranks is above 2^31-1 samples"):format(what, self.batch, self.size))
  elseif n < 1 or n > 2 ^ 31 - 1 then
    raise(("%s: the set has %d samples, expected 1 to 2^31-1"):format(what, n))
  elseif o.drop_last and global > n then
    raise(("%s: drop_last with %d samples, fewer than one global batch (%d x %d ranks)"):format(what, n, self.batch,
      self.size))
  end
  self.drop_last = o.drop_last == true
  self.steps = o.drop_last and math.floor(n / global) or math.ceil(n / global)
  return self
end

--- Items for consistency.check: what must be equal on ranks that share a set.
function Loader:identity()
  local items = self.items()
  for _, key in ipairs {"samples", "shuffle", "drop_last"} do items[#items + 1] = {key, self[key]} end
  return items
end

--- Iterates over an epoch's batches, with the fields of the image loader's batches: for batch in loader:epoch(e) do ...
--- end x and y are valid until the next batch. If the last step has fewer samples than ranks, some ranks have n = 0.
---@param epoch integer   >= 0; determines the order
---@param first integer?  first step (default 1), to resume a run
function Loader:epoch(epoch, first)
  if rawget(self, "closed") then raise(self.what .. ": used after :close()") end
  number.expect_whole(epoch, self.what .. ": epoch")
  local step = number.expect_whole(first == nil and 1 or first, self.what .. ": first step", 1, self.steps + 1) - 1
  self.order = T.outside_scope(function()
    local out = T.out()
    check(C.atomo_loader_order(self.seed, epoch, self.shuffle and 1 or 0, self.samples, out))
    return T.wrap(out[0])
  end)
  self.epochs_begun = self.epochs_begun + 1
  local mine, raw, from = self.epochs_begun, ffi.new "atomo_batch", ffi.new "double[1]"
  return function()
    if rawget(self, "closed") then raise(self.what .. ": used after :close()") end
    if self.epochs_begun ~= mine then raise "loader: this epoch was ended by a later :epoch() of the same loader" end
    if step >= self.steps then return nil end
    check(C.atomo_loader_share(self.samples, self.batch, self.rank, self.size, step, from, raw))
    step = step + 1
    batches.finish(self)
    local x, y = T.outside_scope(function()
      return self.fetch(self, raw.n, self.order:narrow(1, tonumber(from[0]) + 1, raw.n), epoch)
    end)
    return batches.make(self, {n = raw.n, total = raw.total, index = step, steps = self.steps}, x, y)
  end
end

--- Frees the buffers; tensors of the last batch stay valid. May be called at any time and repeatedly.
function Loader:close() self.closed, self.order, self.fetch, self.last_batch = true, nil, nil, nil end

return M
