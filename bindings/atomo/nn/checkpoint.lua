--- nn.Checkpoint: trades time for memory [Chen et al. 2016]. Intermediate results of the body are freed after forward
-- and computed again in backward, with the same dropout masks. Running statistics are updated once.
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local autograd = require "atomo.autograd"
local base = require "atomo.nn.module"
local raise = require("atomo.ffi").raise
local Module, is_module = base.Module, base.is_module

--- Returns the arguments of body, tensors as leaves of a separate graph.
local function leaves_of(ctx, count)
  local leaves = {}
  for i = 1, count do
    local x = ctx.inputs[2 + i]
    if T.is_tensor(x) then
      local needed = ctx:needs(2 + i)
      x = x:detach()
      if needed then x.requires_grad = true end
    end
    leaves[i] = x
  end
  return leaves
end

--- Returns the modes and copies of the buffers of body's modules, on which its forward depends.
local function surroundings(body)
  local modes, buffers = {}, {}
  for i, entry in ipairs(body:named_modules()) do modes[i] = {entry[2], entry[2].training} end
  for i, b in ipairs(body:buffers()) do buffers[i] = {b, b:clone()} end
  return {modes = modes, buffers = buffers}
end

local function put(around)
  for _, m in ipairs(around.modes) do rawset(m[1], "training", m[2]) end
  for _, b in ipairs(around.buffers) do b[1]:copy_(b[2]) end
end

--- Runs fn with the modes, buffers and dropout masks that forward had; restores the present ones, also after an error.
local function as_in_forward(body, around, fn, ...)
  local now, masks = surroundings(body), F.put_dropout_state(around.masks)
  put(around)
  local ok, text = pcall(fn, ...)
  put(now)
  F.put_dropout_state(masks)
  if not ok then error(text, 0) end
end

-- Arguments: body, number of its arguments, its arguments, its parameters. The parameters are listed so that on_ready
-- is called for each after this node; the inner backward adds their gradients to .grad.
local checkpoint = autograd.operator {
  name = "checkpoint", runs_user_code = true,
  forward = function(ctx, body, count, ...)
    ctx.around = surroundings(body)
    ctx.around.masks = F.dropout_state()
    ctx:save(...)
    return T.scope(body.forward, body, unpack({...}, 1, count))
  end,
  backward = function(ctx, gy)
    local body, count = ctx.inputs[1], ctx.inputs[2]
    ctx:saved() -- raises if an argument or a parameter was changed since forward
    local leaves = leaves_of(ctx, count)
    as_in_forward(body, ctx.around, T.scope, function()
      local y = autograd.enable_grad(body.forward, body, unpack(leaves, 1, count))
      if y.requires_grad then y:backward(gy) end
    end)
    local gradients = {}
    for i = 1, count do
      local leaf = leaves[i]
      if T.is_tensor(leaf) then gradients[2 + i], leaf.grad = leaf.grad, nil end -- body may have kept the leaf
    end
    return unpack(gradients, 1, 2 + count)
  end,
}

---@class atomo.Checkpoint: atomo.Module
local Checkpoint = Module:extend "Checkpoint"
Checkpoint.torch_names = {body = ""}

--- nn.Checkpoint(body). body: a module whose forward returns one tensor.
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
