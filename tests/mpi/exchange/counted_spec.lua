-- Means are averaged by their counts: gradient and loss of k micro-batches on P ranks equal those of one large batch,
-- with ignored labels, weighted classes, summed losses, user-defined losses, and micro-batches in which no label
-- counts.
local atomo = require "atomo"
local F, nn, world = atomo.F, atomo.nn, atomo.mpi.world

local WIDTH, CLASSES, LENGTH = 3, 4, 5

--- Makes `n` sequences of LENGTH labels; in sequence i, `ignored(i)` labels are -1.
local function make(n, ignored)
  atomo.manual_seed(5)
  local x, y = atomo.randn(n, LENGTH, WIDTH), atomo.zeros(n, LENGTH, "i32")
  for i = 1, n do
    for j = 1, LENGTH do y:set(i, j, j <= ignored(i) and -1 or (3 * i + j) % CLASSES) end
  end
  return x, y
end

--- Makes a loader of them with `batch` sequences per rank; the last batch is distributed over the ranks.
local function loader(x, y, batch)
  local n = x:size(1)
  local steps = math.ceil(n / (batch * world.size))
  return {steps = steps, epoch = function()
    local step = 0
    return function()
      if step == steps then return nil end
      local from = step * batch * world.size
      local total = math.min(batch * world.size, n - from)
      local a = math.floor(total * world.rank / world.size)
      local mine = math.floor(total * (world.rank + 1) / world.size) - a
      step = step + 1
      local at = math.min(from + a + 1, n)
      local len = math.max(mine, 1)
      return {x = x:narrow(1, at, len):contiguous(), y = y:narrow(1, at, len):contiguous(), n = mine, total = total}
    end
  end}
end

local function model_of()
  atomo.manual_seed(9)
  return nn.Linear(WIDTH, CLASSES)
end

--- Returns what one step of SGD with learning rate 1 subtracts from the parameters: the gradient.
local function step_of(x, y, options)
  local model = model_of()
  local before = model.weight:clone()
  local o = {model = model, data = {train = loader(x, y, options.batch), test = loader(x, y, 2)}, quiet = true,
    exchange = atomo.exchange {}, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1}}
  for key, value in pairs(options) do
    if key ~= "batch" then o[key] = value end
  end
  local info = atomo.train(o)
  return before - model.weight, info, before
end

--- Returns the gradient and loss of one large batch, with the initial parameters.
local function big(x, y, loss)
  local model = model_of()
  local value = loss(model(x), y)
  value:backward()
  return model.weight.grad, value:item()
end

local uneven = function(i) return (2 * i) % (LENGTH + 1) end -- if all are ignored, no label of the sequence counts
local weight = atomo.tensor {0.5, 2, 1, 0.25}
local some = atomo.tensor {0, 2, 0, 0} -- three classes have no weight, so that a sequence may count nothing
local function ce(opts) return function(logits, y) return F.cross_entropy(logits, y, opts) end end

local as_sum = {ignore_index = -1, reduction = "sum"}

