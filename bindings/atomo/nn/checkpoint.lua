--- nn.Checkpoint: trades time for memory [Chen et al. 2016]. What the body computes on its way is thrown away and
-- worked out again in the backward, with the same dropout masks; running statistics move once.
local T = require "atomo.tensor"
local F = require "atomo.functional"
local autograd = require "atomo.autograd"
local base = require "atomo.nn.module"
local raise = require("atomo.ffi").raise
local Module, is_module = base.Module, base.is_module

--- The arguments of body as leaves of a graph of their own.
local function leaves_of(ctx, count)
  local leaves = {}
  for i = 1, count do
    local x = ctx.args[2 + i]
    if T.is_tensor(x) then
      local needed = ctx:needs(2 + i)
      x = x:detach()
      if needed then x.requires_grad = true end
    end
    leaves[i] = x
  end
  return leaves
end

--- Runs fn with body's buffers put back afterwards: the forward has moved them already.
local function with_buffers_kept(body, fn)
  local buffers, before = body:buffers(), {}
  for i, b in ipairs(buffers) do before[i] = b:clone() end
  fn()
  for i, b in ipairs(buffers) do b:copy_(before[i]) end
end

-- (body, number of arguments, arguments, body's parameters): the parameters are arguments, so that each is reported as
-- ready when this node has been passed; their gradients are added where they belong on the way.
local checkpoint = autograd.operator {
  name = "checkpoint",
  forward = function(ctx, body, count, ...)
    ctx.stream = {F.dropout_stream()}
    ctx:save(unpack({...}, 1, count))
    return T.scope(body.forward, body, unpack({...}, 1, count))
  end,
  backward = function(ctx, gy)
    local body, count = ctx.args[1], ctx.args[2]
    ctx:saved() -- raises where an argument was changed since
    local now = {F.dropout_stream(unpack(ctx.stream))}
    local leaves = leaves_of(ctx, count)
    T.scope(with_buffers_kept, body, function()
      local y = autograd.enable_grad(body.forward, body, unpack(leaves, 1, count))
      if y.requires_grad then y:backward(gy) end
    end)
    F.dropout_stream(unpack(now))
    local gradients = {}
    for i = 1, count do gradients[2 + i] = T.is_tensor(leaves[i]) and leaves[i].grad or nil end
    return unpack(gradients, 1, 2 + count)
  end,
}

---@class atomo.Checkpoint: atomo.Module
local Checkpoint = Module:extend "Checkpoint"

--- nn.Checkpoint(body): body, a module that gives one tensor.
function Checkpoint:init(body)
  if not is_module(body) then raise(("Checkpoint: body is a %s, expected a module"):format(type(body))) end
  self.body = body
end

function Checkpoint:forward(...)
  if not self.training then return self.body(...) end
  local args, count = {...}, select("#", ...)
  for i, p in ipairs(self.body:parameters()) do args[count + i] = p end
  return checkpoint(self.body, count, unpack(args, 1, count + #self.body:parameters()))
end

return {Checkpoint = Checkpoint}
