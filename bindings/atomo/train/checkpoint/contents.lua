--- The contents of a checkpoint: files shared by all ranks (model, optimizer, the user's state), one file per rank
-- (compressor state, random streams, whatever differs between ranks), and the run's position, in the manifest.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local bags = require "atomo.train.checkpoint.bag"
local foreign = require "atomo.train.checkpoint.foreign"
local layer_options = require "atomo.train.checkpoint.layer_options"
local modes = require "atomo.train.checkpoint.modes"
local named = require "atomo.optim.named"
local round = require "atomo.train.checkpoint.round"
local together = require "atomo.train.checkpoint.together"
local C, raise = f.C, f.raise

local M = {}

local function sorted_names(t)
  local list = {}
  for name in pairs(t) do list[#list + 1] = name end
  table.sort(list)
  return list
end

--- Returns parameter -> name, for state_dicts whose keys are parameter names.
local function names_by_parameter(run)
  local of = {}
  for i, name in ipairs(run.names or {}) do of[run.optimizer.params[i]] = name end
  return of
end

--- Returns buffer -> its average over the ranks, for f32 buffers; evaluation and other programs use it. [collective]
local function averages(run)
  local average = {}
  for _, b in ipairs(run.comm.size > 1 and run.buffers or {}) do
    if b:dtype() == "f32" then
      average[b] = b:clone()
      run.comm:allreduce(average[b], "sum")
      average[b]:mul_(1 / run.comm.size)
    end
  end
  return average
end

--- Are the buffers equal on all ranks (normalisation is frozen)? Then they are saved unchanged, since an average would
--- be rounded. [collective]
local function same_buffers(run)
  local bag = bags.new()
  bag:put("buffers", round.buffers(run))
  return together.equal(run.comm, bag:digest())
end

--- Returns the model's state common to all ranks: within a round of local SGD, with the parameters at its beginning.
--- [collective]
local function shared_model(run, alike)
  local instead = alike and {} or autograd.no_grad(averages, run)
  if round.is_open(run) then
    for i, anchor in ipairs(run.local_sgd.optimizer.params) do instead[run.optimizer.params[i]] = anchor end
  end
  local state = {}
  for name, t in pairs(run.model:state_dict()) do state[name] = instead[t] or t end
  return state
end

--- Adds the states of the user's objects: to the shared file if equal on all ranks, else to each rank's own.
--- [collective]
local function put_user_state(run, shared, own)
  local of = names_by_parameter(run)
  for _, name in ipairs(sorted_names(run.state or {})) do
    local bag = bags.new()
    together.run(run.comm, function() bag:put("state " .. name, run.state[name]:state_dict(of)) end)
    local target = together.equal(run.comm, bag:digest()) and shared or own
    for key, t in pairs(bag.tensors) do target.tensors[key] = t end
    for key, text in pairs(bag.values) do target.values[key] = text end
    target.values["has/" .. name] = "b:true"
  end
end

local function random_state()
  local draws = f.ffi.new "double[2]"
  C.atomo_random_draws(draws)
  return {seed = C.atomo_initial_seed(), numbers = f.number(draws, 0), tensors = f.number(draws, 1)}
end

--- Returns the model's name: as the settings say, else its class.
function M.model_name(run)
  local given = run.settings and run.settings.model
  return type(given) == "string" and given or run.model.class_name
end

--- Gathers the complete state of a run between two steps. [collective]
---@param run table  state of atomo.train
---@return table<string, atomo.Bag> shared  files that all ranks share, by name
---@return atomo.Bag own  this rank's file
function M.gather(run)
  local shared, own = {model = bags.new(), optimizer = bags.new(), state = bags.new()}, bags.new()
  local alike = same_buffers(run)
  shared.model:put("model", shared_model(run, alike))
  if run.local_sgd then
    shared.optimizer:put("outer", named.state(run.local_sgd.optimizer, run.names))
    own:put("optimizer", named.state(run.optimizer, run.names))
    if round.is_open(run) then round.put(own, run) end
  else
    shared.optimizer:put("optimizer", named.state(run.optimizer, run.names))
  end
  put_user_state(run, shared.state, own)
  own:put("memory", run.exchange:state_dict())
  own:put("random", random_state())
  own:put("counts", {local_in_row = run.local_in_row, bytes_out = run.bytes_out})
  -- also in an open round: loading it restores the buffers of its beginning (round.restore), then these
  if not alike or round.is_open(run) then own:put("buffers", round.buffers(run)) end
  return shared, own
end

-- ---- the position in the run --------------------------------------------------------------------------------------

local plain = {"step", "skipped", "skips_in_row", "in_round", "check_due", "accumulate", "start_seed"}

--- Returns the run's position and counters, equal on all ranks, as texts by name.
function M.progress(run)
  local place, list = run.place, {}
  for _, name in ipairs(plain) do list[name] = bags.text(run[name]) end
  for _, name in ipairs {"epoch", "taken", "loss", "count", "right", "judged"} do
    list["place." .. name] = bags.text(place[name])
  end
  list.batches = bags.text(run.train_loader.steps or 0)
  list.modes, list.modes_at_start = bags.text(modes.text(run)), bags.text(run.modes_at_start)
  list.layer_options = bags.text(layer_options.changed(run))
  list.exchanges, list.unit = bags.text(run.exchange.step), bags.text(run.runner.unit)
  list.remembers = bags.text(run.local_sgd ~= nil or next(run.exchange:state_dict()) ~= nil)
  return list
end

--- Decodes a result of M.progress from a manifest; returns values by name, `place` as a table. Raises if it is
--- incomplete.
function M.read_progress(texts, where)
  local values = {place = {}}
  for name, text in pairs(type(texts) == "table" and texts or {}) do
    local key = name:match "^place%.(.+)$"
    if key then values.place[key] = bags.value(text) else values[name] = bags.value(text) end
  end
  if not (values.step and values.place.epoch and values.place.taken and values.exchanges) then
    raise(("checkpoint: %s does not say its position in the run"):format(where))
  end
  return values
end

function M.restore_progress(run, values)
  for _, name in ipairs(plain) do
    if name ~= "accumulate" and name ~= "start_seed" and values[name] ~= nil then run[name] = values[name] end
  end
  run.place = values.place
  run.exchange:set_step(values.exchanges)
  run.runner.unit = values.unit
end

-- ---- loading -----------------------------------------------------------------------------------------------------

--- Restores the state that all ranks share. [local]
---@param run table
---@param open fun(name: string): atomo.Bag  reads a file of the checkpoint
---@param where string   the checkpoint, for errors
---@param say fun(text: string)  gets lines about state that cannot be restored and is reset
---@param saved_name string?  the saved model's, for errors
function M.load_shared(run, open, where, say, saved_name)
  local model, optimizer = open "model", open "optimizer"
  local saved = model:section "model"
  if not pcall(run.model.load_state_dict, run.model, saved) then
    raise(("checkpoint: %s/model.safetensors is of another model: %s"):format(where,
      foreign.model_text(saved, run.model:state_dict(), saved_name, M.model_name(run))))
  end
  local from = ("checkpoint: %s/optimizer.safetensors"):format(where)
  local outer, plain_state = optimizer:section "outer", optimizer:section "optimizer"
  if run.local_sgd and outer.kind then
    named.load(run.local_sgd.optimizer, run.names, outer, from)
  elseif not run.local_sgd and plain_state.kind then
    named.load(run.optimizer, run.names, plain_state, from)
  else
    say(run.local_sgd and "the checkpoint is of a run without local steps: both optimizers are reset" or
      "the checkpoint is of a run with local steps: the optimizer is reset")
  end
  model:free()
  optimizer:free()
end

--- Restores the user's objects from the shared file or this rank's own.
---@param own atomo.Bag?  nil if the number of ranks has changed
function M.load_user_state(run, shared, own, where, say)
  local of, there = names_by_parameter(run), {}
  for _, bag in ipairs {shared, own} do
    for name in pairs(bag:section "has") do there[name] = bag end
  end
  for _, name in ipairs(sorted_names(there)) do
    if not (run.state and run.state[name]) then
      raise(("checkpoint: %s holds the state of '%s', which this run does not name: state = {%s = ...}"):format(where,
        name, name))
    end
  end
  for _, name in ipairs(sorted_names(run.state or {})) do
    if there[name] then
      run.state[name]:load_state_dict(there[name]:section("state " .. name), of)
    else
      say(("the state of '%s' is not restored: %s has none"):format(name, where))
    end
  end
end

local function put_random_back(run, own, values)
  local s = own:section "random"
  if values.start_seed ~= run.start_seed or not s.seed then return end -- a new seed was given; differences name it
  if s.seed ~= C.atomo_initial_seed() then T.manual_seed(s.seed) end
  C.atomo_random_set_draws(f.ffi.new("double[2]", {s.numbers, s.tensors}))
end

--- Restores this rank's own state, saved by a run with as many ranks.
---@param own atomo.Bag
---@param remembers boolean  restore compressor state, too?
function M.load_rank(run, own, values, remembers, where)
  if run.local_sgd and own:section("optimizer").kind then
    if next(own:section "round_sums") then round.restore(own, run, "checkpoint: " .. where) end
    named.load(run.optimizer, run.names, own:section "optimizer", "checkpoint: " .. where)
  end
  if remembers then run.exchange:load_state_dict(own:section "memory") end
  local saved, mine = own:section "buffers", round.buffers(run)
  for name, t in pairs(saved) do
    if mine[name] then mine[name]:copy_(t) end
  end
  local counts = own:section "counts"
  run.local_in_row, run.bytes_out = counts.local_in_row or 0, counts.bytes_out or 0
  put_random_back(run, own, values)
end

return M