local losses = {
  ["ignored labels"] = ce {ignore_index = -1},
  ["ignored labels and weighted classes"] = ce {ignore_index = -1, weight = weight},
  ["smoothed labels of classes without weight"] = ce {ignore_index = -1, weight = some, label_smoothing = 0.4},
  ["a sum"] = ce {ignore_index = -1, reduction = "sum"},
  ["a sum of smoothed labels of classes without weight"] = ce {ignore_index = -1, weight = some, label_smoothing = 0.4,
    reduction = "sum"},
  ["a mean that is changed"] = function(logits, y) return F.cross_entropy(logits, y, {ignore_index = -1}) * 0.5 end,
  ["a sum times a number"] = function(logits, y) return F.cross_entropy(logits, y, as_sum) * 0.3 end,
  ["a sum with its sign changed twice"] = function(logits, y) return -(-F.cross_entropy(logits, y, as_sum)) end,
  ["a sum divided by a number"] = function(logits, y) return F.cross_entropy(logits, y, as_sum) / 1000 end,
  ["a sum changed in place"] = function(logits, y)
    local sum = F.cross_entropy(logits, y, as_sum)
    return sum:mul_(0.3)
  end,
  ["a sum of sums"] = function(logits, y)
    return F.cross_entropy(logits, y, as_sum) + 0.25 * F.mse_loss(logits, logits:detach() * 0, {reduction = "sum"})
  end,
  ["a sum added to a total"] = function(logits, y)
    return atomo.zeros(1):add_(F.cross_entropy(logits, y, as_sum)) + 0
  end,
  ["a sum that is said to be one"] = function(logits, y)
    return F.cross_entropy(logits, y, {ignore_index = -1, reduction = "none"}):sum() * 0.3, "sum"
  end,
  ["per image: a sum divided by the images"] = function(logits, y)
    return F.cross_entropy(logits, y, as_sum) / y:size(1)
  end,
  ["per label: a sum divided by all labels"] = function(logits, y)
    return F.cross_entropy(logits, y, as_sum) / y:numel() * 3
  end,
  ["per label: a sum divided by a tensor with their number"] = function(logits, y)
    return F.cross_entropy(logits, y, as_sum):div(atomo.tensor {y:numel()})
  end,
  ["nll_loss"] = function(logits, y) return F.nll_loss(F.log_softmax(logits), y, {ignore_index = -1}) end,
  ["a loss that returns its count"] = function(logits, y)
    local each = F.cross_entropy(logits, y, {ignore_index = -1, reduction = "none"})
    local count = F.cross_entropy(logits, y, {ignore_index = -1, reduction = "sum"}).count
    return each:sum() * (1 / math.max(count, 1)), count
  end,
}

local function check_near(expected, got, what)
  local worst = (expected - got):abs():max():item()
  local scale = expected:abs():max():item()
  assert.is_true(worst <= 2e-6 * scale + 1e-7, ("%s: differs by %g of %g"):format(what, worst, scale))
end

describe("the gradient of micro-batches and ranks is that of one big batch:", function()
  local names = {}
  for name in pairs(losses) do names[#names + 1] = name end
  table.sort(names) -- the same order on all ranks
  for _, name in ipairs(names) do
    local loss = losses[name]
    for _, case in ipairs {{batch = 2, accumulate = 3}, {batch = 1, accumulate = 8}, {batch = 6, accumulate = 1}} do
      it(("%s, %d of %d a rank"):format(name, case.accumulate, case.batch), function()
        local n = case.batch * case.accumulate * world.size
        for _, sequences in ipairs {n, n - 1} do -- the last batch full, then shorter
          local x, y = make(sequences, uneven)
          local wanted, value = big(x, y, loss)
          local got, info = step_of(x, y, {batch = case.batch, accumulate = case.accumulate, loss = loss,
            max_steps = 1, eval_every = 0})
          check_near(wanted, got, sequences .. " sequences")
          if not name:find "^a sum" then assert.near(value, info.loss, 2e-6 * math.abs(value)) end
        end
      end)
    end
  end

  local function refused(what, text, loss)
    it(("and %s is refused where micro-batches or ranks are weighed"):format(what), function()
      local x, y = make(4 * world.size, uneven)
      local function run(accumulate)
        return pcall(step_of, x, y, {batch = 2, accumulate = accumulate, loss = loss, eval_every = 0})
      end
      local ok, message = run(2)
      assert.is_false(ok)
      assert.matches(text .. ".*: return loss, count for a mean over `count`, or loss, \"sum\"", message)
      assert.equal(world.size == 1, (run(1)))
    end)
  end
  refused("a sum and a mean", "a sum and a mean", function(logits, y)
    return F.cross_entropy(logits, y, as_sum) + F.cross_entropy(logits, y, {ignore_index = -1})
  end)
  refused("a sum and a penalty", "a sum and a tensor of which it is not known", function(logits, y)
    return F.cross_entropy(logits, y, as_sum) + 0.1 * logits:square():mean()
  end)
  refused("a root of a sum", "computed from a sum otherwise than by", function(logits, y)
    return F.cross_entropy(logits, y, as_sum):sqrt()
  end)
  refused("a square of a sum", "a sum times a tensor", function(logits, y)
    local sum = F.cross_entropy(logits, y, as_sum)
    return sum * sum
  end)
  refused("a sum times 1 / images", "a sum times 0.5, and the batch has 2 images", function(logits, y)
    return F.cross_entropy(logits, y, as_sum) * 0.5
  end)
  refused("sums over images and over labels", "sums with different divisors", function(logits, y)
    local sum = F.cross_entropy(logits, y, as_sum)
    return sum / 2 + sum / y:numel()
  end)
  local k = 0
  local function changing(logits, y)
    k = k + 1
    return F.cross_entropy(logits, y, as_sum) / (100 + k + world.rank)
  end
  refused("a sum divided by another number in each batch", "a sum divided by %d+, and before by %d+", changing)

  it("of a batch without counted labels on any rank changes no parameter and raises no error", function()
    local x, y = make(4 * world.size, function() return LENGTH end)
    local moved, info = step_of(x, y, {batch = 2, accumulate = 2, loss = losses["ignored labels"], eval_every = 0})
    assert.equal(0, moved:abs():max():item())
    assert.is_true(info.loss ~= info.loss)
  end)

  it("also a step with another share of ignored labels than the first, by any exact compressor", function()
    local n = 2 * world.size
    local x, y = make(2 * n, function(i) return i <= n and 1 or 3 end)
    local wanted = big(x:narrow(1, n + 1, n):contiguous(), y:narrow(1, n + 1, n):contiguous(), losses["ignored labels"])
    local model = model_of()
    local at = 0
    local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1}
    atomo.train {model = model, data = loader(x, y, 2), loss = losses["ignored labels"], quiet = true, eval_every = 0,
      optimizer = optimizer, exchange = atomo.exchange {compress = "topk:k=1000", min_size = 1},
      schedule = function(step)
        at = step
        return step == 0 and 0 or 1
      end}
    assert.equal(1, at)
    check_near(wanted, model_of().weight - model.weight, "the second step")
  end)
end)

