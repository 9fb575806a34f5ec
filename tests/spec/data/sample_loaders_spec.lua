-- Loaders over tensors of any shape and over a user's set: order, shares of ranks and resuming as the image loader's,
-- dtypes, images of a user's set, and what is refused.
local atomo = require "atomo"
local fails = require "support.fails"
local data = atomo.data

local function with(o, more)
  local t = {}
  for k, v in pairs(o) do t[k] = v end
  for k, v in pairs(more or {}) do t[k] = v end
  return t
end

--- Returns the labels of an epoch's batches as lists, from step `first` on.
local function labels(loader, epoch, first)
  local list = {}
  for b in loader:epoch(epoch, first) do
    assert.equal(b.n, b.x:size(1))
    assert.equal(loader.steps, b.steps)
    assert.equal((first or 1) + #list, b.index)
    list[#list + 1] = b.y:totable()
  end
  return list
end

local n = 37
local images = atomo.rand(n, 4, 4, 3):mul_(256):to "u8"
local ids = atomo.arange(n):to "i32"
local image_set = {images = images, labels = ids, n = n, classes = n}

--- A set of the user's that gives the same samples, and counts how often each is asked for.
local function own_set()
  local set = {asked = {}}
  function set.size() return n end
  function set.get(self, i)
    self.asked[i] = (self.asked[i] or 0) + 1
    return images:select(1, i), i - 1
  end
  return set
end

--- The kinds of loaders, as functions of the same options.
local kinds = {
  tensors = function(o) return data.tensors(with(o, {x = images, y = ids})) end,
  ["a set {x=, y=}"] = function(o) return data.loader(with(o, {set = {x = images, y = ids}})) end,
  ["a user's set"] = function(o) return data.loader(with(o, {set = own_set()})) end,
}

for name, make in pairs(kinds) do
  describe("the loader of " .. name, function()
    it("has the order, shares and steps of the image loader, on any number of ranks", function()
      for _, o in ipairs {{batch = 8}, {batch = 8, shuffle = false}, {batch = 5, seed = 2 ^ 40 + 1},
        {batch = 4, size = 3, rank = 1}, {batch = 12, size = 3, rank = 2, drop_last = true}, {batch = 9, size = 4,
          rank = 0}} do
        local want = data.loader(with(o, {set = image_set}))
        local got = make(o)
        assert.equal(want.steps, got.steps)
        assert.same(labels(want, 3), labels(got, 3))
        want:close()
      end
    end)

    it("begins an epoch at any step, so a run can resume there", function()
      local whole, part = labels(make {batch = 8}, 1), labels(make {batch = 8}, 1, 3)
      assert.same({whole[3], whole[4], whole[5]}, part)
      fails("first step is 0", make {batch = 8}.epoch, make {batch = 8}, 1, 0)
      local seeks = make {batch = 8}
      assert.is_true(seeks.seeks)
    end)

    it("ends an epoch when another begins or the loader is closed", function()
      local loader = make {batch = 8}
      local old = loader:epoch(0)
      old()
      loader:epoch(1)
      fails("this epoch was ended", old)
      local last = loader:epoch(1)
      last()
      loader:close()
      loader:close()
      fails("used after :close()", last)
      fails("used after :close()", loader.epoch, loader, 1)
    end)

    it("refuses options that make no sense", function()
      for text, o in pairs {["batch is 0"] = {batch = 0}, ["rank 2 of 2"] = {rank = 2, size = 2},
        ["unknown option 'bacth'"] = {bacth = 3}, ["seed is -1"] = {seed = -1},
        ["fewer than one global batch (30 x 2 ranks)"] = {batch = 30, size = 2, drop_last = true}} do
        fails(text, make, o)
      end
      fails("epoch -1", make {}.epoch, make {}, -1)
    end)
  end)
end

describe("the loader of tensors", function()
  it("keeps dtypes and shapes, and makes no new tensors once warm", function()
    for _, case in ipairs {{atomo.rand(6, 2, 5), atomo.rand(6, 3)}, {atomo.arange(6):to "i32", atomo.rand(6)},
      {atomo.rand(6, 1, 1, 1, 2), ids:narrow(1, 1, 6)}} do
      local x, y = unpack(case)
      for b in data.tensors {x = x, y = y, batch = 6, shuffle = false}:epoch(0) do
        assert.equal(x:dtype(), b.x:dtype())
        assert.same(x:totable(), b.x:totable())
        assert.same(y:totable(), b.y:totable())
      end
    end
    local loader, seen = data.tensors {x = images, y = ids, batch = 8}, {}
    for _ = 1, 3 do
      for b in loader:epoch(0) do seen[tostring(b.x.h)] = true end
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert.equal(2, count) -- for 8 and for 5 samples
  end)

  it("refuses invalid arguments", function()
    fails("x is missing", data.tensors, {y = ids})
    fails("y is a table", data.tensors, {x = ids, y = {1}})
    fails("x is a scalar", data.tensors, {x = atomo.tensor(1), y = ids})
    fails({"x is [3,2], y is [4]", "as many samples"}, data.tensors, {x = atomo.zeros(3, 2), y = atomo.zeros(4)})
    fails("got a nil, expected a table", data.tensors)
    fails("mean is for images", data.loader, {set = {x = ids, y = ids}, mean = {1}})
    fails("augment is for images", data.loader, {set = {x = ids, y = ids}, augment = {crop = 4}})
  end)

  it("trains a network on numbers", function()
    atomo.manual_seed(1)
    local x = atomo.randn(64, 3)
    local model = atomo.nn.Linear(3, 1)
    local losses = {}
    atomo.train {model = model, data = data.tensors {x = x, y = x:sum(2):unsqueeze(2), batch = 16}, quiet = true,
      optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.2}, epochs = 6, loss = atomo.F.mse_loss,
      accuracy = false, on_epoch = function(info) losses[#losses + 1] = info.loss end}
    assert.is_true(losses[6] < 0.05 * losses[1], table.concat(losses, " "))
  end)
end)

describe("the loader of a user's set", function()
  it("asks for the rank's own samples only, once an epoch", function()
    local set = own_set()
    local loader = data.loader {set = set, batch = 4, size = 2, rank = 1}
    local mine = {}
    set.asked = {}
    for _, list in ipairs(labels(loader, 0)) do
      for _, y in ipairs(list) do mine[y + 1] = 1 end
    end
    assert.same(mine, set.asked)
  end)

  it("normalises and augments images as a set in memory does", function()
    local transforms = {{"normalise"}, {"crop", 2}, {"flip"}, {"cutout", 2}}
    for _, augment in ipairs {false, {crop = 2, flip = true}, transforms} do
      local o = {batch = 8, seed = 5, mean = {0.1, 0.2, 0.3}, std = {0.5, 0.6, 0.7}, augment = augment}
      local own, other = data.loader(with(o, {set = own_set()})), data.loader(with(o, {set = image_set}))
      local next_batch = other:epoch(2)
      for b in own:epoch(2) do
        local want = next_batch().x
        assert.same(want:reshape(want:numel()):totable(), b.x:reshape(b.x:numel()):totable())
      end
    end
    for b in data.loader {set = own_set(), batch = 40, size = 40, rank = 0}:epoch(0) do -- no sample for this rank
      assert.equal("f32", b.x:dtype())
      assert.same({0, 4, 4, 3}, b.x:shape())
    end
  end)

  it("takes samples of any shape, and targets that are tensors", function()
    local set = {size = function() return 3 end, get = function(_, i) return i / 2, atomo.tensor {i, -i} end}
    for b in data.loader {set = set, batch = 3, shuffle = false}:epoch(0) do
      assert.same({0.5, 1, 1.5}, b.x:totable())
      assert.same({{1, -1}, {2, -2}, {3, -3}}, b.y:totable())
    end
  end)

  it("refuses samples that differ from the first, and sets without their methods", function()
    local function set(get) return {size = function() return 4 end, get = get, classes = 3} end
    local function run(s, o)
      for _ in data.loader(with({set = s, batch = 4, shuffle = false}, o)):epoch(0) do end
    end
    fails({"x of sample 3 is f32 [2], expected f32 [1] as in sample 1"}, run, set(function(_, i)
      return atomo.zeros(i == 3 and 2 or 1), 0
    end))
    fails({"y of sample 2 is 0.5, expected 0 as in sample 1", "atomo.tensor{0.5}"}, run, set(function(_, i)
      return 1, i == 2 and 0.5 or 0
    end))
    fails("sample 4 has the class 3, expected 0 to 2", run, set(function(_, i) return 1, i - 1 end))
    fails("get(1) returned 1 and nothing", run, set(function() return 1 end))
    fails("x of sample 1 is a table", run, set(function() return {}, 1 end))
    fails("set.size is missing", run, {get = function() return 1, 1 end})
    fails("set:size() is 0.5", run, {size = function() return 0.5 end, get = function() return 1, 1 end})
    fails("augment, mean and std are for images", run, set(function() return 1, 1 end), {augment = {flip = true}})
    fails("mixup needs a set that holds its images", run, own_set(), {augment = {{"mixup"}}})
    fails("my own error", run, set(function() error "my own error" end))
  end)
end)

describe("where a loader is expected", function()
  it("a set in place of a loader is refused with a remedy, and so are data of two parts in place of a set", function()
    local model = atomo.nn.Linear(2, 2)
    local o = {model = model, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}}
    for _, set in ipairs {image_set, {x = images, y = ids}, own_set()} do
      fails("expected a loader, got a data set: atomo.data.loader{set = ...}", atomo.train, with(o, {data = set}))
      fails("evaluate: expected a loader, got a data set: atomo.data.loader {set = ...}", atomo.evaluate, model, set)
      fails("data.test: expected a loader, got a data set", atomo.train, with(o, {data = {train = data.tensors {x = ids,
        y = ids}, test = set}}))
    end
    fails("expected one of them: set = data.train", data.loader, {set = {train = image_set}})
  end)
end)
