--- The state of an open round of local SGD (train/local_sgd.lua, step.lua) on each rank: its parameters, the sums of
-- its steps, and the state at the beginning of the round, which is restored if the round is given up.
local autograd = require "atomo.autograd"
local named = require "atomo.optim.named"
local new_undo = require "atomo.train.undo"

local M = {}

local function buffers_of(run) return run.model.buffers and run.model:buffers() or {} end

local function copy_of(state)
  local copy = {}
  for name, v in pairs(state) do copy[name] = type(v) == "table" and v:clone() or v end
  return copy
end

--- Returns the buffers by name (the tensors themselves).
function M.buffers(run)
  local state = {}
  for _, entry in ipairs(run.model.named_buffers and run.model:named_buffers() or {}) do state[entry[1]] = entry[2] end
  return state
end

local function name_of(run, i) return run.names and run.names[i] or ("parameter %d"):format(i) end

--- Returns the optimizer's parameters by name (the tensors themselves).
local function parameters(run)
  local state = {}
  for i, p in ipairs(run.optimizer.params) do state[name_of(run, i)] = p end
  return state
end

--- Returns by name of its parameter which anchors take part in the round.
local function taking_part(run)
  local state = {}
  for i, anchor in ipairs(run.local_sgd.optimizer.params) do state[name_of(run, i)] = anchor.requires_grad end
  return state
end

--- Returns copies of the buffers and of the optimizer's state at the beginning of the round.
local function beginning(run)
  local now = new_undo()
  now:keep(buffers_of(run))
  now:keep_optimizer(run.optimizer)
  run.runner.before_round:restore()
  local buffers = copy_of(M.buffers(run))
  local optimizer = copy_of(named.state(run.optimizer, run.names))
  now:restore()
  return buffers, optimizer
end

--- Is a round open?
function M.is_open(run) return run.local_sgd ~= nil and run.runner.in_round == true end

---@param bag atomo.Bag
function M.put(bag, run)
  local buffers, optimizer = beginning(run)
  bag:put("round_buffers", buffers)
  bag:put("round_optimizer", optimizer)
  bag:put("round_parameters", parameters(run))
  bag:put("round_anchors", taking_part(run))
  bag:put("round_sums", run.runner.round)
  bag:put("round_unit", {before = run.runner.unit_before})
end

local function copy_into(mine, saved)
  autograd.no_grad(function()
    for name, t in pairs(mine) do
      if saved[name] then t:copy_(saved[name]) end
    end
  end)
end

--- Resumes an open round. Call it when the model has the parameters of the round's beginning, and before this rank's
--- buffers and optimizer are restored.
function M.restore(bag, run, where)
  run.local_sgd:anchor()
  copy_into(M.buffers(run), bag:section "round_buffers")
  named.load(run.optimizer, run.names, bag:section "round_optimizer", where)
  run.runner:begin_round()
  local anchors = bag:section "round_anchors"
  for i, anchor in ipairs(run.local_sgd.optimizer.params) do
    local takes_part = anchors[name_of(run, i)]
    if takes_part ~= nil then anchor.requires_grad = takes_part end
  end
  run.runner.round, run.runner.unit_before = bag:section "round_sums", bag:section("round_unit").before
  copy_into(parameters(run), bag:section "round_parameters")
end

return M
