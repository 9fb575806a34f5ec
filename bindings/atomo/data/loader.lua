--- Batches of a set, sharded over ranks, augmented and normalised (stage 2). A background thread makes the next batch.
-- Order and augmentation depend only on (seed, epoch, image), not on the number of ranks or threads.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local check_options = require "atomo.tensor.check_options"
local same = require "atomo.comm.consistency"
local strict_fields = require "atomo.core.fields"
local batches = require "atomo.data.batch"
local number = require "atomo.core.number"
local own = require "atomo.data.own"
local sets = require "atomo.data.set"
local tensors = require "atomo.data.tensors"
local transforms = require "atomo.data.transforms"
local whole = require "atomo.data.whole_option"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.Loader
---@field steps integer   steps per epoch, the same on every rank
---@field batch integer   images per rank and step
---@field seed integer
local Loader = strict_fields({seeks = true, unit = "img"}, "loader", "steps batch seed size", "h length train test")
-- seeks: epoch() accepts a first step. unit: what batch.n counts, for progress lines. train, test: absent; atomo.train
-- reads them, because it accepts a loader alone.
Loader.__index = Loader

local known = {
  set = true, batch = true, rank = true, size = true, seed = true, shuffle = check_options.flag, augment = true,
  mean = true, std = true, drop_last = check_options.flag, background = check_options.flag,
}

local function check_set(set)
  local kind = sets.kind(set)
  if kind then return kind end
  if type(set) == "table" and (set.train or set.test) and (sets.kind(set.train) or sets.kind(set.test)) then
    raise "loader: set is data with the parts train and test, expected one of them: set = data.train"
  end
  raise("loader: set is missing, expected a set: {images=, labels=} as in atomo.data.open().train, {x=, y=}, or a "
    .. "table with methods size() and get(i)")
end

local function options_of(o)
  local set = o.set
  T.expect(set.labels, "loader: set.labels", "i32")
  if set.images:dtype() ~= "f32" then T.expect(set.images, "loader: set.images", "u8") end
  local c = ffi.new "atomo_loader_options"
  c.batch = whole("loader", o, "batch", 64, 1)
  c.rank, c.size = whole("loader", o, "rank", 0, 0), whole("loader", o, "size", 1, 1)
  c.seed = whole("loader", o, "seed", 0, 0)
  c.shuffle = o.shuffle ~= false and 1 or 0
  c.drop_last = o.drop_last and 1 or 0
  c.background = o.background ~= false and 1 or 0
  c.classes = set.classes or 0
  transforms.set(c, o, set.images:size(-1))
  return c
end

--- Makes a loader: loader{set=, batch=64, rank=0, size=1, seed=0, shuffle=true, augment={crop=4, flip=true} or false,
--- mean=, std=, drop_last=false, background=true}. mean and std: one number per channel, of pixels divided by 255.
-- augment may also be a list of transforms, in their order, as {{"normalise"}, {"crop", 4}, {"flip"}} (transforms.lua).
-- set: images {images=, labels=}; {x=, y=} (tensors.lua, without augment, mean and std); a user's set (own.lua).
---@return atomo.Loader
local function new(_, o)
  if type(o) ~= "table" then raise(("loader: got a %s, expected a table of options"):format(type(o))) end
  if sets.kind(o) then raise "loader: got a data set, expected options: atomo.data.loader{set = set, batch = 64}" end
  check_options.check("loader", o, known)
  local kind = check_set(o.set)
  if kind == "tensors" then return tensors.from_set(o) end
  if kind == "own" then return own(o) end
  local c, handle = options_of(o), ffi.new "atomo_loader *[1]"
  check(C.atomo_loader_new(o.set.images.h, o.set.labels.h, c, handle))
  return setmetatable({
    h = ffi.gc(handle[0], C.atomo_loader_free), steps = C.atomo_loader_steps(handle[0]), batch = c.batch,
    seed = c.seed, size = c.size, epochs_begun = 0, views = {{}, {}}, raw = ffi.new "atomo_batch", given = o,
  }, Loader)
end

--- Items for consistency.check: what must be equal on ranks that share a set.
---@return table[]
---@usage #loader:identity() > 2 --> true
function Loader:identity()
  local o = self.given
  local items = same.data {{"images", o.set.images}, {"labels", o.set.labels}}
  for _, item in ipairs(same.items(o, {rank = true, background = true})) do items[#items + 1] = item end
  items[#items + 1] = {"augment", transforms.text(o.augment)}
  return items
end

local function handle_of(self)
  return rawget(self, "h") or raise "loader: used after :close()"
end

--- Returns the tensors over buffer `slot` for n images; they are made once per n and reused.
local function views_of(self, slot, n)
  local pair = self.views[slot + 1][n]
  if not pair then
    pair = T.outside_scope(function()
      local x, y = T.out(), T.out()
      check(C.atomo_loader_view(self.h, slot, n, x, y))
      return {x = T.wrap(x[0]), y = T.wrap(y[0])}
    end)
    self.views[slot + 1][n] = pair
  end
  return pair
end

--- Iterates over an epoch's batches: for batch in loader:epoch(e) do batch.x, batch.y, ... end
-- x f32 [n,h,w,c] and y i32 [n] are valid until the next batch. n: images on this rank (0 if the last step has fewer
-- images than ranks), total: images on all ranks, index: 1-based step, steps: steps of the epoch.
---@param epoch integer   >= 0; determines order and augmentation
---@param first integer?  first step (default 1), to resume a run
---@return fun(): table? the next batch
---@usage for batch in loader:epoch(0) do assert(batch.x:size(1) == batch.n) end
function Loader:epoch(epoch, first)
  number.expect_whole(epoch, "loader: epoch")
  check(C.atomo_loader_begin(handle_of(self), epoch, (first or 1) - 1))
  self.epochs_begun = self.epochs_begun + 1
  local mine, raw = self.epochs_begun, self.raw
  return function()
    local h = handle_of(self)
    if self.epochs_begun ~= mine then raise "loader: this epoch was ended by a later :epoch() of the same loader" end
    if check(C.atomo_loader_next(h, raw)) == 0 then return nil end
    local pair = views_of(self, raw.slot, raw.n)
    batches.finish(self)
    return batches.make(self, {n = raw.n, total = raw.total, index = raw.step + 1, steps = raw.steps}, pair.x, pair.y)
  end
end

--- Stops the thread and frees the memory; tensors of the last batch stay valid. May be called at any time and
--- repeatedly.
---@usage atomo.data.loader({set = set}):close()
function Loader:close()
  local h = rawget(self, "h")
  if h then
    C.atomo_loader_free(ffi.gc(h, nil))
    self.h, self.views, self.last_batch = nil, {{}, {}}, nil
  end
end

return setmetatable({Loader = Loader}, {__call = new})
