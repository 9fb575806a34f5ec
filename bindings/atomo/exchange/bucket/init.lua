--- A bucket: neighbouring tensors that travel together. What all kinds have in common; a kind (dense, linear, native,
-- scripted) adds its own start, answer, wait and write_back. A bucket is part of a plan and never changes: what a step
-- knows of it is in the step.
local f = require "atomo.ffi"
local program = require "atomo.exchange.program"
local sealed = require "atomo.exchange.sealed"
local T = require "atomo.tensor"

---@class atomo.exchange.Bucket
---@field plan table       the plan that it belongs to
---@field name string      "messages 2 of 5"
---@field tensors table[]  {index = number in the plan, ...}, ascending
---@field count integer    gradients of the user that it waits for
---@field closing integer  number of the tensor that completes it: the last one that backward produces
---@field h cdata          C's: what it does in a step (program.lua)
local Bucket = sealed({}, "exchange: bucket")

--- Fields are those of `fields`. Tensors that are joined out of small ones count as those.
---@param class table   a kind
---@param fields table  plan, name, tensors and the kind's own
function Bucket.new(class, fields)
  local self = fields
  self.closing, self.count = math.huge, 0
  for _, t in ipairs(self.tensors) do
    self.closing = math.min(self.closing, t.index)
    self.count = self.count + #self.plan.tensors[t.index].members
  end
  return setmetatable(self, class)
end

--- A kind: a class that is a Bucket where it says nothing else.
function Bucket.kind(parent)
  local class = setmetatable({__newindex = parent.__newindex}, {__index = parent})
  class.__index = class
  return class
end

--- Gradient i of the user has come.
function Bucket:add(step, i, grad)
  local place = self.plan.places[i]
  if place.slice then
    place.slice:copy_(grad)
    grad = self.plan.joined
  end
  step.tensors[place.index] = grad
  step.missing[self] = step.missing[self] - 1
end

--- Starts it in this step, with these gradients of C's; nil: with none. Waits where nothing overlaps.
function Bucket:go(step, grads)
  f.check(f.C.atomo_bucket_start(self.h, grads, step.number))
  if not self.plan.overlap then self:wait(step) end
end

--- Waits until it has come.
function Bucket:wait(step) program.wait(self.h, step) end

--- What a kind does when all gradients have come.
function Bucket.answer() end

--- Tensor t of this step: the gradient, or of a piece (rows from .. from + rows - 1) a view of it, which is kept.
function Bucket:tensor(step, t)
  local g = step.tensors[t.index]
  if not t.from then return g end
  if t.source ~= g then t.source, t.view = g, T.outside_scope(g.narrow, g, 1, t.from, t.rows) end
  return t.view
end

return Bucket
