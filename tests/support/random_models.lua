--- Small networks for random training scripts (random_training.lua), by kind, each with its input. All have 5 classes
-- except "tied", which has as many classes as words.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

local CLASSES, WORDS, LENGTH, INPUTS = 5, 20, 4, 12

local function dropout(s) return s.dropout > 0 and nn.Dropout(s.dropout) or nn.ReLU() end

local function momentum(s)
  if s.cumulative then return false end
  return 0.1
end

--- An embedding that shares its weight with the output layer.
local Tied = nn.Module:extend "Tied"
function Tied:init(s)
  self.words, self.norm = nn.Embedding(WORDS, s.width), nn.LayerNorm(s.width)
  self.fc, self.drop = nn.Linear(s.width, s.width), dropout(s)
  self.again = self.fc.weight -- under a second name
end
function Tied:forward(x)
  local h = self.drop(self.fc(self.norm(self.words(x):mean(2))))
  return h:matmul(self.words.weight:t()) + h:matmul(self.again:t()):matmul(self.words.weight:t()) * 0.5
end

--- Modules and a parameter in nested tables. A batch uses one of the branches, so that ranks use different parameters.
local Nested = nn.Module:extend "Nested"
function Nested:init(s)
  self.first = nn.Linear(INPUTS, s.width)
  self.parts = {branches = {nn.Linear(s.width, s.width), {nn.Linear(s.width, s.width)}}, scale = {
    atomo.param(atomo.ones(s.width))}}
  self.norm, self.drop, self.last = nn.BatchNorm1d(s.width, {momentum = momentum(s)}), dropout(s),
    nn.Linear(s.width, CLASSES)
end
function Nested:forward(x)
  local branches = self.parts.branches
  local branch = x:get(1, 1) > 0 and branches[1] or branches[2][1]
  return self.last(self.drop(self.norm(branch(F.relu(self.first(x))) * self.parts.scale[1])))
end

local function vectors(n) return atomo.randn(n, INPUTS) end
local function words(n) return (atomo.rand(n, LENGTH) * WORDS):to "i32" end

local kinds = {
  mlp = {vectors, function(s)
    return nn.Sequential {nn.Linear(INPUTS, s.width), nn.ReLU(), nn.Linear(s.width, s.width), dropout(s),
      nn.Linear(s.width, CLASSES)}
  end},
  conv = {function(n) return atomo.randn(n, 5, 5, 2) end, function(s)
    return nn.Sequential {nn.Conv2d(2, s.width, 3, {padding = 1, bias = false}),
      nn.BatchNorm2d(s.width, {relu = true, momentum = momentum(s)}), nn.Conv2d(s.width, 6, 3), dropout(s),
      nn.GlobalAvgPool(), nn.Linear(6, CLASSES)}
  end},
  norm = {vectors, function(s)
    return nn.Sequential {nn.Linear(INPUTS, s.width), nn.BatchNorm1d(s.width, {momentum = momentum(s)}), nn.Tanh(),
      dropout(s), nn.Linear(s.width, CLASSES)}
  end},
  tied = {words, Tied, WORDS},
  nested = {vectors, Nested},
  embedding = {words, function(s)
    return nn.Sequential {nn.Embedding(WORDS, 8), nn.Flatten(), nn.Linear(8 * LENGTH, s.width), dropout(s),
      nn.Linear(s.width, CLASSES)}
  end},
}

local M = {}

--- Makes the network of settings {kind=, width=, dropout=, cumulative=}.
function M.build(s) return kinds[s.kind][2](s) end

--- Returns n random inputs and labels for it, drawn from atomo's generator.
function M.batch(s, n)
  local kind = kinds[s.kind]
  return kind[1](n), (atomo.rand(n) * (kind[3] or CLASSES)):to "i32"
end

return M
