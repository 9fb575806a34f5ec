-- Results of a user's loader, schedule and loss are checked: inconsistent numbers of images would weigh gradients
-- wrongly, and a schedule's result that is no number would leave the previous rate in use.
local atomo = require "atomo"
local F, nn, world = atomo.F, atomo.nn, atomo.mpi.world

--- Trains 3 steps of 4 images a rank; change(batch, step) gives what the loader hands on.
local function train(change, options)
  atomo.manual_seed(1)
  local x, y = atomo.randn(4, 3), atomo.tensor({0, 1, 0, 1}, "i32")
  local loader = {steps = 3, epoch = function()
    local step = 0
    return function()
      step = step + 1
      if step > 3 then return nil end
      local batch = {x = x, y = y, n = 4, total = 4 * world.size}
      return change and change(batch, step) or batch
    end
  end}
  local model = nn.Linear(3, 2)
  local o = {model = model, data = {train = loader, test = loader}, quiet = true, exchange = atomo.exchange {},
    optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}}
  for name, value in pairs(options or {}) do o[name] = value end
  local before = model.weight:clone()
  local ok, message = pcall(atomo.train, o)
  return ok, tostring(message), model.weight:eq(before):sum():item() == 6
end

local function refused(pattern, change, options)
  local ok, message, untouched = train(change, options)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.truthy(message:find(pattern), ("'%s' is not in '%s'"):format(pattern, message))
  return untouched
end

local function with(name, value)
  return function(batch)
    batch[name] = value
    return batch
  end
end

it("a loader that gives what is documented trains, a module as the loss too", function()
  assert.is_true((train()))
  assert.is_true((train(nil, {loss = nn.CrossEntropyLoss(), epochs = 2, max_steps = 4, check_replicas = 2})))
end)

describe("refused before the first update:", function()
  it("a batch that is no table", function()
    assert.is_true(refused("a batch of the data is a number, expected a table", function() return 5 end))
    assert.is_true(refused("a batch of the data is a tensor", function() return atomo.ones(2) end))
  end)

  it("counts of images that are none", function()
    for _, bad in ipairs {-1, 2.5, 0 / 0, math.huge, "4"} do
      assert.is_true(refused("train: n .images of this rank.* is .*expected a whole number", with("n", bad)))
      assert.is_true(refused("train: total .images of all ranks.* is .*expected a whole number", with("total", bad)))
    end
    assert.is_true(refused("train: total .images of all ranks.* is missing", function(batch)
      batch.total = nil
      return batch
    end))
    assert.is_true(refused("train: total .* is 3, expected a whole number of at least 4", with("total", 3)))
  end)

  it("totals that the ranks' images do not make", function()
    assert.is_true(refused("step 1: the ranks' batches have n = %d+ images together, this rank's say total = ",
      with("total", 99)))
    assert.is_true(refused("step 1: the ranks' batches have n = ", with("total", 99), {accumulate = 2}))
  end)

  it("a loss of each image", function()
    assert.is_true(refused("train: loss is %[4%], expected a scalar", nil, {loss = function(logits, labels)
      return F.cross_entropy(logits, labels, {reduction = "none"})
    end}))
  end)

  it("a rate that is none", function()
    for _, bad in ipairs {0 / 0, -0.1, math.huge, "0.1", false} do
      assert.is_true(refused("train: schedule%(0%) is ", nil, {schedule = function() return bad end}))
    end
  end)
end)

describe("an option that is none is refused before the training:", function()
  local nan, epoch = 0 / 0, function() return function() end end
  for _, case in ipairs {{"epochs", 1.5}, {"epochs", -1}, {"epochs", nan}, {"max_steps", 2.5}, {"max_steps", -1},
    {"max_steps", "3"}, {"eval_every", -1}, {"eval_every", 0.5}, {"check_replicas", 0}, {"check_replicas", 1.5},
    {"check_replicas", "yes"}, {"clip_norm", 0}, {"clip_norm", -1}, {"clip_norm", nan}, {"clip_norm", true},
    {"clip_value", 0}, {"on_step", "print"}, {"on_epoch", 5}, {"schedule", 0.1}, {"loss", "mse"}, {"save", true},
    {"resume", 3}, {"log", true}, {"quiet", 0}, {"data", 5}, {"data", {epoch = epoch}}, {"data", {steps = 3}},
    {"data", {steps = 2.5, epoch = epoch}}, {"data", {train = 5}}, {"data", {train = {steps = 1, epoch = epoch},
    test = {steps = 1}}}} do
    it(("%s = %s"):format(case[1], tostring(case[2])), function()
      local options, calls = {[case[1]] = case[2]}, 0
      refused("train: .*" .. case[1] .. ".* is .*expected", function(batch)
        calls = calls + 1
        return batch
      end, options)
      assert.equal(0, calls)
    end)
  end
end)

it("a schedule that ends before the training is named with the step", function()
  assert.is_false(refused("train: schedule%(2%) is nil, expected a number >= 0", nil, {schedule = function(step)
    return ({0.1, 0.1})[step + 1]
  end}))
end)
