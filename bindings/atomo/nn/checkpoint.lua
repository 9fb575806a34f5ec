--- nn.Checkpoint: trades time for memory [Chen et al. 2016]. Intermediate results of the body are freed after forward
-- and computed again in backward, with the same dropout masks and random numbers. Running statistics are updated once.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local autograd = require "atomo.autograd"
local backward = require "atomo.autograd.backward"
local base = require "atomo.nn.module"
local ffi, C, raise = f.ffi, f.C, f.raise
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

--- Returns how many numbers were drawn from the streams of atomo.rand, randn and math.random, and their seed.
local function random_streams()
  local draws = ffi.new "double[2]"
  C.atomo_random_draws(draws)
  return {seed = C.atomo_initial_seed(), draws = draws}
end

local function put_random_streams(streams)
  if C.atomo_initial_seed() ~= streams.seed then C.atomo_manual_seed(streams.seed) end
  C.atomo_random_set_draws(streams.draws)
end

local function fields_of(module)
  local fields = {}
  for name, value in next, module do fields[name] = value end
  return fields
end

local function put_fields(module, fields)
  for name in next, module do
    if fields[name] == nil then module[name] = nil end
  end
  for name, value in next, fields do rawset(module, name, value) end
end

--- Returns what body's forward depends on besides its arguments and parameters: the fields of its modules (modes,
--- options, counters), copies of their buffers, and the places in the random streams. more: surroundings whose modules
--- and buffers are covered, too.
local function surroundings(body, more)
  local around = {fields = {}, buffers = {}, streams = random_streams(), masks = F.dropout_state()}
  for _, entry in ipairs(body:named_modules()) do around.fields[entry[2]] = fields_of(entry[2]) end
  for _, b in ipairs(body:buffers()) do around.buffers[b] = b:clone() end
  for m in pairs(more and more.fields or {}) do around.fields[m] = around.fields[m] or fields_of(m) end
  for b in pairs(more and more.buffers or {}) do around.buffers[b] = around.buffers[b] or b:clone() end
  return around
end

local function put(around)
  for module, fields in pairs(around.fields) do put_fields(module, fields) end
  for buffer, value in pairs(around.buffers) do buffer:copy_(value) end
  put_random_streams(around.streams) -- may set the seed, which restarts the masks
  F.put_dropout_state(around.masks)
end

--- Runs fn in forward's surroundings; restores the present ones, also after an error.
local function as_in_forward(body, around, fn, ...)
  local now = surroundings(body, around)
  put(around)
  local ok, text = pcall(fn, ...)
  put(now)
  if not ok then error(text, 0) end
end

--- Calls fn(tensor) for the tensors in value: itself, or in plain tables at any depth.
local function each_tensor(value, fn, met)
  if T.is_tensor(value) then return fn(value) end
  if type(value) ~= "table" or getmetatable(value) ~= nil or met[value] then return end
  met[value] = true
  for _, v in pairs(value) do each_tensor(v, fn, met) end
end

--- Returns body's results. Raises for tensors in a table, which would get no gradient.
local function checked_results(...)
  for i = 1, select("#", ...) do
    local result = select(i, ...)
    if not T.is_tensor(result) then
      each_tensor(result, function()
        raise(("Checkpoint: result %d of the body is a table of tensors, expected each tensor as a result"):format(i))
      end, {})
    end
  end
  return ...
end

local function forward(body, ...) return checked_results(body:forward(...)) end

--- Runs backward from the results of the repeated forward, whose gradients are given. start: nodes made before it.
local function run_backward(start, results, given)
  local roots, root, gradient = 0, nil, nil
  for i = 1, table.maxn(results) do
    local y, g = results[i], given[i]
    if g and T.is_tensor(y) and y.requires_grad then
      roots = roots + 1
      if roots == 2 then root, gradient = (root * gradient):sum(), nil end
      if roots == 1 then root, gradient = y, g else root = root + (y * g):sum() end -- each g is its y's derivative
    end
  end
  if not root then return end
  if root.node and backward.oldest(root.node) <= start then
    raise("Checkpoint: the body uses a tensor that requires a gradient and is neither an argument nor a parameter " ..
      "of the body: pass it as an argument")
  end
  root:backward(gradient)
end

-- Arguments: body, number of its arguments, its arguments, its parameters. The parameters are listed so that on_ready
-- is called for each after this node; the inner backward adds their gradients to .grad.
local checkpoint = autograd.operator {
  name = "checkpoint", runs_user_code = true,
  forward = function(ctx, body, count, ...)
    ctx.around = surroundings(body)
    local tensors = {}
    each_tensor({...}, function(t) tensors[#tensors + 1] = t end, {})
    ctx:save(unpack(tensors))
    return T.scope(forward, body, unpack({...}, 1, count))
  end,
  backward = function(ctx, ...)
    local body, count, given = ctx.inputs[1], ctx.inputs[2], {...}
    ctx:saved() -- raises if an argument or a parameter was changed since forward
    local leaves = leaves_of(ctx, count)
    as_in_forward(body, ctx.around, T.scope, function()
      local start = autograd.nodes_made()
      local results = {autograd.enable_grad(body.forward, body, unpack(leaves, 1, count))}
      autograd.enable_grad(run_backward, start, results, given)
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

--- nn.Checkpoint(body). body: a module whose forward returns tensors. Tensors that require a gradient are arguments of
--- their own, not in tables. The repeated forward sees the fields of body's modules as they were. Until backward has
--- run, what else forward reads must stay as it is.
---@param body atomo.Module
---@usage nn.Checkpoint(nn.Sequential {nn.Linear(3, 4), nn.ReLU()})(atomo.ones(2, 3)):size(2) --> 4
function Checkpoint:init(body)
  if not is_module(body) then raise(("Checkpoint: body is a %s, expected a module"):format(type(body))) end
  self.body = body
end

--- Does one of the arguments require a gradient? Raises if one in a table does.
local function any_tracked(args, count)
  local any = false
  for i = 1, count do
    local tracked = T.is_tensor(args[i]) and autograd.tracked(args[i])
    any = any or tracked
    if not T.is_tensor(args[i]) then
      each_tensor(args[i], function(t)
        if not autograd.tracked(t) then return end
        raise(("Checkpoint: argument %d is a table with a tensor %s that requires a gradient, expected that tensor " ..
          "as an argument of its own"):format(i, T.shape_text(t)))
      end, {})
    end
  end
  return any
end

function Checkpoint:forward(...)
  if not self.training then return self.body(...) end
  local args, count, parameters = {...}, select("#", ...), self.body:parameters()
  for i, p in ipairs(parameters) do args[count + i] = p end
  local total = count + #parameters
  if T.recording() and not any_tracked(args, total) then return self.body(...) end -- it may use other tensors that do
  return checkpoint(self.body, count, unpack(args, 1, total))
end

return {Checkpoint = Checkpoint}
