--- The options of atomo.train, and their checks.
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local precision = require "atomo.autograd.precision"
local sets = require "atomo.data.set"
local saver = require "atomo.train.checkpoint.saver"
local raise = require("atomo.ffi").raise

---@class atomo.TrainOptions
---@field model table              called with a batch of images, returns logits
---@field data table               a loader, or {train = loader, test = loader?, names = string[]?}; names: of the
--- classes, recorded in checkpoints for programs that use them
---@field optimizer atomo.Optimizer
---@field loss (fun(logits: atomo.Tensor, labels: atomo.Tensor): atomo.Tensor, number?)?   returns a mean, and the count
--- by which it is weighed (default: the count of the loss of atomo.F that it calls, else images); default:
--- cross-entropy
---@field accuracy (fun(logits: atomo.Tensor, labels: atomo.Tensor): number, number?)|false|nil  returns the fraction of
--- right answers, and the number judged; default: over the labels that the loss does not ignore; false: none
---@field schedule (fun(step: integer): number)?   learning rate by 0-based step; default: the optimizer's lr
---@field clip_norm number?         scales the averaged gradient to at most this norm
---@field clip_value number?        clamps its elements to [-clip_value, clip_value]
---@field exchange atomo.Exchange?  default: dense over the world
---@field precision "fp32"|"bf16"|nil  of the matrix products of forward and backward (atomo.autocast); default: that of
--- atomo.set_precision when training begins
---@field epochs integer?           default 1
---@field accumulate integer?       micro-batches per step (default 1), whose gradients are added up
---@field local_steps integer?      local SGD: steps per round (local_sgd.lua); 0 (default): every step exchanges
--- gradients. A round also ends with the epoch
---@field sharded_optimizer boolean|"bf16"|nil  ZeRO-1: each rank keeps 1/P of the optimizer's state (optimizer:shard
--- over the exchange's ranks). Same bits; sends 4 (P-1)/P bytes more per parameter, rank and step. "bf16": changes of
--- weights are sent rounded, in half the bytes. Default: as the optimizer is
---@field outer {lr: number?, momentum: number?}?  of local SGD's outer optimizer; defaults 0.7, 0.9 (local_sgd.lua)
---@field max_steps integer?        the run ends after this step; default: no limit
---@field eval_every integer?       epochs between evaluations; 0: never; default 1
---@field check_replicas boolean|integer|nil  compares replicas (parameters and the optimizer's state) every N steps
--- (true: 100) and after every epoch, and raises if they differ; default: after every epoch; false: never
---@field nonfinite string?         "abort" (default) or "skip" a step with a NaN or Inf
---@field save string?              folder of checkpoints step-N, each complete or absent; latest, best. Then
--- SIGUSR1 saves after the step, and SIGTERM and SIGUSR2 save and end the program with code 75 (os.exit)
---@field save_every integer|string|nil  steps between checkpoints, or a time ("30s", "10m", "2h"); default: every
--- epoch. One is also written at the run's end, and when a test result is the best so far
---@field keep integer?             number of newest checkpoints kept, besides latest and best; 0: all; default 3
---@field resume string?            folder (its newest checkpoint), a checkpoint, file of an earlier version, or "auto":
--- the newest of `save`, else a new run. A resumed run is bit-identical to an uninterrupted one
---@field state table<string, table>?  the user's objects by name, with state_dict and load_state_dict: saved, restored
---@field log string?               JSONL file, appended by rank 0
---@field csv string?               the same figures as comma-separated values, a row per step and epoch, appended
---@field tensorboard string?       folder in which rank 0 writes a TensorBoard event file
---@field quiet boolean?            no progress lines
---@field settings table?           written to the first line of the log
---@field on_gradients (fun(gradients: table<string, atomo.Tensor>, info: table))?   after backward and before the
--- exchange, on every rank: changes this rank's gradients in place. info: {step=, rank=, lr=}. The ranks' averages,
--- clipping and the optimizer follow; the exchange does not overlap with backward
---@field on_step (fun(info: table))?   after every step, on every rank
---@field on_epoch (fun(info: table))?  after every epoch, on every rank
local known = {
  model = true, data = true, optimizer = true, loss = true, accuracy = true, schedule = true, exchange = true,
  epochs = true, max_steps = true, eval_every = true, check_replicas = true, nonfinite = true, log = true,
  quiet = true, save = true, resume = true, accumulate = true, local_steps = true, outer = true, clip_norm = true,
  clip_value = true, settings = true, on_step = true, on_epoch = true, save_every = true, keep = true, state = true,
  csv = true, tensorboard = true, on_gradients = true, precision = true, sharded_optimizer = true,
}
local required = { -- {option, what is expected}
  {"model", "a module, as atomo.nn.Sequential {...}"},
  {"data", "a loader, as atomo.data.loader {set = ..., batch = 32}"},
  {"optimizer", "an optimizer, as atomo.optim.sgd {params = model:parameters(), lr = 0.1}"},
}

local function check_count(o, name, least)
  local v = o[name]
  if v ~= nil then o[name] = number.expect_whole(v, "train: " .. name, least) end
end

local function check_kind(o, name, kind, expected)
  local v = o[name]
  if v ~= nil and type(v) ~= kind then
    raise(("train: %s is %s, expected %s"):format(name, number.text(v), expected))
  end
end

--- Raises unless o[name] is nil, a function or a callable table (a loss layer).
local function check_callable(o, name)
  local v = o[name]
  local meta = type(v) == "table" and getmetatable(v)
  if v ~= nil and type(v) ~= "function" and not (type(meta) == "table" and meta.__call) then
    raise(("train: %s is %s, expected a function"):format(name, number.text(v)))
  end
end

--- Raises unless o[name] is an object with these fields.
local function check_object(o, name, fields, expected)
  local v = o[name]
  if v == nil then return end
  for _, field in ipairs(fields) do
    local ok, value = pcall(function() return v[field] end) -- a string has no fields, an object may raise
    if type(v) ~= "table" or not ok or value == nil then
      raise(("train: %s is %s, expected %s"):format(name, type(v) == "table" and "another table" or number.text(v),
        expected))
    end
  end
end

--- Raises unless the model is a table that can be called, and an instance rather than a class.
local function check_model(model)
  local meta = type(model) == "table" and getmetatable(model)
  if type(meta) ~= "table" or not meta.__call then
    raise(("train: model is %s, expected a module, or another table that is called with a batch"):format(
      type(model) == "table" and "a table that cannot be called" or number.text(model)))
  elseif rawget(model, "is_module_class") then
    raise(("train: model is the class %s, expected an instance: %s(...)"):format(model.class_name, model.class_name))
  end
end

--- Raises if the optimizer has no parameter of the model, which would not be trained.
local function check_trained(model, optimizer)
  local of_model = type(model.parameters) == "function" and model:parameters() or {}
  if #of_model == 0 then return end
  local has = {}
  for _, p in ipairs(of_model) do has[p] = true end
  for _, p in ipairs(optimizer.params) do
    if has[p] then return end
  end
  raise("train: no parameter of the optimizer belongs to the model, which would not be trained; make the optimizer " ..
    "with model:parameters()")
end

--- Raises unless loader has a method epoch(e) and, for training data, a field steps.
local function check_loader(name, loader)
  if sets.kind(loader) then
    raise(("train: %s: expected a loader, got a data set: atomo.data.loader{set = ...}"):format(name))
  end
  if type(loader) ~= "table" or type(loader.epoch) ~= "function" then
    raise(("train: %s is %s, expected a loader: {steps = batches of an epoch, epoch = function}"):format(name,
      type(loader) == "table" and "a table without epoch" or number.text(loader)))
  end
  if loader.steps ~= nil or name ~= "data.test" then
    number.expect_whole(loader.steps, ("train: steps (batches of an epoch) of %s"):format(name), 0)
  end
end

local function check_data(data)
  if type(data) ~= "table" or not data.train then return check_loader("data", data) end
  check_loader("data.train", data.train)
  if data.test ~= nil then check_loader("data.test", data.test) end
end

local function check_limit(o, name)
  local v = o[name]
  if v ~= nil and not (type(v) == "number" and v > 0) then
    raise(("train: %s is %s, expected a number above 0"):format(name, number.text(v)))
  end
end

--- Checks option state, the user's objects.
local function check_state(state)
  if type(state) ~= "table" then raise(("train: state is a %s, expected {name = object}"):format(type(state))) end
  for name, object in pairs(state) do
    local ok = type(object) == "table" and type(object.state_dict) == "function" and
      type(object.load_state_dict) == "function"
    if type(name) ~= "string" or name == "" or name:find("/", 1, true) then
      raise(("train: state: %s is no name: expected a text without /"):format(brief(name)))
    elseif not ok then
      raise(("train: state: '%s' has no state_dict and load_state_dict"):format(name))
    end
  end
end

local function keys_of(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  return list
end

local function check_options(o)
  if type(o) ~= "table" then raise(("train: got a %s, expected a table of options"):format(type(o))) end
  for key in pairs(o) do
    if not known[key] then O.unknown("train", key, keys_of(known)) end
  end
  for _, r in ipairs(required) do
    if o[r[1]] == nil then raise(("train: '%s' is missing, expected %s"):format(r[1], r[2])) end
  end
  if o.nonfinite and o.nonfinite ~= "abort" and o.nonfinite ~= "skip" then
    raise(("train: nonfinite is '%s', expected 'abort' or 'skip'"):format(brief(o.nonfinite)))
  end
  if o.precision ~= nil then precision.code("train: precision", o.precision) end
  check_model(o.model)
  check_object(o, "optimizer", {"params", "step"}, "an optimizer: atomo.optim.sgd {params = model:parameters(), ...}")
  check_object(o, "exchange", {"comm", "push"}, "an exchange: atomo.exchange {compress = ...}")
  check_trained(o.model, o.optimizer)
  check_data(o.data)
  for _, name in ipairs {"on_step", "on_epoch", "on_gradients", "schedule", "loss"} do check_callable(o, name) end
  if o.accuracy then check_callable(o, "accuracy") end
  for _, name in ipairs {"save", "resume", "log", "csv", "tensorboard"} do check_kind(o, name, "string", "a path") end
  check_kind(o, "quiet", "boolean", "true or false")
  if o.sharded_optimizer ~= "bf16" then check_kind(o, "sharded_optimizer", "boolean", "true, false or 'bf16'") end
  if type(o.check_replicas) ~= "boolean" then check_count(o, "check_replicas", 1) end
  for _, name in ipairs {"epochs", "max_steps", "eval_every"} do check_count(o, name, 0) end
  check_limit(o, "clip_norm")
  check_limit(o, "clip_value")
  check_count(o, "accumulate", 1)
  check_count(o, "local_steps", 0)
  check_count(o, "keep", 0)
  saver.interval(o.save_every)
  if o.state ~= nil then check_state(o.state) end
  for _, key in ipairs {"save_every", "keep"} do
    if o[key] ~= nil and not o.save then raise(("train: %s wants save, a folder"):format(key)) end
  end
  if (o.local_steps or 0) > 0 and (o.sharded_optimizer or o.optimizer.shards) then
    raise "train: sharded_optimizer and local_steps exclude each other: in local steps each rank needs the whole state"
  end
  if o.outer and (o.local_steps or 0) == 0 then raise "train: outer wants local_steps > 0" end
end

return {check = check_options}
