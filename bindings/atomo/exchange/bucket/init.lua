--- A bucket: neighbouring tensors that are sent together. This is the base class; each kind (dense, linear, native,
-- scripted) adds its own start, answer, wait and write_back. A bucket is part of a plan and never changes: its state in
-- a step is in the Step.
local f = require "atomo.ffi"
local program = require "atomo.exchange.program"
local sealed = require "atomo.exchange.sealed"
local T = require "atomo.tensor"

---@class atomo.exchange.Bucket
---@field plan table       the plan that it belongs to
---@field name string      "messages 2 of 5"
---@field tensors table[]  {index = index in plan.tensors, ...}, ascending
---@field count integer    number of the user's gradients that it waits for
---@field closing integer  index of the tensor that completes it: the last one that backward produces
---@field h cdata          C's bucket, which has its program (program.lua)
local Bucket = sealed({}, "exchange: bucket")

--- Makes a bucket out of the table `fields`; sets closing and count.
---@param class table   a kind
---@param fields table  plan, name, tensors and the kind's own fields
function Bucket.new(class, fields)
  local self = fields
  self.closing, self.count = math.huge, 0
  for _, t in ipairs(self.tensors) do
    self.closing = math.min(self.closing, t.index)
    self.count = self.count + #self.plan.tensors[t.index].members
  end
  return setmetatable(self, class)
end

--- Makes a kind: a class that inherits from parent.
function Bucket.kind(parent)
  local class = setmetatable({__newindex = parent.__newindex}, {__index = parent})
  class.__index = class
  return class
end

--- Records that the user's gradient i was pushed; a small one is copied into the joined tensor.
function Bucket:add(step, i, grad)
  local place = self.plan.places[i]
  if place.slice then
    place.slice:copy_(grad)
    grad = self.plan.joined
  end
  step.tensors[place.index] = grad
  step.missing[self] = step.missing[self] - 1
end

--- Starts the bucket in this step; without overlap also waits for it. grads: C array of gradients, nil for none.
function Bucket:go(step, grads)
  f.check(f.C.atomo_bucket_start(self.h, grads, step.number))
  if not self.plan.overlap then self:wait(step) end
end

--- Waits until the bucket is complete.
function Bucket:wait(step) program.wait(self.h, step) end

--- Called when all buckets have started. A kind that sends averages back overrides it.
function Bucket.answer() end

--- Returns the gradient of message t in this step; for a piece, a cached view of its rows from .. from + rows - 1.
function Bucket:tensor(step, t)
  local g = step.tensors[t.index]
  if not t.from then return g end
  if t.source ~= g then t.source, t.view = g, T.outside_scope(g.narrow, g, 1, t.from, t.rows) end
  return t.view
end

return Bucket
