--- A loader over tensors of any shape and dtype, whose first dimensions count the samples (stage 2):
--   atomo.data.tensors {x = features, y = targets, batch = 32, rank = world.rank, size = world.size}
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local check_options = require "atomo.tensor.check_options"
local samples = require "atomo.data.samples"
local same = require "atomo.comm.consistency"
local C, check, raise = f.C, f.check, f.raise

local known = {
  x = true, y = true, batch = true, rank = true, size = true, seed = true, shuffle = check_options.flag,
  drop_last = check_options.flag,
}

--- Returns rows `ids` of t (numbers from 0). The result is made once per number of rows, and reused.
local function rows(cache, t, ids)
  local n, out = ids:numel(), T.out()
  if cache[n] then out[0] = cache[n].h end
  check(C.atomo_index_select(t.h, 0, ids.h, out))
  cache[n] = cache[n] or T.wrap(out[0])
  return cache[n]
end

local function new(o, what)
  for _, key in ipairs {"x", "y"} do
    if not T.is_tensor(o[key]) or o[key]:dim() == 0 then
      raise(("%s: %s is %s, expected a tensor [n,...]"):format(what, key, T.is_tensor(o[key]) and "a scalar" or
        o[key] == nil and "missing" or "a " .. type(o[key])))
    end
  end
  local x, y = o.x:detach():contiguous(), o.y:detach():contiguous()
  if x:size(1) ~= y:size(1) then
    raise(("%s: x is %s, y is %s, expected as many samples in both"):format(what, T.shape_text(x), T.shape_text(y)))
  end
  local xs, ys = {}, {}
  return samples.new(what, x:size(1), o, function(_, _, ids)
    return rows(xs, x, ids), rows(ys, y, ids)
  end, function() return same.data {{"x", x}, {"y", y}} end)
end

local M = {}

--- Makes a loader: tensors{x=, y=, batch=64, rank=0, size=1, seed=0, shuffle=true, drop_last=false}. Order, shares and
--- batches are those of atomo.data.loader; x and y of a batch have the tensors' dtypes.
---@param o table
---@return atomo.SampleLoader
---@usage atomo.data.tensors({x = atomo.ones(8, 2), y = atomo.zeros(8, 1), batch = 4}).steps --> 2
function M.tensors(o)
  if type(o) ~= "table" then raise(("tensors: got a %s, expected a table of options"):format(type(o))) end
  check_options.check("tensors", o, known)
  return new(o, "tensors")
end

--- The loader of a set {x=, y=}: options of atomo.data.loader.
function M.from_set(o)
  for _, key in ipairs {"mean", "std"} do
    if o[key] ~= nil then raise(("loader: %s is for images, the set has x and y"):format(key)) end
  end
  if o.augment then raise "loader: augment is for images, the set has x and y" end
  return new({x = o.set.x, y = o.set.y, batch = o.batch, rank = o.rank, size = o.size, seed = o.seed,
    shuffle = o.shuffle, drop_last = o.drop_last}, "loader")
end

return M
