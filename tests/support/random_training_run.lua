--- One run of a random training script (random_training.lua): makes model, optimizer, exchange and batches, and records
-- a digest after every step, changes by given-up steps, and bytes. Faults are collected instead of raised, so that no
-- rank waits for another. random_training_loops.lua has the loops.
local atomo = require "atomo"
local models = require "support.random_models"
local hosts_of_two = require "support.hosts"
local C = require("atomo.ffi").C
local world = atomo.mpi.world

---@class RandomRun
---@field script table       what random_training.draw gives
---@field how table          {overlap = false?, lost = false? (no steps that are given up), sharded = true? (optimizers
--- that can be), save =, resume =}
---@field trace string[]     digest of the parameters after each good step
---@field faults string[]
local Run = {}
Run.__index = Run

function Run.new(script, how)
  return setmetatable({script = script, how = how, trace = {}, faults = {}, bytes = 0, exchanged = 0}, Run)
end

function Run:fault(text, ...) self.faults[#self.faults + 1] = text:format(...) end

-- ---- objects -----------------------------------------------------------------------------------------------------

local norms = {lars = true, lamb = true} -- need whole tensors, so that they cannot be sharded

function Run:make_optimizer(o)
  local options = {lr = o.lr, weight_decay = o.weight_decay, momentum = o.momentum, nesterov = o.nesterov,
    amsgrad = o.amsgrad}
  local groups, split = {{params = {}}, {params = {}}}, o.groups and o.groups.split or math.huge
  for i, p in ipairs(self.model:parameters()) do table.insert(groups[i > split and 2 or 1].params, p) end
  if #groups[2].params > 0 then
    groups[2].lr, groups[2].weight_decay = o.groups.lr, o.groups.weight_decay
    options.params = groups
  else
    options.params = groups[1].params
  end
  self.optimizer = atomo.optim[o.kind](options)
  if self.how.sharded and not norms[o.kind] then self.optimizer:shard(world) end
end

--- Freezes or unfreezes a leaf module, unless all parameters would then be frozen.
local function freeze(self, event)
  local modules, left = {}, 0
  for _, entry in ipairs(self.model:named_modules()) do
    local m = entry[2]
    if #m:named_children() == 0 and #m:parameters() > 0 then modules[#modules + 1] = m end
  end
  local m = modules[(event.module - 1) % #modules + 1]
  for _, p in ipairs(self.model:parameters()) do left = left + (p.requires_grad and 1 or 0) end
  for _, p in ipairs(m:parameters()) do left = left - (p.requires_grad and 1 or 0) end
  if event.on and left <= 0 then return end
  if not event.whole then m:requires_grad_(not event.on)
  elseif event.on then m:freeze()
  else m:unfreeze() end
end

function Run:build()
  local s = self.script
  atomo.manual_seed(s.seed)
  self.model = models.build(s.model)
  if s.frozen then freeze(self, s.frozen) end
  local options = {overlap = self.how.overlap ~= false, stall_abort = 60,
    flight_prefix = (os.getenv "TMPDIR" or "/tmp") .. "/random-training"}
  for key, value in pairs(s.exchange) do options[key] = value end
  options.hosts, options.comm = nil, s.exchange.hosts and hosts_of_two or nil
  options.budgets = nil
  if s.exchange.budgets then
    options.compress = {name = s.exchange.compress:match "^%l+", budget = function(step)
      return s.exchange.budgets[1 + step % #s.exchange.budgets]
    end}
  end
  self.exchange = atomo.exchange(options)
end

--- Runs the script's events before a step. replayed: the step was taken before a resume; only events whose effects are
--- not saved are repeated.
function Run:before_step(step, replayed)
  if step.freeze then freeze(self, step.freeze) end
  if step.optimizer then self:make_optimizer(step.optimizer) end
  if step.group_lr and not replayed then
    self.optimizer.groups[#self.optimizer.groups].lr = step.group_lr
  end
end

-- ---- batches and losses ------------------------------------------------------------------------------------------

--- Returns this rank's part of a micro-batch.
function Run:batch(micro)
  local n, total = micro.n[world.rank + 1], 0
  for rank = 1, world.size do total = total + micro.n[rank] end
  local batch = {n = n, total = total}
  if n > 0 then
    atomo.manual_seed(10 * micro.data + world.rank)
    batch.x, batch.y = models.batch(self.script.model, n)
    if micro.ignored == world.rank then batch.y:fill_(-100) elseif micro.ignored then batch.y:set(1, -100) end
  end
  return batch
end

local nan_gradient = atomo.func {name = "nan_gradient", forward = function(_, x) return x * 1 end,
  backward = function(_, g) return g * (0 / 0) end}

--- Returns the loss of a batch and its count. lost: {way=, rank=} of a step that is given up, or nil; scale: factor.
function Run:loss(logits, labels, lost, scale)
  local loss = atomo.F.cross_entropy(logits, labels)
  local count = loss.count
  if scale then loss = loss * scale end
  if not lost or lost.rank ~= world.rank then return loss, count end
  if lost.way == "loss" then return loss * (0 / 0), count end
  return loss + nan_gradient(self.optimizer:trained()[1]:sum()) * 0, count
end

-- ---- comparisons -------------------------------------------------------------------------------------------------

local function put(all, prefix, state)
  for name, v in pairs(state) do all[prefix .. name] = type(v) == "number" and ("%.17g"):format(v) or v:bytes() end
end

--- Returns the state on which later steps depend, name -> bytes.
function Run:state()
  local all = {}
  put(all, "model.", self.model:state_dict())
  put(all, "optimizer.", self.optimizer:state_dict())
  put(all, "exchange.", self.exchange:state_dict())
  return all
end

--- Returns the names of entries that differ between two states, or nil. complete: entries in one state only count, too.
function Run.difference(a, b, complete)
  local list, seen = {}, {}
  for _, state in ipairs {a, b} do
    for name in pairs(state) do
      if not seen[name] and a[name] ~= b[name] and (complete or a[name] and b[name]) then list[#list + 1] = name end
      seen[name] = true
    end
  end
  table.sort(list)
  return #list > 0 and table.concat(list, " ") or nil
end

function Run:digest()
  local parts = {}
  for i, entry in ipairs(self.model:named_parameters()) do
    local text = entry[2]:detach():bytes()
    parts[i] = ("%s %08x"):format(entry[1], C.atomo_crc32(text, #text))
  end
  return table.concat(parts, ", ")
end

--- Records the digest of a step that was not given up. equal: compares the ranks' states. [collective if equal]
function Run:note_step(equal)
  local mine = self:digest()
  self.trace[#self.trace + 1] = mine
  if not equal then return end
  for rank, other in ipairs(world:allgatherv(mine)) do
    if other ~= mine then
      return self:fault("replicas: after step %d rank %d has %s, rank %d %s", #self.trace, world.rank, mine, rank - 1,
        other)
    end
  end
end

--- Adds the bytes that an exchange passed to MPI on this rank.
function Run:note_bytes(out) self.bytes, self.exchanged = self.bytes + out, self.exchanged + 1 end

--- Checks that all ranks' bytes are at most those of dense gradients by the same topology, plus frames. [collective]
function Run:check_bytes()
  local P, dense = world.size, 0
  for _, p in ipairs(self.model:parameters()) do dense = dense + 4 * p:numel() end
  local ways = {allreduce = P * math.max(2 * (P - 1) / P, math.ceil(math.log(P) / math.log(2))),
    allgather = P * (P - 1), ps = 2 * (P - 1), sharded = 2 * (P - 1)}
  local frames = P * P * 100 * (#self.model:parameters() + 4)
  local most = ((ways[self.script.exchange.topology] or (P + 2) * (P - 1)) * dense + frames) * self.exchanged
  local sent = world:allreduce(atomo.tensor {self.bytes}, "sum"):item()
  if P > 1 and sent > most then
    self:fault("bytes: %d sent in %d exchanges, dense gradients and frames are %d", sent, self.exchanged, most)
  end
end

return Run
