-- atomo.evaluate against sums computed here, and the order in which top_correct ranks logits.
local atomo = require "atomo"
local F, nn = atomo.F, atomo.nn
local fails = require "support.fails"
local top_correct = require "atomo.train.top_correct"

--- A loader of batches {x, y} over the whole set.
local function loader_of(batches)
  return {steps = #batches, epoch = function()
    local i = 0
    return function()
      i = i + 1
      return batches[i]
    end
  end}
end

describe("atomo.evaluate", function()
  local function setup_model()
    atomo.manual_seed(4)
    local model = nn.Sequential {nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 8)}
    local batches = {}
    for i, n in ipairs {5, 3} do
      local y = atomo.zeros({n}, "i32")
      for k = 0, n - 1 do y:data()[k] = (k * 3 + i) % 8 end
      batches[i] = {x = atomo.randn(n, 6), y = y, n = n}
    end
    return model, batches
  end

  it("returns means over all rows, weighed by the rows of a batch", function()
    local model, batches = setup_model()
    local got = atomo.evaluate(model, loader_of(batches))
    local loss, right, in_top = 0, 0, 0
    model:eval()
    atomo.no_grad(function()
      for _, batch in ipairs(batches) do
        local logits = model(batch.x)
        loss = loss + F.cross_entropy(logits, batch.y):item() * batch.n
        for i = 1, batch.n do
          local row, label, before = logits:select(1, i):totable(), batch.y:get(i), 0
          for _, v in ipairs(row) do if v > row[label + 1] then before = before + 1 end end
          right, in_top = right + (before == 0 and 1 or 0), in_top + (before < 5 and 1 or 0)
        end
      end
    end)
    assert.near(loss / 8, got.loss, 1e-6)
    assert.equal(right / 8, got.accuracy)
    assert.equal(in_top / 8, got.top5)
    assert.equal(8, got.n)
  end)

  it("leaves modes and running statistics as they were, and draws no dropout", function()
    local model, batches = setup_model()
    model[3]:eval()
    local before = model[2].running_mean:totable()
    local first, again = atomo.evaluate(model, loader_of(batches)), atomo.evaluate(model, loader_of(batches))
    assert.same(first, again)
    assert.same(before, model[2].running_mean:totable())
    assert.same({true, false}, {model[2].training, model[3].training})
  end)

  it("does not count ignored labels, and names its field by opts.top", function()
    local model, batches = setup_model()
    batches[1].y:fill_(-100)
    local got = atomo.evaluate(model, loader_of(batches), {top = 8})
    assert.same({3, 1}, {got.n, got.top8})
    assert.is_nil(got.top5)
    batches[2].y:fill_(-100)
    fails("no rows with labels", atomo.evaluate, model, loader_of(batches))
  end)

  it("refuses values that are no loader, model or option", function()
    local model, batches = setup_model()
    local data = atomo.data.synthetic {train = 2, test = 2}
    fails({"expected a loader, got a data set", "atomo.data.loader {set"}, atomo.evaluate, model, data)
    fails("got a data set", atomo.evaluate, model, data.test)
    fails("got a number", atomo.evaluate, model, 3)
    fails("model is a function", atomo.evaluate, print, loader_of(batches))
    fails({"top is 0", "whole number >= 1"}, atomo.evaluate, model, loader_of(batches), {top = 0})
    fails("did you mean 'loss'", atomo.evaluate, model, loader_of(batches), {los = 1})
    fails("evaluate: loss: expected a function", atomo.evaluate, model, loader_of(batches), {loss = 1})
  end)
end)

describe("top_correct", function()
  it("ranks as argmax does: NaN, then the largest, among equal ones the first", function()
    local nan = 0 / 0
    local logits = atomo.tensor {{1, 3, 3, 0}, {nan, 5, nan, 5}}
    local function place(row, label)
      for k = 1, 4 do
        local y = atomo.tensor({label}, "i32")
        if top_correct(logits:narrow(1, row, 1), y, k) == 1 then return k end
      end
    end
    assert.same({3, 1, 2, 4}, {place(1, 0), place(1, 1), place(1, 2), place(1, 3)})
    assert.same({1, 3, 2, 4}, {place(2, 0), place(2, 1), place(2, 2), place(2, 3)})
    for row = 1, 2 do
      assert.equal(1, place(row, logits:argmax(2):get(row) - 1))
    end
  end)
end)