describe("means over an epoch and a test set", function()
  it("weigh by counted labels, for any number of ranks and batches", function()
    local loss = losses["ignored labels"]
    local x, y = make(11, uneven)
    local _, value = big(x, y, loss)
    for _, batch in ipairs {1, 2, 4} do
      local _, info = step_of(x, y, {batch = batch, loss = loss, schedule = function() return 0 end})
      assert.near(value, info.loss, 2e-6)
      assert.near(value, info.test_loss, 2e-6)
      local fraction, of = F.accuracy(model_of()(x), y, {ignore_index = -1})
      assert.near(fraction, info.accuracy, 1e-6)
      assert.near(fraction, info.test_accuracy, 1e-6)
      assert.is_true(of < 55)
    end
  end)

  it("have what smoothing adds for labels whose class has no weight, though these count nothing", function()
    local loss = losses["smoothed labels of classes without weight"]
    local x, y = make(11, function() return LENGTH - 1 end) -- one label a sequence
    local _, value = big(x, y, loss)
    for _, batch in ipairs {1, 2, 4} do
      local _, info = step_of(x, y, {batch = batch, loss = loss, schedule = function() return 0 end})
      assert.near(value, info.loss, 2e-6 * value)
      assert.near(value, info.test_loss, 2e-6 * value)
    end
  end)

  it("and steps that count nothing at all change no parameter", function()
    local x, y = make(4 * world.size, function() return LENGTH - 1 end)
    y:copy_(-(y:lt(0):int()))
    for _, accumulate in ipairs {1, 2} do
      local moved = step_of(x, y, {batch = 2, accumulate = accumulate, eval_every = 0,
        loss = losses["smoothed labels of classes without weight"]})
      assert.equal(0, moved:abs():max():item())
    end
  end)

  it("refuse a count that is not a number from 0 on", function()
    local x, y = make(2 * world.size, uneven)
    local ok, text = pcall(step_of, x, y, {batch = 2, loss = function(logits, labels)
      return losses["ignored labels"](logits, labels), 0 / 0
    end})
    assert.is_false(ok)
    assert.matches("train: loss returned the count nan beside the loss, expected a number >= 0", text)
  end)
end)
