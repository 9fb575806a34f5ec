-- atomo.train refuses, by name and before anything is trained, values given in place of a model, an optimizer, an
-- exchange or the results of a function, and an optimizer that would not train the model.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F
local fails = require "support.fails"

local x, y = atomo.randn(8, 3), atomo.zeros({8}, "i32")

local function options(more)
  local model = nn.Linear(3, 2)
  local o = {model = model, data = atomo.data.tensors {x = x, y = y, batch = 4}, quiet = true,
    optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}}
  for key, value in pairs(more) do o[key] = value end
  return o
end

local function refused(pattern, more) fails(pattern, atomo.train, options(more)) end

describe("atomo.train refuses", function()
  it("what is no exchange", function()
    local expected = "expected an exchange: atomo.exchange {compress = ...}"
    refused("train: exchange is another table, " .. expected, {exchange = {compress = "entry:ratio=4"}})
    refused("train: exchange is 'entry:ratio=4', a string, " .. expected, {exchange = "entry:ratio=4"})
    refused("train: exchange is another table, " .. expected, {exchange = atomo.compressor "entry:ratio=4"})
  end)

  it("what is no optimizer", function()
    local expected = "expected an optimizer: atomo.optim.sgd"
    refused("train: optimizer is 'sgd', a string, " .. expected, {optimizer = "sgd"})
    refused("train: optimizer is another table, " .. expected, {optimizer = {lr = 0.1}})
    refused("train: optimizer is another table, " .. expected, {optimizer = nn.Linear(3, 2)})
  end)

  it("what is no model, and a class", function()
    refused("train: model is a function", {model = function(v) return v end})
    refused("train: model is a table that cannot be called", {model = {}})
    refused("train: model is the class Linear, expected an instance: Linear(...)", {model = nn.Linear})
  end)

  it("an optimizer of another model, but not one of a part, or of more than the model", function()
    refused("train: no parameter of the optimizer belongs to the model", {model = nn.Linear(3, 2)})
    local model, more = nn.Sequential {nn.Linear(3, 4), nn.Linear(4, 2)}, atomo.param {1}
    local before = model[1].weight:totable()
    atomo.train(options {model = model, optimizer = atomo.optim.sgd {params = model[2]:parameters(), lr = 0.1}})
    assert.same(before, model[1].weight:totable())
    local params = model:parameters()
    params[#params + 1] = more
    atomo.train(options {model = model, optimizer = atomo.optim.sgd {params = params, lr = 0.1},
      loss = function(logits, labels) return F.cross_entropy(logits * more, labels) end})
    assert.is_true(more:item() ~= 1)
  end)

  it("results of loss and accuracy of another kind", function()
    refused("train: accuracy returned a tensor, expected the fraction of right answers, a number (of a tensor: t:item",
      {accuracy = function() return atomo.ones(1) end})
    refused("train: accuracy returned 'all', a string", {accuracy = function() return "all" end})
    refused("train: accuracy returned nothing", {accuracy = function() end})
    refused("train: accuracy returned nan as the number judged", {accuracy = function() return 1, 0 / 0 end})
    refused("train: loss returned the count many", {loss = function(l, t) return F.cross_entropy(l, t), "many" end})
    local run = atomo.train(options {accuracy = function() return 1, 2 end})
    assert.equal(1, run.accuracy)
  end)
end)
